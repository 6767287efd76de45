"""Starts the run of an agent run's sub-workflow; the end of this inner run ends the agent run.

One transaction starts the inner run and makes the agent run wait. Another transaction ends the
inner run and the agent run. Therefore an agent run that waits always has an inner run that will end
the agent run. An agent run has only one inner run, even if the inner run fails. In this case, the
next attempt of the agent run executes the failed agents of the inner run again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.run_options import RunOptions
from app.domain.status import WorkflowStatus
from app.domain.workflow import Workflow
from app.storage.control import refuse_pruned, retry_failed
from app.storage.new_runs import Parent, create_run
from app.storage.repair import restart
from app.storage.runs import store_workflow
from app.storage.session import dumps
from app.storage.statements import LOCK_AGENT_RUNS

LOCK_BOTH: TextClause = text("""
    SELECT id, status, stop_as, priority, tenant, weight, labels, ancestors, pruned_at,
        input <> CAST(:input AS jsonb) AS input_changed FROM runs
    WHERE id = :run_id OR parent_agent_run_id = :agent_run_id ORDER BY id FOR NO KEY UPDATE
""")
WAIT: TextClause = text("""
    WITH waiting AS (
        UPDATE agent_runs SET status = 'waiting', worker = NULL, lease_expires_at = NULL,
            seen = :seen
        WHERE id = :id RETURNING id, run_id, attempt, name
    )
    INSERT INTO events (run_id, agent_run_id, attempt, type, data)
    SELECT run_id, id, attempt, 'sub_run_started',
        jsonb_build_object('agent', name, 'run_id', CAST(:child AS text))
    FROM waiting
""")
# The output has an entry for every agent of the inner workflow. The entry of an agent that did not
# complete is null.
RETURN: TextClause = text("""
    WITH child AS (
        SELECT r.id, r.parent_agent_run_id, r.status, r.error, w.name AS workflow, (
            SELECT coalesce(sum(octet_length(a.output::text)), 0) FROM agent_runs a
            WHERE a.run_id = r.id AND a.parent_id IS NULL
        ) AS bytes
        FROM runs r JOIN workflows w ON w.id = r.workflow_id
        WHERE r.id = :id AND r.finished_at IS NOT NULL
    ), judged AS (
        SELECT id, parent_agent_run_id,
            CASE WHEN status IN ('failed', 'cancelled') THEN status
                WHEN bytes > :max_bytes THEN 'failed' ELSE 'completed' END AS status,
            CASE WHEN status IN ('failed', 'cancelled')
                THEN format('run %s of workflow %s %s: %s', id, workflow,
                    CASE status WHEN 'failed' THEN 'failed' ELSE 'was cancelled' END, error)
                WHEN bytes > :max_bytes
                THEN format('run %s of workflow %s has outputs of %s bytes, '
                    'engine.max_collected_bytes is %s', id, workflow, bytes, :max_bytes)
                WHEN status = 'partially_completed'
                THEN format('run %s of workflow %s completed in part', id, workflow)
                END AS error,
            CASE WHEN status IN ('failed', 'cancelled') THEN 'SubWorkflowFailed'
                WHEN bytes > :max_bytes THEN 'ResultTooLarge'
                WHEN status = 'partially_completed' THEN 'SubWorkflowPartial' END AS error_class
        FROM child
    ), answered AS (
        SELECT j.*, CASE WHEN j.status = 'completed' THEN (
            SELECT jsonb_object_agg(a.name, CASE WHEN a.status = 'completed' THEN a.output END)
            FROM agent_runs a
            WHERE a.run_id = j.id AND a.parent_id IS NULL
        ) END AS output
        FROM judged j
    ), ended AS (
        UPDATE agent_runs p SET status = j.status, error = j.error, error_class = j.error_class,
            finished_at = clock_timestamp(), output = j.output,
            kept = CASE WHEN j.status <> 'completed' THEN p.kept END,
            changed_in = CASE WHEN j.status = 'completed' AND (p.kept IS NULL
                OR CAST(p.kept -> 'output' AS text) IS DISTINCT FROM CAST(j.output AS text))
                THEN r.round ELSE p.changed_in END
        FROM answered j, runs r
        WHERE p.id = j.parent_agent_run_id AND p.status = 'waiting' AND r.id = p.run_id
        RETURNING p.id, p.run_id, p.name, p.attempt, p.level, p.status, p.error, p.error_class,
            j.id AS child
    ), attempted AS (
        UPDATE attempts t SET outcome = e.status, error = e.error, error_class = e.error_class,
            finished_at = clock_timestamp()
        FROM ended e WHERE t.agent_run_id = e.id AND t.number = e.attempt
    ), noted AS (
        INSERT INTO events (run_id, agent_run_id, attempt, type, data)
        SELECT run_id, id, attempt, 'agent_' || status, jsonb_strip_nulls(jsonb_build_object(
            'agent', name, 'run_id', child, 'error', error, 'error_class', error_class))
        FROM ended
    )
    SELECT run_id, level, status <> 'completed' AS failed FROM ended
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class ParentStep:
    """An outer run that may go on because a sub-workflow of this outer run has ended.

    ``level`` is the outer run's level. ``failed`` is true if the agent with the sub-workflow
    failed.
    """

    run_id: UUID
    level: int
    failed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SubRunRequest:
    """An agent run's request to execute a workflow as its sub-workflow.

    Attributes:
        agent_run_id: The agent run.
        attempt: The fencing token of the agent run.
        run_id: The run of the agent run (the outer run).
        workflow: The workflow to execute.
        input: JSON values by key, already checked.
        seen: The hash of the input.
        limit_usd: Dollars that the agent may spend; the inner run's budget is at most this amount.
        thresholds: Percentages of the inner run's budget; if the spending passes one of these
            percentages, the history gets an event.
    """

    agent_run_id: UUID
    attempt: int
    run_id: UUID
    workflow: Workflow
    input: Mapping[str, Any]
    limit_usd: Decimal
    thresholds: Sequence[int]
    seen: str = ""


class SubRunAnswer(StrEnum):
    """The answer to a ``SubRunRequest``."""

    WAITING = "waiting"  # the inner run has not ended, and will end the agent run
    ENDED = "ended"  # the inner run had ended already, and has ended the agent run
    STOPPED = "stopped"  # the outer run is being stopped
    PAUSED = "paused"  # the outer run is paused
    FENCED = "fenced"  # the attempt no longer belongs to this worker


async def start_sub_run(connection: AsyncConnection, request: SubRunRequest) -> SubRunAnswer:
    """Start the run of a sub-workflow, or begin a new round of the existing inner run.

    In a new round, the failed agents of the inner run run again. If the input of the inner run has
    changed, the agents that read a changed value run again, too.

    The agent run then waits without a lease and without a place. The call may be repeated: the
    second call finds that the agent run waits already, and returns FENCED.

    Args:
        connection: Inside a transaction.
        request: The agent run and the workflow.

    Raises:
        RunConflict: If the inner run exists, but its input has been removed.
    """
    input_ = dumps(request.input)
    locked = await connection.execute(
        LOCK_BOTH,
        {"run_id": request.run_id, "agent_run_id": request.agent_run_id, "input": input_},
    )
    runs = {row.id: row for row in locked}
    outer = runs.pop(request.run_id)
    (agent_run,) = await connection.execute(LOCK_AGENT_RUNS, {"ids": [request.agent_run_id]})
    if agent_run.status != "running" or agent_run.attempt != request.attempt:
        return SubRunAnswer.FENCED
    if outer.stop_as is not None or WorkflowStatus(outer.status).is_final:
        return SubRunAnswer.STOPPED
    if outer.status == WorkflowStatus.PAUSED:
        return SubRunAnswer.PAUSED
    inner = next(iter(runs.values()), None)
    inner_id = await _create(connection, request, outer) if inner is None else inner.id
    waiting = {"id": request.agent_run_id, "child": str(inner_id), "seen": request.seen}
    await connection.execute(WAIT, waiting)
    if inner is None or await _goes_on(connection, inner, input_):
        return SubRunAnswer.WAITING
    await return_to_parent(connection, inner_id, max_bytes=2**31 - 1)
    return SubRunAnswer.ENDED


async def _goes_on(connection: AsyncConnection, inner: Row[Any], input_: str) -> bool:
    """Begin a new round of an ended inner run; return whether the inner run goes on."""
    if not WorkflowStatus(inner.status).is_final:
        return True
    if inner.input_changed:
        refuse_pruned(inner)
        await restart(connection, inner.id, input_)
        return True
    return await retry_failed(connection, inner.id, part_of_retry=True)


async def _create(connection: AsyncConnection, request: SubRunRequest, outer: Row[Any]) -> UUID:
    workflow_id = await store_workflow(connection, request.workflow)
    limit_usd = min(Decimal(str(request.workflow.cost_budget)), request.limit_usd)
    rules = replace(request.workflow, cost_budget=float(limit_usd), priority=outer.priority)
    return await create_run(
        connection,
        rules,
        workflow_id,
        request.input,
        RunOptions(weight=outer.weight, tenant=outer.tenant, labels=outer.labels),
        request.thresholds,
        parent=Parent(agent_run_id=request.agent_run_id, ancestors=(*outer.ancestors, outer.id)),
    )


async def return_to_parent(
    connection: AsyncConnection, run_id: UUID, *, max_bytes: int
) -> ParentStep | None:
    """End the agent run whose sub-workflow has ended.

    Args:
        connection: Inside the transaction that ended the inner run.
        run_id: The inner run.
        max_bytes: Size of the largest output that the agent run may get.

    Returns:
        The outer run that may go on now; None if no agent run waits for the inner run.
    """
    row = (await connection.execute(RETURN, {"id": run_id, "max_bytes": max_bytes})).one_or_none()
    if row is None:
        return None
    return ParentStep(run_id=row.run_id, level=row.level, failed=row.failed)

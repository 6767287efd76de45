"""Pauses and resumes runs in progress; retries and reruns ended runs.

Each function changes the run with one conditional statement under the run's row lock. Therefore a
call may be repeated, and several callers may make the same call at once: the second call finds that
nothing is left to do.
"""

from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.domain.for_each import agent_of
from app.domain.status import AgentStatus, WorkflowStatus
from app.domain.suggestions import did_you_mean, listed
from app.errors import RunConflict, UnknownRun, WorkflowError
from app.storage.run_tree import lock_run_tree
from app.storage.session import dumps
from app.storage.statements import LOCK_BUDGETS

# Every hold locks the budget's row. Therefore no hold is placed after this statement is committed.
PAUSE: TextClause = text("""
    WITH paused AS (
        UPDATE runs SET status = 'paused', deadline_at = NULL, time_left_s = CASE
            WHEN deadline_at IS NULL THEN time_left_s
            ELSE greatest(extract(epoch FROM deadline_at - clock_timestamp()), 0) END
        WHERE id = ANY(CAST(:ids AS uuid[])) AND status IN ('pending', 'running')
            AND stop_as IS NULL
        RETURNING id, time_left_s
    ), held_back AS (
        UPDATE budgets b SET paused = true FROM paused WHERE b.id = paused.id
    )
    INSERT INTO events (run_id, type, data)
    SELECT id, 'run_paused', jsonb_strip_nulls(jsonb_build_object('time_left_s', time_left_s))
    FROM paused RETURNING run_id
""")
# A resumed run is admitted again like any other run. The admission sets the run's deadline. If the
# run around a sub-workflow's run is still paused, the sub-workflow's run also stays paused, because
# no hold of the sub-workflow's run could be placed.
RESUME: TextClause = text("""
    WITH resumed AS (
        UPDATE runs SET status = 'pending' WHERE id = ANY(CAST(:ids AS uuid[]))
            AND status = 'paused' AND NOT EXISTS (
                SELECT FROM runs outer_run WHERE outer_run.id = ANY(runs.ancestors)
                    AND outer_run.status = 'paused'
                    AND outer_run.id <> ALL(CAST(:ids AS uuid[]))
            )
        RETURNING id
    ), opened AS (
        UPDATE budgets b SET paused = false FROM resumed WHERE b.id = resumed.id
    )
    INSERT INTO events (run_id, type) SELECT id, 'run_resumed' FROM resumed RETURNING run_id
""")
LOCK_RUN: TextClause = text("""
    SELECT r.id, r.status, r.pruned_at, r.level_count, r.ancestors, w.name AS workflow
    FROM runs r JOIN workflows w ON w.id = r.workflow_id
    WHERE r.id = :id FOR NO KEY UPDATE OF r
""")
READ_STATUS: TextClause = text("SELECT status FROM runs WHERE id = :id")
READ_LIMIT: TextClause = text("SELECT limit_usd FROM budgets WHERE id = :id")
# The transaction has locked the run before this statement. An agent with items waits for the items
# that are tried again. The numbers of the attempts go on, so late writes of an old attempt are
# refused. Only the attempt of an agent with items continues, because the items continue.
# Conversations with tools begin anew, because a failed conversation would otherwise continue from
# the point of its failure. Attachments are read anew, because a wrong file may have been replaced.
RETRY: TextClause = text("""
    WITH locked AS MATERIALIZED (
        SELECT id FROM agent_runs a WHERE run_id = :id
            AND (status IN ('failed', 'rate_limited', 'budget_exceeded', 'cancelled')
                OR item_count IS NOT NULL AND EXISTS (
                    SELECT FROM agent_runs i WHERE i.run_id = :id AND i.parent_id = a.id
                        AND i.status IN ('failed', 'rate_limited', 'budget_exceeded', 'cancelled')
                ))
        ORDER BY id FOR NO KEY UPDATE
    ), again AS (
        UPDATE agent_runs a SET retries = 0, recoveries = 0, error = NULL, error_class = NULL,
            status = CASE WHEN a.item_count IS NULL THEN 'pending' ELSE 'waiting' END,
            output = NULL, ready_at = clock_timestamp(), finished_at = NULL, attached = NULL,
            started_at = CASE WHEN a.item_count IS NULL THEN NULL ELSE a.started_at END
        FROM locked WHERE a.id = locked.id RETURNING a.level, a.id, a.attempt, a.status
    ), reattempted AS (
        UPDATE attempts t SET outcome = 'running', error = NULL, error_class = NULL,
            finished_at = NULL
        FROM again WHERE again.status = 'waiting'
            AND t.agent_run_id = again.id AND t.number = again.attempt
    ), anew AS (
        UPDATE turns SET set_aside = true FROM locked WHERE turns.agent_run_id = locked.id
            AND NOT turns.set_aside
    ), reopened AS (
        UPDATE runs SET status = 'pending', stop_as = NULL, stop_reason = NULL, error = NULL,
            finished_at = NULL, deadline_at = NULL, time_left_s = NULL,
            level = (SELECT min(level) FROM again)
        WHERE id = :id AND EXISTS (SELECT FROM again) RETURNING id
    ), opened AS (
        UPDATE budgets b SET closed = false, paused = false, limit_usd = given.limit_usd,
            overdrawn_usd = greatest(0, b.spent_usd + b.held_usd - given.limit_usd),
            reached = coalesce((
                SELECT max(percent) FROM unnest(b.thresholds) AS percent
                WHERE b.spent_usd * 100 >= given.limit_usd * percent
            ), 0)
        FROM reopened, (SELECT CAST(:limit_usd AS numeric) AS limit_usd) given
        WHERE b.id = reopened.id
    )
    INSERT INTO events (run_id, type, data)
    SELECT id, 'run_retried', jsonb_build_object(
        'agents', (SELECT count(*) FROM again), 'cost_budget', CAST(:limit_usd AS text))
    FROM reopened RETURNING run_id
""")
OPEN_RERUN: TextClause = text("""
    SELECT id FROM runs WHERE rerun_of = :id AND rerun_from = :agent AND finished_at IS NULL
""")
AGENTS_OF_RUN: TextClause = text("""
    SELECT name, level, status, dependencies FROM agent_runs
    WHERE run_id = :id AND parent_id IS NULL ORDER BY position
""")
# agents: [{id, name, again}]. The new run takes over an agent that does not run again, together
# with the agent's output. Such an agent costs the new run nothing, because the old run has paid for
# the agent.
RERUN: TextClause = text("""
    WITH run AS (
        INSERT INTO runs (id, workflow_id, input, priority, tenant, weight, level, level_count,
            max_parallel_agents, allow_partial_completion, timeout_s, rerun_of, rerun_from)
        SELECT :new, workflow_id, input, priority, tenant, weight, :level, level_count,
            max_parallel_agents, allow_partial_completion, timeout_s, id, :agent
        FROM runs WHERE id = :id RETURNING id
    ), budget AS (
        INSERT INTO budgets (id, scope, subject, limit_usd, thresholds)
        SELECT run.id, 'run', CAST(run.id AS text), b.limit_usd, b.thresholds
        FROM run, budgets b WHERE b.id = :id
    ), agents AS (
        INSERT INTO agent_runs (id, run_id, name, position, level, module, provider, model,
            priority, dependencies, reads, accept_missing_inputs, limit_usd, status, output,
            started_at, finished_at)
        SELECT n.id, run.id, a.name, position, level, module, provider, model,
            priority, dependencies, reads, accept_missing_inputs, limit_usd,
            CASE WHEN n.again THEN 'pending' ELSE status END,
            CASE WHEN n.again THEN NULL ELSE output END,
            CASE WHEN n.again THEN NULL ELSE started_at END,
            CASE WHEN n.again THEN NULL ELSE finished_at END
        FROM run, agent_runs a JOIN jsonb_to_recordset(CAST(:agents AS jsonb))
            AS n(id uuid, name text, again bool) ON n.name = a.name
        WHERE a.run_id = :id
    )
    INSERT INTO events (run_id, type, data)
    SELECT run.id, 'run_created', CAST(:created AS jsonb) FROM run
    UNION ALL
    SELECT CAST(:id AS uuid), 'run_rerun', CAST(:data AS jsonb) FROM run
""")


async def pause(connection: AsyncConnection, run_id: UUID) -> bool:
    """Keep a run from starting agents and calls until it is resumed; also stop the run's timeout.

    The runs of the run's sub-workflows are paused, too. If the hold of a call was placed before
    this transaction commits, the call goes on until it ends.

    Args:
        connection: Inside a transaction.
        run_id: The run.

    Returns:
        Whether the run was pending or running, and was not being stopped.
    """
    return run_id in await _on_run_tree(connection, PAUSE, run_id)


async def resume(connection: AsyncConnection, run_id: UUID) -> bool:
    """Make a paused run and its sub-workflows pending; returns whether the run was paused."""
    return run_id in await _on_run_tree(connection, RESUME, run_id)


async def _on_run_tree(
    connection: AsyncConnection, statement: TextClause, run_id: UUID
) -> Collection[UUID]:
    """Execute a statement on a run and its sub-workflows' runs; returns the changed runs' ids."""
    ids = [run.id for run in await lock_run_tree(connection, [run_id])]
    if len(ids) > 1:  # place_holds locks the budgets in the same order
        await connection.execute(LOCK_BUDGETS, {"ids": sorted(ids)})
    return set(await connection.scalars(statement, {"ids": ids}))


async def status_of(connection: AsyncConnection, run_id: UUID) -> str | None:
    """Return the state of a run, or None if there is no such run."""
    status: str | None = await connection.scalar(READ_STATUS, {"id": run_id})
    return status


async def retry_failed(
    connection: AsyncConnection,
    run_id: UUID,
    *,
    cost_budget: Decimal | None = None,
    part_of_retry: bool = False,
) -> bool:
    """Run the failed and the cancelled agents of an ended run again.

    All results and costs stay. Only retries and recoveries are counted anew.

    Args:
        connection: Inside a transaction.
        run_id: The run.
        cost_budget: A higher limit for the run, in dollars; None leaves the limit as it is.
        part_of_retry: Whether the retry of the outer run causes this retry of a sub-workflow's run.

    Returns:
        Whether at least one agent will run again. No agent will run again if the run has not ended,
        or if the run has no failed or cancelled agent.

    Raises:
        RunConflict: If the run's input has been removed, if the budget would be lowered, or if the
            run is a sub-workflow of another run. In the last case, the other run has to be retried.
    """
    run = await _lock(connection, run_id)
    if run.ancestors and not part_of_retry:
        raise RunConflict(
            f"run {run_id} is a sub-workflow of run {run.ancestors[0]}: retry the outer run, which "
            "also runs the failed agents of its sub-workflows again"
        )
    if not WorkflowStatus(run.status).is_final:
        return False
    _refuse_pruned(run)
    limit_usd: Decimal = (await connection.execute(READ_LIMIT, {"id": run_id})).scalar_one()
    if cost_budget is None:
        cost_budget = limit_usd
    if cost_budget < limit_usd:
        raise RunConflict(
            f"the cost_budget of run {run_id} is {limit_usd:f} dollars, and {cost_budget:f} would "
            "lower it: the money already spent still counts, so give a higher cost_budget or none"
        )
    values = {"id": run_id, "limit_usd": str(cost_budget)}
    return await connection.scalar(RETRY, values) is not None


async def rerun(connection: AsyncConnection, run_id: UUID, agent: str) -> UUID:
    """Make a new run with the same workflow and input; the new run starts from one agent.

    The agents that run again are the given agent, all agents that depend on the given agent, and
    all agents without a result. The results of the remaining agents are taken over. Until the new
    run has ended, another call for the same agent returns the same new run.

    Args:
        connection: Inside a transaction.
        run_id: The run that has ended.
        agent: Name of the agent.

    Returns:
        The id of the new run.

    Raises:
        WorkflowError: If the run has no agent of that name.
        RunConflict: If the run has not ended, or if its input has been removed.
    """
    run = await _lock(connection, run_id)
    given: dict[str, Any] = {"id": run_id, "agent": agent}
    found: UUID | None = await connection.scalar(OPEN_RERUN, given)
    if found is not None:
        return found
    if not WorkflowStatus(run.status).is_final:
        raise RunConflict(
            f"run {run_id} is {run.status}: only an ended run can be rerun, so wait for its end, "
            "or cancel it first"
        )
    _refuse_pruned(run)
    rows = (await connection.execute(AGENTS_OF_RUN, {"id": run_id})).all()
    again = _to_run_again(run_id, rows, agent)
    new: UUID = uuid7()
    agents = [{"id": uuid7(), "name": row.name, "again": row.name in again} for row in rows]
    created = {
        "workflow": run.workflow,
        "agents": len(rows),
        "levels": run.level_count,
        "rerun_of": run_id,
        "rerun_from": agent,
        "taken_over": len(rows) - len(again),
    }
    values = {
        "new": new,
        "level": min(row.level for row in rows if row.name in again),
        "agents": dumps(agents),
        "created": dumps(created),
        "data": dumps({"agent": agent, "run_id": new}),
    }
    await connection.execute(RERUN, given | values)
    return new


async def _lock(connection: AsyncConnection, run_id: UUID) -> Row[Any]:
    run = (await connection.execute(LOCK_RUN, {"id": run_id})).one_or_none()
    if run is None:
        raise UnknownRun(f"no run has the id {str(run_id)!r}: see `agentchord runs`")
    return run


def _refuse_pruned(run: Row[Any]) -> None:
    if run.pruned_at is not None:
        raise RunConflict(
            f"the input and the outputs of run {run.id} were removed on "
            f"{run.pruned_at:%Y-%m-%d}: enqueue it anew"
        )


def _to_run_again(run_id: UUID, rows: Sequence[Row[Any]], agent: str) -> Collection[str]:
    """Return the agent, all agents that depend on this agent, and all agents without a result."""
    names = [row.name for row in rows]
    if agent not in names:
        if (each := agent_of(agent)) in names:
            raise WorkflowError(
                f"{agent!r} names an element of a list, which cannot be run again alone: "
                f"`agentchord retry {run_id}` runs the failed elements again, "
                f"`agentchord rerun {run_id} {each}` runs the whole list again"
            )
        raise WorkflowError(
            f"run {run_id} has no agent {agent!r}{did_you_mean(agent, names)}; "
            f"it has {listed(names)}"
        )
    kept = (AgentStatus.COMPLETED, AgentStatus.SKIPPED)
    again = {agent, *(row.name for row in rows if row.status not in kept)}
    for row in sorted(rows, key=lambda row: row.level):
        if again.intersection(row.dependencies):
            again.add(row.name)
    return again

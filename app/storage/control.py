"""Pauses and resumes runs in progress, and retries ended runs.

Each function changes the run with one conditional statement under the run's row lock. Therefore a
call may be repeated, and several callers may make the same call at once: the second call finds that
nothing is left to do.
"""

from collections.abc import Collection
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.counts import counted
from app.domain.for_each import agent_of
from app.domain.status import WorkflowStatus
from app.domain.suggestions import did_you_mean, listed
from app.errors import RunConflict, UnknownRun, WorkflowError
from app.storage.repair import Target, is_broken, reopen_broken
from app.storage.run_tree import lock_run_tree
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
# A person has raised the budget of the outer run. So the budgets of its inner runs may not stop
# them before: each run on the way to an agent that had no money left may spend as much.
RAISE_INNER: TextClause = text("""
    UPDATE budgets b SET limit_usd = greatest(b.limit_usd, CAST(:limit_usd AS numeric))
    FROM runs r WHERE r.id = b.id AND :id = ANY(r.ancestors) AND r.finished_at IS NOT NULL
        AND EXISTS (
            SELECT FROM agent_runs a JOIN runs below ON below.id = a.run_id
            WHERE a.status = 'budget_exceeded' AND :id = ANY(below.ancestors)
                AND r.id = ANY(below.ancestors || below.id)
        )
""")
READ_STATUS: TextClause = text("SELECT status FROM runs WHERE id = :id")
READ_LIMIT: TextClause = text("SELECT limit_usd FROM budgets WHERE id = :id")
NAMES_OF_RUN: TextClause = text("""
    SELECT name, item_count FROM agent_runs WHERE run_id = :id AND parent_id IS NULL
    ORDER BY position
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
    agent: str | None = None,
    cost_budget: Decimal | None = None,
    part_of_retry: bool = False,
) -> bool:
    """Repair an ended run: run again what failed, was cancelled or is partial.

    Agents that read a repaired output run again after the output has changed. All other results
    and all costs stay. Only retries and recoveries are counted anew.

    Args:
        connection: Inside a transaction.
        run_id: The run.
        agent: The only agent, or item such as ``handled[20]``, to repair; None repairs all.
        cost_budget: A higher limit for the run, in dollars; None leaves the limit as it is. Runs of
            sub-workflows that had no money left get this limit, too.
        part_of_retry: Whether the retry of the outer run causes this retry of a sub-workflow's run.

    Returns:
        Whether at least one agent will run again. No agent will run again if the run has not ended,
        or if nothing failed, was cancelled or is partial.

    Raises:
        WorkflowError: If the run has no such agent or item.
        RunConflict: If the run's input has been removed, if the budget would be lowered, or if the
            run is a sub-workflow of another run. In the last case, the other run has to be retried.
    """
    run = await lock_run(connection, run_id)
    if run.ancestors and not part_of_retry:
        raise RunConflict(
            f"run {run_id} is a sub-workflow of run {run.ancestors[0]}: retry the outer run, which "
            "also runs the failed agents of its sub-workflows again"
        )
    if not WorkflowStatus(run.status).is_final:
        return False
    refuse_pruned(run)
    limit_usd: Decimal = (await connection.execute(READ_LIMIT, {"id": run_id})).scalar_one()
    raised = cost_budget is not None
    if cost_budget is None:
        cost_budget = limit_usd
    if cost_budget < limit_usd:
        raise RunConflict(
            f"the cost_budget of run {run_id} is {limit_usd:f} dollars, and {cost_budget:f} would "
            "lower it: the money already spent still counts, so give a higher cost_budget or none"
        )
    target = Target()
    if agent is not None:
        broken = await is_broken(connection, run_id, agent)
        if broken is None:
            raise await no_such_agent(connection, run_id, agent)
        if not broken:
            return False
        owner = agent_of(agent)
        target = Target(owner=owner, item="" if owner == agent else agent)
    if raised:
        await connection.execute(RAISE_INNER, {"id": run_id, "limit_usd": str(cost_budget)})
    return await reopen_broken(connection, run_id, limit_usd=cost_budget, target=target)


async def lock_run(connection: AsyncConnection, run_id: UUID) -> Row[Any]:
    """Lock the row of a run and return it; raises UnknownRun if there is no such run."""
    run = (await connection.execute(LOCK_RUN, {"id": run_id})).one_or_none()
    if run is None:
        raise UnknownRun(f"no run has the id {str(run_id)!r}: see `agentchord runs`")
    return run


def refuse_pruned(run: Row[Any]) -> None:
    """Refuse to go on with a run whose input and outputs were removed."""
    if run.pruned_at is not None:
        raise RunConflict(
            f"the input and the outputs of run {run.id} were removed on "
            f"{run.pruned_at:%Y-%m-%d}: enqueue it anew"
        )


async def no_such_agent(connection: AsyncConnection, run_id: UUID, agent: str) -> WorkflowError:
    """Return the refusal of a name that no agent and no item of a run has."""
    rows = (await connection.execute(NAMES_OF_RUN, {"id": run_id})).all()
    counts = {row.name: row.item_count for row in rows}
    owner = agent_of(agent)
    if owner != agent and counts.get(owner) is not None:
        last = f", from {owner}[0] to {owner}[{counts[owner] - 1}]" if counts[owner] else ""
        return WorkflowError(
            f"run {run_id} has no item {agent!r}: the list of {owner!r} has "
            f"{counted(counts[owner], 'item')}{last}"
        )
    if owner != agent and owner in counts:
        return WorkflowError(
            f"run {run_id} has no item {agent!r}: {owner!r} has no list, or its list was not read"
        )
    return WorkflowError(
        f"run {run_id} has no agent {agent!r}{did_you_mean(agent, list(counts))}; "
        f"it has {listed(list(counts))}"
    )

"""Stops runs before their last level is done.

After the stop of a run, no new call of the run can start. The calls in flight are closed by the
workers, and then the run ends.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.status import WorkflowStatus
from app.storage.agent_counts import agent_counts
from app.storage.fetch import Row
from app.storage.progress import CANCEL_PENDING, finish
from app.storage.run_tree import lock_run_tree
from app.storage.statements import LOCK_BUDGETS

# A run that is being stopped has the state running until its calls are closed, even if the run was
# pending or paused before.
STOP: TextClause = text("""
    UPDATE runs SET status = 'running', stop_as = coalesce(stop_as, :as_),
        stop_reason = coalesce(stop_reason, :reason)
    WHERE id = :id
""")
CLOSE_BUDGETS: TextClause = text("""
    UPDATE budgets SET closed = true, paused = false WHERE id = ANY(CAST(:ids AS uuid[]))
""")


async def stop(
    connection: AsyncConnection, run_id: UUID, *, as_: WorkflowStatus, reason: str
) -> bool:
    """End a run and the runs of its sub-workflows early; workers then close the calls in flight.

    No new call starts after the run's budget is closed, because a call needs a hold. The placing of
    a hold locks the budget rows of the hold's run and of all runs around this run.

    Args:
        connection: Inside a transaction.
        run_id: The run.
        as_: State in which the run ends, CANCELLED or FAILED.
        reason: The reason, which the history shows.

    Returns:
        Whether the run had not ended yet.
    """
    run_tree = await lock_run_tree(connection, [run_id])
    if not run_tree or WorkflowStatus(run_tree[0].status).is_final:
        return False
    *inner, outer = reversed(run_tree)
    await stop_locked(connection, inner, reason=reason)
    await stop_locked(connection, [outer], as_=as_, reason=reason)
    await close_budgets(connection, [run.id for run in run_tree])
    return True


async def close_budgets(connection: AsyncConnection, run_ids: Sequence[UUID]) -> None:
    """Close the budgets of these runs, so that no hold can be placed on the budgets any more."""
    if len(run_ids) > 1:  # place_holds locks the budgets in the same order
        await connection.execute(LOCK_BUDGETS, {"ids": sorted(run_ids)})
    await connection.execute(CLOSE_BUDGETS, {"ids": list(run_ids)})


async def stop_locked(
    connection: AsyncConnection,
    runs: Sequence[Row],
    *,
    as_: WorkflowStatus = WorkflowStatus.CANCELLED,
    reason: str,
) -> None:
    """Stop runs that are locked; inner runs come first, because an inner run ends an outer agent.

    The caller then closes the budgets of these runs.
    """
    for run in runs:
        if WorkflowStatus(run.status).is_final:
            continue
        params = {"id": run.id, "reason": reason}
        await connection.execute(STOP, params | {"as_": as_})
        await connection.execute(CANCEL_PENDING, params | {"all": True})
        counts = (await agent_counts(connection, [run.id]))[run.id]
        if not counts.running:
            end = (run, run.stop_as or as_, run.stop_reason or reason)
            await finish(connection, [end])

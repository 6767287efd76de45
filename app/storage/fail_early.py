"""Cancels the pending agents of runs that can only fail; agents in progress are not stopped."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.outcome import AgentCounts, failure_reason
from app.domain.status import WorkflowStatus
from app.storage.agent_counts import agent_counts
from app.storage.progress import CANCEL_PENDING
from app.storage.run_tree import LOCK_RUNS_FULL, lock_run_tree
from app.storage.stopping import close_budgets, stop_locked


async def fail_early(connection: AsyncConnection, run_ids: Sequence[UUID]) -> list[str | None]:
    """Cancel the pending agents of runs that can only fail.

    Calls in flight go on until they end. The results of these calls are kept, because the results
    are paid for, and because a retry of the run can use the results. Sub-workflows in progress are
    stopped, because they would start more calls. The run itself ends as failed when its level is
    done. A repeated call changes nothing.

    Args:
        connection: Inside a transaction.
        run_ids: Runs in which an agent has just failed; the same run may be given several times.

    Returns:
        For each given run, the reason of its failure, or None if the run goes on.
    """
    ids = sorted(set(run_ids))
    reasons: dict[UUID, str] = {}
    locked = (await connection.execute(LOCK_RUNS_FULL, {"ids": ids})).all()
    by_run = await agent_counts(connection, ids)
    for run in locked:
        if run.status != WorkflowStatus.RUNNING or run.stop_as is not None:
            continue
        row = by_run[run.id]
        counts = AgentCounts(
            total=row.total,
            failed=row.failed,
            critical_failed=row.critical_failed,
            decisive_items=row.decisive_items,
        )
        reason = failure_reason(counts, allow_partial_completion=run.allow_partial_completion)
        if reason is not None:
            reasons[run.id] = reason
    # The runs of sub-workflows are locked before any agent run is locked.
    run_tree = await lock_run_tree(connection, sorted(reasons)) if reasons else []
    for run in run_tree:
        if run.id in reasons:
            params = {"id": run.id, "reason": f"run failed: {reasons[run.id]}", "all": False}
            await connection.execute(CANCEL_PENDING, params)
    inner = [run for run in reversed(run_tree) if run.id not in reasons]
    if inner:
        reason = "the run that contains this sub-workflow has failed"
        await stop_locked(connection, inner, reason=reason)
        await close_budgets(connection, [run.id for run in inner])
    return [reasons.get(run_id) for run_id in run_ids]

"""Control of runs that are going and of runs that have ended: stop, pause, retry, prune."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from app.bootstrap import Platform
from app.client.runs import Runs
from app.client.transactions import Transactions
from app.domain.json_values import find_text_problem
from app.domain.scope import Scope
from app.domain.status import WorkflowStatus
from app.domain.validation import BOUNDS
from app.errors import WorkflowError
from app.storage.deferred import wake_deferred
from app.storage.group_commit import persist
from app.storage.prune import Pruned, count_prunable, prune_batch, prune_recorded


class Control:
    """Controls the runs of one scope.

    Every method that takes the id of a run raises UnknownRun if the scope has no such run.

    Args:
        platform: The process's platform.
        scope: The scope of the runs.
        transactions: The object that runs transactions in Postgres.
        runs: The runs of the scope.
    """

    def __init__(
        self, platform: Platform, scope: Scope, transactions: Transactions, runs: Runs
    ) -> None:
        self._platform = platform
        self._scheduler = platform.scheduler
        self._scope = scope
        self._transactions = transactions
        self._runs = runs

    async def cancel(self, run_id: UUID, reason: str) -> bool:
        """Stop a run and return whether the run was still going.

        After this method has returned, no call of the run starts.

        Raises:
            WorkflowError: If Postgres cannot store the reason.
        """
        if problem := find_text_problem(reason):
            raise WorkflowError(f"the reason {problem}", field="reason")
        await self._runs.read(run_id)
        return await self._scheduler.stop(run_id, as_=WorkflowStatus.CANCELLED, reason=reason)

    async def pause(self, run_id: UUID) -> bool:
        """Pause a run and return whether the run was going.

        After this method has returned, no call of the run starts.
        """
        await self._runs.read(run_id)
        return await self._scheduler.pause(run_id)

    async def resume(self, run_id: UUID) -> bool:
        """Continue a paused run; return whether the run was paused."""
        await self._runs.read(run_id)
        return await self._scheduler.resume(run_id)

    async def retry_failed(
        self, run_id: UUID, cost_budget: float | None = None, *, agent: str | None = None
    ) -> bool:
        """Repair a run that has ended: repeat what failed, was cancelled or is partial.

        Args:
            run_id: The run.
            cost_budget: A higher limit for the run, in dollars; None keeps the limit.
            agent: The only agent, or item such as ``handled[20]``, to repair; None repairs all.

        Returns:
            Whether any agent runs again.

        Raises:
            WorkflowError: If the run has no such agent or item.
            RunConflict: If the run's input has been removed, or if the budget would be lowered.
        """
        if agent is not None and (problem := find_text_problem(agent)):
            raise WorkflowError(f"the agent's name {problem}", field="agent")
        if cost_budget is not None and (problem := BOUNDS["cost_budget"].problem(cost_budget)):
            raise WorkflowError(f"cost_budget of the run {problem}", field="cost_budget")
        limit_usd = None if cost_budget is None else Decimal(str(cost_budget))
        await self._runs.read(run_id)
        return await self._scheduler.retry_failed(run_id, agent=agent, cost_budget=limit_usd)

    async def rerun(self, run_id: UUID, agent: str) -> UUID:
        """Make a new run that repeats an ended run from an agent on; return the new run's id.

        The name may be that of an item, such as ``handled[20]``.

        Raises:
            WorkflowError: If the run has no agent or item of that name.
            RunConflict: If the run is still going, or if the run's input has been removed.
        """
        if problem := find_text_problem(agent):
            raise WorkflowError(f"the agent's name {problem}", field="agent")
        await self._runs.read(run_id)
        return await self._scheduler.rerun(run_id, agent)

    async def prune(
        self,
        older_than_s: float,
        *,
        dry_run: bool = False,
        on_batch: Callable[[Pruned], None] | None = None,
    ) -> Pruned:
        """Remove the inputs, the outputs and the histories of old runs.

        If the scope is a tenant, only runs of that tenant are pruned. If the scope is ``ALL``, old
        events that programs recorded are removed, too; such events belong to no tenant.

        Each batch is a transaction of its own. If a later batch fails, the earlier batches stay
        removed. The ledger never changes.

        Args:
            older_than_s: Minimum number of seconds since the end of a run.
            dry_run: Whether to count the data without removing any data.
            on_batch: A function that is called with the counts of each batch, or None.

        Returns:
            The counts of the removed data; in a dry run, the counts of the data to remove.
        """
        where: dict[str, Any] = {"older_than_s": older_than_s, "tenant": self._scope.tenant}
        if dry_run:
            return await self._transactions.run(partial(count_prunable, **where))
        removed = await self._transactions.run(partial(prune_recorded, **where))
        while True:
            batch = await self._transactions.run(partial(prune_batch, **where))
            if not batch.runs:
                return removed
            removed += batch
            if on_batch is not None:
                on_batch(batch)

    async def wake(self, agent_run_ids: Sequence[UUID]) -> None:
        """Wake agents that wait for money, so that they try again at once.

        Raises:
            OutOfScope: If the scope is a tenant.
        """
        self._scope.check_all("waking agents may concern the runs of any tenant")
        for id_ in agent_run_ids:
            await self._platform.signals.send(id_, "money")
        step = partial(wake_deferred, waiters=[agent_run_ids])
        await persist(self._platform.engine, step, name="wake_deferred")

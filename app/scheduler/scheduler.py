"""Starts, advances and stops runs: the transaction first, the messages after its commit."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from decimal import Decimal
from functools import partial
from itertools import count
from uuid import UUID

import structlog
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.status import WorkflowStatus
from app.events.signals import Signals
from app.scheduler.dispatch import Dispatcher
from app.storage import control
from app.storage.admission import admit
from app.storage.fail_early import fail_early
from app.storage.group_commit import Batches, GroupCommit, persist
from app.storage.progress import LevelPlan, Progress, advance, plan_levels, stop
from app.storage.sub_runs import ParentStep

GOING = (WorkflowStatus.PENDING, WorkflowStatus.RUNNING)

log = structlog.get_logger(__name__)


class Scheduler:
    """Everything that moves a run from one state to the next.

    Example:
        await scheduler.ask_for_admission(run_id)  # after enqueueing it
        await scheduler.advance(run_id, level)  # when its level may be done

    Every process may have one, and each step may come early, late or twice. A process that dies
    between a commit and its messages loses these: the watchdog sends them again.

    Args:
        engine: The process's engine.
        dispatcher: Sends lanes.
        signals: Wakes waiting clients and working processes.
        max_running: Runs that may be running at once in the whole cluster.
        max_collected_bytes: Largest output that is put together from items or a sub-workflow.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        dispatcher: Dispatcher,
        signals: Signals,
        *,
        max_running: int,
        max_collected_bytes: int,
    ) -> None:
        self._engine = engine
        self._dispatcher = dispatcher
        self._signals = signals
        self._max_running = max_running
        self._advances: GroupCommit[tuple[UUID, int], Progress] = GroupCommit(
            engine,
            partial(advance, max_collected_bytes=max_collected_bytes),
            name="advance",
            key=lambda step: step[0],
        )
        self._admissions: GroupCommit[None, list[LevelPlan]] = GroupCommit(
            engine, self._admit, name="admit"
        )
        self._asks: Batches[UUID, None] = Batches(self._ask, name="ask_for_admission")
        self._failing: GroupCommit[UUID, str | None] = GroupCommit(
            engine, fail_early, name="fail_early"
        )

    async def admit(self) -> None:
        """Start the pending runs that may start now, and dispatch the levels they stand at."""
        plans = await self._admissions.submit(None)
        await self._dispatcher.send_levels([plan for plan in plans if plan.agents])
        for plan in plans:
            if not plan.agents:
                await self.advance(plan.run_id, plan.level)

    async def _admit(
        self, connection: AsyncConnection, items: Sequence[None]
    ) -> list[list[LevelPlan]]:
        """Admit once for all callers of the batch; the first of them dispatches."""
        plans = await admit(connection, max_running=self._max_running)
        return [plans, *([] for _ in items[1:])]

    async def follow(self, run_id: UUID, progress: Progress) -> None:
        """Do what a committed step brings with it, beside the dispatch of the next level."""
        if progress.finished:
            await self._signals.send(run_id, "finished")
            await self.admit()
        if (outer := progress.parent) is not None:
            await self.on_parent(outer)

    async def on_parent(self, outer: ParentStep) -> None:
        """Go on with the run around a sub-workflow that has ended."""
        if outer.failed:
            await self.fail_early(outer.run_id)
        await self.advance(outer.run_id, outer.level)

    async def spread(self, run_id: UUID) -> None:
        """Send lanes for agents that have just become ready in a level under way."""
        async with self._engine.connect() as connection:
            plans = await plan_levels(connection, [run_id])
        await self._dispatcher.send_levels(plans)

    async def advance(self, run_id: UUID, level: int | None) -> None:
        """Do whatever a run needs next: admit it, or move it on and dispatch the next level."""
        if level is None:
            await self.admit()
        else:
            progress = await self._advances.submit((run_id, level))
            await self.follow(run_id, progress)
            if progress.plan is not None:
                await self._dispatcher.send_levels([progress.plan])

    async def ask_for_admission(self, run_id: UUID) -> None:
        """Ask for a look at the runs that may start now; a client dispatches nothing itself.

        If Redis is away, the watchdog finds the run when it is back.
        """
        await self._asks.submit(run_id)

    async def _ask(self, run_ids: Sequence[UUID]) -> list[None]:
        """Send one message for all callers of the batch: its receiver looks at all runs."""
        try:
            await self._dispatcher.send_advance(run_ids[0])
        except (BrokerError, RedisError, OSError) as error:
            log.warning("redis_unavailable", run_id=str(run_ids[0]), error=str(error))
        return [None] * len(run_ids)

    async def stop(self, run_id: UUID, *, as_: WorkflowStatus, reason: str) -> bool:
        """Have a run end early; returns whether it was still going.

        When this returns, no new call of the run can start; calls in flight are being closed.
        """
        step = partial(stop, run_id=run_id, as_=as_, reason=reason)
        return await self._control(run_id, step, name="stop", brings={as_}, signal="stop")

    async def pause(self, run_id: UUID) -> bool:
        """Have a run rest until it is resumed; returns whether it was going.

        When this returns, no new call of the run can start; calls in flight go on to their end.
        """
        step = partial(control.pause, run_id=run_id)
        paused = {WorkflowStatus.PAUSED}
        return await self._control(run_id, step, name="pause", brings=paused, signal="pause")

    async def resume(self, run_id: UUID) -> bool:
        """Let a paused run go on; returns whether it was paused."""
        step = partial(control.resume, run_id=run_id)
        return await self._control(run_id, step, name="resume", brings=GOING)

    async def retry_failed(self, run_id: UUID, *, cost_budget: Decimal | None = None) -> bool:
        """Let failed agents of a run that has ended run again; see ``storage.control``."""
        step = partial(control.retry_failed, run_id=run_id, cost_budget=cost_budget)
        return await self._control(run_id, step, name="retry_failed", brings=GOING)

    async def rerun(self, run_id: UUID, agent: str) -> UUID:
        """Make a run that starts from one agent of a run that has ended; returns its id."""
        step = partial(control.rerun, run_id=run_id, agent=agent)
        new = await persist(self._engine, step, name="rerun")
        await self.ask_for_admission(new)
        return new

    async def _control(
        self,
        run_id: UUID,
        step: Callable[[AsyncConnection], Awaitable[bool]],
        *,
        name: str,
        brings: Collection[WorkflowStatus],
        signal: str = "",
    ) -> bool:
        """Take a step that changes a run's state; returns whether it did.

        Afterwards the processes get the signal, if there is one, and the scheduler is asked for a
        look. If the step is repeated, because the outcome of a commit is unknown, and finds nothing
        left to do, the state decides: a run in the state that the step leads to was brought there
        by it.
        """
        tries = count()

        async def attempt(connection: AsyncConnection) -> bool:
            is_first = next(tries) == 0
            if await step(connection):
                return True
            return not is_first and await control.status_of(connection, run_id) in brings

        changed = await persist(self._engine, attempt, name=name)
        if changed and signal:
            await self._signals.send(run_id, signal)
        if changed:
            await self.ask_for_admission(run_id)
        return changed

    async def fail_early(self, run_id: UUID) -> None:
        """Start nothing more of a run that can only fail, now that one of its agents has failed."""
        reason = await self._failing.submit(run_id)
        if reason is not None:
            log.info("run_given_up", run_id=str(run_id), reason=reason)

"""Starts, advances and stops runs; messages are sent only after the transaction's commit."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import count
from uuid import UUID

import structlog
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.status import WorkflowStatus
from app.events.signals import Signals
from app.scheduler.asks import Asks
from app.scheduler.dispatch import Dispatcher
from app.scheduler.lanes import Lane
from app.storage import control
from app.storage.admission import admit, has_pending
from app.storage.fail_early import fail_early
from app.storage.group_commit import Batches, GroupCommit, persist
from app.storage.progress import LevelPlan, Progress, advance, plan_levels
from app.storage.rerun import rerun
from app.storage.stopping import stop
from app.storage.sub_runs import ParentStep

GOING = (WorkflowStatus.PENDING, WorkflowStatus.RUNNING)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Handover:
    """The level of an admitted run, and the lane that goes on with this level without a message."""

    plan: LevelPlan
    lane: Lane


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """A caller of an admission: its free lane, and whether a client has just asked for it."""

    free: Lane | None
    asked: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Admission:
    """What one caller gets from an admission; the caller dispatches the levels of ``plans``."""

    handover: Handover | None
    plans: Sequence[LevelPlan] = ()


class Scheduler:
    """All steps that move a run from one state to the next.

    Example:
        await scheduler.ask_for_admission(run_id)  # after the run was enqueued
        await scheduler.advance(run_id, level)  # when the level may be done

    Every process may have a scheduler. Each step may come early, late or twice. If a process dies
    between a commit and the messages that follow, the watchdog sends these messages again.

    Args:
        engine: The process's engine.
        dispatcher: Sends lanes.
        signals: Wakes clients and workers that wait.
        max_running: Number of runs that may run at once in the whole cluster.
        max_collected_bytes: Size of the largest output that may be collected from items or from a
            sub-workflow.
        asks: Requests for admission; None sends each of them as a message of Celery.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        dispatcher: Dispatcher,
        signals: Signals,
        *,
        max_running: int,
        max_collected_bytes: int,
        asks: Asks | None = None,
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
        self._admissions: Batches[_Request, _Admission] = Batches(self._admit, name="admit")
        self._asks = asks
        self._asking: Batches[UUID, None] = Batches(self._ask, name="ask_for_admission")
        self._failing: GroupCommit[UUID, str | None] = GroupCommit(
            engine, fail_early, name="fail_early"
        )

    async def admit(self, *, free: Lane | None = None, asked: bool = False) -> Handover | None:
        """Start the pending runs that may start now, and dispatch their current levels.

        Args:
            free: A lane that is free. None if the caller has no such lane.
            asked: Whether a client has just asked for it, so that a run is probably pending.

        Returns:
            The level of an admitted run that is not dispatched, because the free lane is enough for
            it. None if there is no such run.
        """
        admission = await self._admissions.submit(_Request(free=free, asked=asked))
        await self._dispatcher.send_levels([plan for plan in admission.plans if plan.agents])
        for plan in admission.plans:
            if not plan.agents:
                await self.advance(plan.run_id, plan.level)
        return admission.handover

    async def _admit(self, items: Sequence[_Request]) -> list[_Admission]:
        """Admit once for all callers of the batch.

        Each free lane gets a level, and the first caller dispatches the other levels.
        """
        plans: list[LevelPlan] = []
        if any(request.asked for request in items) or await self._has_pending():
            step = partial(admit, max_running=self._max_running)
            plans = await persist(self._engine, step, name="admit")
        handovers = [
            self._hand_over(plans, request.free) if request.free else None for request in items
        ]
        first, *others = handovers
        return [
            _Admission(handover=first, plans=plans),
            *(_Admission(handover=handover) for handover in others),
        ]

    async def _has_pending(self) -> bool:
        return await persist(self._engine, has_pending, name="has_pending")

    async def answer_asks(self) -> None:
        """Admit runs when clients ask for it, until the task is cancelled.

        A process that serves the scheduler's queue runs this coroutine.
        """
        if self._asks is not None:
            await self._asks.answer(self._admit_for_client)

    async def _admit_for_client(self) -> None:
        await self.admit(asked=True)

    def _hand_over(self, plans: list[LevelPlan], free: Lane) -> Handover | None:
        """Take a level out of the plans for which this lane is enough."""
        for index, plan in enumerate(plans):
            lanes = self._dispatcher.lanes(plan)
            if len(lanes) == 1 and free.covers(lanes[0]):
                del plans[index]
                return Handover(plan=plan, lane=lanes[0])
        return None

    async def follow(
        self, run_id: UUID, progress: Progress, *, free: Lane | None = None
    ) -> Handover | None:
        """Do the work that follows a committed step, except the dispatch of the next level.

        Args:
            run_id: The run.
            progress: The result of the step.
            free: A lane that is free if the run has ended; see ``admit``.

        Returns:
            The level of another run with which the free lane goes on; None if there is none.
        """
        handover = None
        if progress.finished:
            await self._signals.send(run_id, "finished")
            handover = await self.admit(free=free)
        if (outer := progress.parent) is not None:
            await self.on_parent(outer)
        return handover

    async def on_parent(self, outer: ParentStep) -> None:
        """Continue the run whose sub-workflow has ended."""
        if outer.failed:
            await self.fail_early(outer.run_id)
        await self.advance(outer.run_id, outer.level)

    async def spread(self, run_id: UUID) -> None:
        """Send lanes for agents that have become ready in the current level."""
        async with self._engine.connect() as connection:
            plans = await plan_levels(connection, [run_id])
        await self._dispatcher.send_levels(plans)

    async def advance(self, run_id: UUID, level: int | None) -> None:
        """Admit a run, or advance the run and dispatch the next level."""
        if level is None:
            await self.admit(asked=True)
        else:
            progress = await self._advances.submit((run_id, level))
            await self.follow(run_id, progress)
            if progress.plan is not None:
                await self._dispatcher.send_levels([progress.plan])

    async def ask_for_admission(self, run_id: UUID) -> None:
        """Ask a scheduler to admit the runs that may start now; a client dispatches nothing itself.

        If Redis cannot be reached, the watchdog finds the run when Redis is back.
        """
        await self._asking.submit(run_id)

    async def _ask(self, run_ids: Sequence[UUID]) -> list[None]:
        """Send one request for all callers of the batch, because the receiver looks at all runs."""
        try:
            if self._asks is None or not await self._asks.send():
                await self._dispatcher.send_advance(run_ids[0])
        except (RedisError, OSError) as error:
            log.warning("redis_unavailable", run_id=str(run_ids[0]), error=str(error))
        return [None] * len(run_ids)

    async def stop(self, run_id: UUID, *, as_: WorkflowStatus, reason: str) -> bool:
        """End a run early; returns whether the run had not ended yet.

        When this method returns, no new call of the run can start. Workers close the calls in
        flight.
        """
        step = partial(stop, run_id=run_id, as_=as_, reason=reason)
        return await self._control(run_id, step, name="stop", brings={as_}, signal="stop")

    async def pause(self, run_id: UUID) -> bool:
        """Pause a run until it is resumed; returns whether the run was pending or running.

        When this method returns, no new call of the run can start. Calls in flight go on until they
        end.
        """
        step = partial(control.pause, run_id=run_id)
        paused = {WorkflowStatus.PAUSED}
        return await self._control(run_id, step, name="pause", brings=paused, signal="pause")

    async def resume(self, run_id: UUID) -> bool:
        """Let a paused run go on; returns whether the run was paused."""
        step = partial(control.resume, run_id=run_id)
        return await self._control(run_id, step, name="resume", brings=GOING)

    async def retry_failed(
        self, run_id: UUID, *, agent: str | None = None, cost_budget: Decimal | None = None
    ) -> bool:
        """Repair an ended run, or only one of its agents or items; see ``storage.control``."""
        step = partial(control.retry_failed, run_id=run_id, agent=agent, cost_budget=cost_budget)
        return await self._control(run_id, step, name="retry_failed", brings=GOING)

    async def rerun(self, run_id: UUID, agent: str) -> UUID:
        """Make a new run that repeats a part of an ended run; returns the new run's id."""
        step = partial(rerun, run_id=run_id, agent=agent)
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
        """Take a step that changes a run's state; returns whether the state was changed.

        If the state was changed and a signal is given, all processes get this signal. After a
        change, a scheduler is also asked to look at the runs. If the outcome of a commit is
        unknown, the step is repeated. If the repeated step finds that nothing is left to do, the
        run's state decides. If this state is one of the states in ``brings``, the first try has
        changed the run.
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
        """Cancel a run's pending agents, if an agent's failure means that the run must fail."""
        reason = await self._failing.submit(run_id)
        if reason is not None:
            log.info("run_given_up", run_id=str(run_id), reason=reason)

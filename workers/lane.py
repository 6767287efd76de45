"""A lane claims, runs and records agents until none is left. Then the permission is passed on."""

import asyncio
import math
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

import structlog
from structlog.contextvars import bound_contextvars

from app.events.signals import Signals
from app.scheduler.dispatch import Dispatcher
from app.scheduler.lanes import Lane
from app.scheduler.scheduler import Handover, Scheduler
from app.storage.claims import Claim, ClaimRequest
from app.storage.progress import LevelPlan
from workers.claims import Claims, Move, Step
from workers.inflight import InFlight
from workers.leaving import Leaving
from workers.pipeline import Pipeline
from workers.run_contexts import RunContext

#: A lane waits for agents that are ready again within these seconds; agents that are ready later
#: get a new lane.
LINGER_S = 10.0
#: After these seconds, a lane lets other lanes go first if messages wait in its queue.
TIME_SLICE_S = 5.0
#: After these seconds, a lane takes over no more runs if messages wait in its queue.
TAKE_OVER_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """A lane at a level: the lane's width, and the agents that the lane has claimed already."""

    level: int
    lane: Lane
    claim: Claim | None = None


@dataclass(slots=True)
class _Turn:
    """The time until which a lane may take over other runs, on the clock of the loop."""

    ends_s: float


class LaneRunner:
    """Runs the lanes of this process.

    Its weakness: a lane keeps one of the process's Celery threads until the lane ends. Therefore a
    process has no more lanes than threads (``-c``), however few agents each lane runs. The
    alternative, a message for each agent, would cost a message and a claim per agent.

    Args:
        claims: Claims agents.
        pipeline: Executes an agent.
        inflight: Knows whether the process drains.
        scheduler: Acts on the progress of a run.
        dispatcher: Sends lanes.
        signals: Tells the lane that its run is paused or stopped.

    Example:
        await lanes.run(run_id, level=0, provider="openai", width=50)
    """

    def __init__(
        self,
        *,
        claims: Claims,
        pipeline: Pipeline,
        inflight: InFlight,
        scheduler: Scheduler,
        dispatcher: Dispatcher,
        signals: Signals,
    ) -> None:
        self._claims = claims
        self._pipeline = pipeline
        self._inflight = inflight
        self._scheduler = scheduler
        self._dispatcher = dispatcher
        self._signals = signals

    async def run(self, run_id: UUID, level: int, provider: str, width: int) -> None:
        """Work on a level of a run; go on with the next levels while each level needs one lane.

        When the run ends, its place goes to a pending run. If one lane is enough for that run, too,
        the lane goes on with it. So a queue of small runs needs no message for each run.
        """
        turn = _Turn(ends_s=asyncio.get_running_loop().time() + TAKE_OVER_S)
        lane: Lane | None = Lane(provider=provider, width=width)
        while lane is not None:
            with bound_contextvars(run_id=str(run_id)):
                following = await self._run(run_id, level, lane, turn)
            lane = None
            if following is not None:
                run_id, level, lane = following.plan.run_id, following.plan.level, following.lane

    async def _run(self, run_id: UUID, level: int, lane: Lane, turn: _Turn) -> Handover | None:
        """Work on one run; return the run with which the lane goes on, if there is one."""
        async with self._signals.watching(run_id) as news:
            width = 0 if self._inflight.draining else lane.width
            begun = await self._claims.begin(
                ClaimRequest(run_id=run_id, level=level, provider=lane.provider, width=width)
            )
            run = begun.run
            if run is None:
                log.warning("lane_of_unknown_run")
                return None
            following: _Place | Handover | None
            following = _Place(level=level, lane=lane, claim=begun.claim)
            while isinstance(following, _Place):
                place = following
                leaving = Leaving(
                    partial(self._step, run, place) if run.steps_with_records else None
                )
                left = await self._work(run, place, news, leaving)
                following = await self._leave(run, place, left, leaving.move, turn)
            return following

    async def _work(
        self, run: RunContext, place: _Place, news: asyncio.Event, leaving: Leaving
    ) -> Claim | None:
        """Claim and run agents until nothing can be claimed and nothing is in progress.

        Returns:
            The last claim, which has no agents and describes the rest of the level. None if this
            lane had all open agents of the level, and all these agents have ended.
        """
        loop = asyncio.get_running_loop()
        lane, first = place.lane, place.claim
        slice_ends_s = loop.time() + TIME_SLICE_S
        yielding = passed_on = False
        tasks: set[asyncio.Task[float | None]] = set()
        retry_at_s: float | None = None
        all_ended = True
        while True:
            if loop.time() > slice_ends_s:
                slice_ends_s = loop.time() + TIME_SLICE_S
                yielding = await self._dispatcher.backlog(lane.provider) > 0
            closed = yielding or self._inflight.draining
            width = 0 if closed else lane.width - len(tasks)
            claim = first or await self._claims.claim(
                ClaimRequest(
                    run_id=run.run_id,
                    level=place.level,
                    provider=lane.provider,
                    width=width,
                    busy=len(tasks),
                )
            )
            first = None
            leaving.claimed(claim)
            for agent in claim.agents:
                tasks.add(asyncio.create_task(self._pipeline.execute(run, agent, leaving)))
            if not tasks and (retry_at_s is None or closed):
                return claim
            if self._inflight.draining and not passed_on and claim.more and claim.room:
                # The agents that were handed back do not have to wait for the calls in flight.
                passed_on = True
                await self._dispatcher.send_lane(_plan(run, place.level), lane)
            tasks, retry_at_s, ended = await self._until_worth_claiming(
                tasks, retry_at_s, news, more=claim.more and not closed
            )
            all_ended = all_ended and ended
            if not tasks and all_ended and claim.alone:
                return None

    async def _may_take_over(self, lane: Lane, turn: _Turn) -> bool:
        """Return whether the lane may take over a run; after a while, waiting messages go first."""
        if self._inflight.draining:
            return False
        now_s = asyncio.get_running_loop().time()
        if now_s < turn.ends_s:
            return True
        turn.ends_s = now_s + TAKE_OVER_S
        return await self._dispatcher.backlog(lane.provider) == 0

    async def _until_worth_claiming(
        self,
        tasks: set[asyncio.Task[float | None]],
        retry_at_s: float | None,
        news: asyncio.Event,
        *,
        more: bool,
    ) -> tuple[set[asyncio.Task[float | None]], float | None, bool]:
        """Wait until a place is free and an agent may be ready, or until all agents have ended.

        Returns:
            Three values: the agents in progress, the time at which the next handed-back agent is
            ready again, and True if no agent was handed back.
        """
        ended = True
        loop = asyncio.get_running_loop()
        while tasks:
            timeout_s = None if retry_at_s is None else max(retry_at_s - loop.time(), 0.0)
            done, tasks = await asyncio.wait(
                tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                delay_s = task.result()
                ended = ended and delay_s is None
                if delay_s is not None and delay_s <= LINGER_S:
                    retry_at_s = min(retry_at_s or math.inf, loop.time() + delay_s)
            if retry_at_s is not None and loop.time() >= retry_at_s:
                return tasks, None, ended
            if done and (more or self._inflight.draining):
                return tasks, retry_at_s, ended
        if retry_at_s is not None:
            # If the run is paused or stopped, a signal ends this wait, because no agent will be
            # ready soon.
            await self._inflight.sleep(retry_at_s - loop.time(), unless=news)
        return tasks, None, ended

    async def _leave(
        self,
        run: RunContext,
        place: _Place,
        left: Claim | None,
        move: Move | None,
        turn: _Turn,
    ) -> _Place | Handover | None:
        """Go on with the next level or with another run, or pass the permission on, or end.

        Args:
            run: The run.
            place: The lane at the level that it leaves.
            left: The result of ``_work``.
            move: The result of the step that the last record has made; None if there was no step.
            turn: The time in which the lane may take over other runs.
        """
        lane, plan = place.lane, _plan(run, place.level)
        if left is None or not left.open:
            if move is None:
                move = await self._claims.move_on(self._step(run, place))
            free = lane if await self._may_take_over(lane, turn) else None
            return await self._go_on(run, place, move, looks_again=left is None, free=free)
        if left.more and left.room:
            # This lane lets other lanes go first, or the process drains. In both cases, a new lane
            # at the end of the queue takes over the work of this lane.
            await self._dispatcher.send_lane(plan, lane)
        elif left.other_provider is not None and not left.more:
            await self._dispatcher.send_lane(
                plan, Lane(provider=left.other_provider, width=lane.width)
            )
        return None

    def _step(self, run: RunContext, place: _Place) -> Step:
        return Step(
            run_id=run.run_id,
            level=place.level,
            provider=place.lane.provider,
            goes_on=not self._inflight.draining,
        )

    async def _go_on(
        self, run: RunContext, place: _Place, move: Move, *, looks_again: bool, free: Lane | None
    ) -> _Place | Handover | None:
        handover = await self._scheduler.follow(run.run_id, move.progress, free=free)
        if handover is not None:
            return handover
        if move.progress.open and looks_again:
            return replace(place, claim=None)  # an agent is ready again meanwhile
        if (following := move.progress.plan) is None:
            return None
        if move.lane is not None:
            return _Place(level=following.level, lane=move.lane, claim=move.claim)
        await self._dispatcher.send_levels([following])
        return None


def _plan(run: RunContext, level: int) -> LevelPlan:
    return LevelPlan(
        run_id=run.run_id,
        level=level,
        max_parallel_agents=run.workflow.max_parallel_agents,
        priority=run.workflow.priority,
    )

"""A lane: claim, run, record, until nothing is left; then pass the permission on."""

import asyncio
import math
from uuid import UUID

import structlog

from app.events.signals import Signals
from app.scheduler.dispatch import Dispatcher
from app.scheduler.lanes import Lane
from app.scheduler.scheduler import Scheduler
from app.storage.claims import Claim, ClaimRequest
from app.storage.group_commit import GroupCommit
from app.storage.progress import LevelPlan
from workers.inflight import InFlight
from workers.jobs import RunContext
from workers.pipeline import Pipeline
from workers.run_contexts import RunContexts

#: An agent that comes back sooner than this is waited for; a later one is sent a lane of its own.
LINGER_S = 10.0
#: After this time a lane makes way if others wait for a place in its queue.
TURN_S = 5.0

log = structlog.get_logger(__name__)


class LaneRunner:
    """Runs the lanes of this process.

    Args:
        claims: Group commit of claims.
        contexts: Runs by id.
        pipeline: Executes an agent.
        inflight: Tells when the process is draining.
        scheduler: Moves a run on.
        dispatcher: Sends lanes.
        signals: Brings the word that a run is paused or stopped.
    """

    def __init__(
        self,
        *,
        claims: GroupCommit[ClaimRequest, Claim],
        contexts: RunContexts,
        pipeline: Pipeline,
        inflight: InFlight,
        scheduler: Scheduler,
        dispatcher: Dispatcher,
        signals: Signals,
    ) -> None:
        self._claims = claims
        self._contexts = contexts
        self._pipeline = pipeline
        self._inflight = inflight
        self._scheduler = scheduler
        self._dispatcher = dispatcher
        self._signals = signals

    async def run(self, run_id: UUID, level: int, provider: str, width: int) -> None:
        """Work on a level of a run, and on the levels after it as long as one lane is enough."""
        run = await self._contexts.get(run_id)
        if run is None:
            log.warning("lane_of_unknown_run", run_id=str(run_id))
            return
        lane: Lane | None = Lane(provider=provider, width=width)
        async with self._signals.watching(run_id) as news:
            while lane is not None:
                left = await self._work(run, level, lane, news)
                lane, level = await self._leave(run, level, lane, left)

    async def _work(
        self, run: RunContext, level: int, lane: Lane, news: asyncio.Event
    ) -> Claim | None:
        """Claim and run agents until nothing can be claimed and nothing is in progress.

        Returns:
            The last claim, which is empty and says what is left; None if all that was open of the
            level was this lane's, and has ended.
        """
        loop = asyncio.get_running_loop()
        turn_ends_s = loop.time() + TURN_S
        yielding = passed_on = False
        tasks: set[asyncio.Task[float | None]] = set()
        retry_at_s: float | None = None
        all_ended = True
        while True:
            if loop.time() > turn_ends_s:
                turn_ends_s = loop.time() + TURN_S
                yielding = await self._dispatcher.backlog(lane.provider) > 0
            closed = yielding or self._inflight.draining
            width = 0 if closed else lane.width - len(tasks)
            claim = await self._claims.submit(
                ClaimRequest(
                    run_id=run.run_id,
                    level=level,
                    provider=lane.provider,
                    width=width,
                    busy=len(tasks),
                )
            )
            for agent in claim.agents:
                tasks.add(asyncio.create_task(self._pipeline.execute(run, agent)))
            if not tasks and (retry_at_s is None or closed):
                return claim
            if self._inflight.draining and not passed_on and claim.more and claim.room:
                # Calls in flight may take their time: what was handed back need not wait for them.
                passed_on = True
                await self._dispatcher.send_lane(_plan(run, level), lane)
            tasks, retry_at_s, ended = await self._until_worth_claiming(
                tasks, retry_at_s, news, more=claim.more and not closed
            )
            all_ended = all_ended and ended
            if not tasks and all_ended and claim.alone:
                return None

    async def _until_worth_claiming(
        self,
        tasks: set[asyncio.Task[float | None]],
        retry_at_s: float | None,
        news: asyncio.Event,
        *,
        more: bool,
    ) -> tuple[set[asyncio.Task[float | None]], float | None, bool]:
        """Wait until a place is free and work may be there for it, or until all is done.

        Returns:
            What is in progress, when one that was given back is ready again, and whether none was.
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
            # Of a run that was paused or stopped meanwhile nothing comes back soon.
            await self._inflight.sleep(retry_at_s - loop.time(), unless=news)
        return tasks, None, ended

    async def _leave(
        self, run: RunContext, level: int, lane: Lane, left: Claim | None
    ) -> tuple[Lane | None, int]:
        """Go on with the next level, or pass the permission to where it is needed, or end."""
        plan = _plan(run, level)
        if left is None or not left.open:
            progress = await self._scheduler.step(run.run_id, level)
            if progress.open and left is None:
                return lane, level  # something has come up meanwhile: look what it is
            following = progress.plan
            if following is None:
                return None, level
            lanes = self._dispatcher.lanes(following)
            alone = len(lanes) == 1 and lanes[0].provider == lane.provider
            if alone and not self._inflight.draining:
                return lanes[0], following.level
            await self._dispatcher.send_level(following)
        elif left.more and left.room:
            # This lane was told to stop claiming: whoever comes next in the queue goes on.
            await self._dispatcher.send_lane(plan, lane)
        elif left.other_provider is not None and not left.more:
            await self._dispatcher.send_lane(
                plan, Lane(provider=left.other_provider, width=lane.width)
            )
        return None, level


def _plan(run: RunContext, level: int) -> LevelPlan:
    return LevelPlan(
        run_id=run.run_id,
        level=level,
        max_parallel_agents=run.workflow.max_parallel_agents,
        priority=run.workflow.priority,
    )

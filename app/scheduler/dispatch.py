"""Sends the messages: a level as a chord of lanes, and the wish to advance a run."""

import asyncio
from uuid import UUID

from celery import Celery, Signature, chord
from kombu.transport.redis import PRIORITY_STEPS, Channel
from redis.asyncio import Redis

from app.celery import ADVANCE, LANE, SCHEDULER_QUEUE
from app.scheduler.lanes import Lane, cut_lanes
from app.storage.progress import LevelPlan

HIGHEST_PRIORITY = 10


class Dispatcher:
    """Publishes to the broker; a message that gets lost is sent again by the watchdog.

    Args:
        celery: The Celery instance.
        redis: The broker's Redis, to look into its queues.
        lane_width: Widest lane.
    """

    def __init__(self, celery: Celery, redis: Redis, *, lane_width: int) -> None:
        self._celery = celery
        self._redis = redis
        self._lane_width = lane_width

    def lanes(self, plan: LevelPlan) -> list[Lane]:
        """The lanes that a level is run with."""
        return cut_lanes(
            plan.agents,
            max_parallel_agents=plan.max_parallel_agents,
            lane_width=self._lane_width,
        )

    async def send_level(self, plan: LevelPlan) -> None:
        """Send a level: a chord of its lanes whose body advances the run.

        A level of one lane needs no chord: the lane advances the run itself.
        """
        lanes = [self._lane(plan, lane) for lane in self.lanes(plan)]
        if len(lanes) == 1:
            await asyncio.to_thread(lanes[0].apply_async)
        elif lanes:
            body = self._advance(plan.run_id, plan.level)
            await asyncio.to_thread(lambda: chord(lanes, app=self._celery)(body))

    async def send_lane(self, plan: LevelPlan, lane: Lane) -> None:
        """Send a single lane, to pass a permission on."""
        await asyncio.to_thread(self._lane(plan, lane).apply_async)

    async def send_advance(self, run_id: UUID, level: int | None = None) -> None:
        """Ask the scheduler to look at a run; level None means it has just been enqueued."""
        await asyncio.to_thread(self._advance(run_id, level).apply_async)

    async def backlog(self, queue: str) -> int:
        """Messages waiting in a queue, over all its priorities."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for priority in PRIORITY_STEPS:
                key = f"{queue}{Channel.sep}{priority}" if priority else queue
                pipe.execute_command("LLEN", key)
            return sum(await pipe.execute())

    def _lane(self, plan: LevelPlan, lane: Lane) -> Signature:
        return self._celery.signature(
            LANE,
            args=(str(plan.run_id), plan.level, lane.provider, lane.width),
            queue=lane.provider,
            # Redis serves low numbers first.
            priority=HIGHEST_PRIORITY - plan.priority,
            ignore_result=True,
            immutable=True,
        )

    def _advance(self, run_id: UUID, level: int | None) -> Signature:
        return self._celery.signature(
            ADVANCE,
            args=(str(run_id), level),
            queue=SCHEDULER_QUEUE,
            priority=0,
            ignore_result=True,
            immutable=True,
        )

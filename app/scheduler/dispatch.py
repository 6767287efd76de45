"""Sends messages to workers: levels as chords of lanes, and requests to advance a run."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from celery import Celery, Signature, chord
from kombu.transport.redis import PRIORITY_STEPS, Channel
from redis.asyncio import Redis

from app.celery import ADVANCE, LANE, LANES, SCHEDULER_QUEUE
from app.scheduler.lanes import MANY_MESSAGES, Lane, cut_lanes, share_messages
from app.storage.progress import LevelPlan

HIGHEST_PRIORITY = 10

Level = tuple[LevelPlan, list[Lane]]
Message = list[tuple[LevelPlan, Lane]]


class Dispatcher:
    """Publishes messages to the broker; the watchdog sends a lost message again.

    Example:
        await dispatcher.send_levels(await plan_levels(connection, [run_id]))  # after the commit

    The dispatcher does not know whether a message arrives. A lost message does no harm, because
    Postgres stores the work. A message only permits a worker to look for work in Postgres.

    Args:
        celery: The Celery instance.
        redis: The broker's Redis, in which the messages of a queue are counted.
        lane_width: Width of the widest lane.
        many_messages: More lanes than this number share messages.
    """

    def __init__(
        self,
        celery: Celery,
        redis: Redis,
        *,
        lane_width: int,
        many_messages: int = MANY_MESSAGES,
    ) -> None:
        self._celery = celery
        self._redis = redis
        self._lane_width = lane_width
        self._many_messages = many_messages

    def lanes(self, plan: LevelPlan) -> list[Lane]:
        """Cut a level into lanes."""
        return cut_lanes(
            plan.agents,
            max_parallel_agents=plan.max_parallel_agents,
            lane_width=self._lane_width,
        )

    async def send_levels(self, plans: Sequence[LevelPlan]) -> None:
        """Send levels, each as a chord of its lanes; the body of the chord advances the run.

        A level of one lane needs no chord, because the lane advances the run itself. If many levels
        of one lane are sent at once, the lanes of these levels share messages.
        """
        if plans:
            await asyncio.to_thread(self._send_levels, plans)

    async def send_lane(self, plan: LevelPlan, lane: Lane) -> None:
        """Send a single lane, without a chord."""
        await asyncio.to_thread(self._lane(plan, lane).apply_async)

    async def send_advance(self, run_id: UUID, level: int | None = None) -> None:
        """Ask the scheduler to look at a run; the level is None if the run was just enqueued."""
        await asyncio.to_thread(self._advance(run_id, level).apply_async)

    async def backlog(self, queue: str) -> int:
        """Count the messages that wait in a queue, with all priorities."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for priority in PRIORITY_STEPS:
                key = f"{queue}{Channel.sep}{priority}" if priority else queue
                pipe.execute_command("LLEN", key)
            return sum(await pipe.execute())

    def cut(self, plans: Sequence[LevelPlan]) -> tuple[list[Level], list[Message]]:
        """Split plans into levels that need a chord, and messages for the other levels."""
        wide: list[Level] = []
        single: dict[tuple[str, int], Message] = defaultdict(list)
        for plan in plans:
            lanes = self.lanes(plan)
            if len(lanes) > 1:
                wide.append((plan, lanes))
            for lane in lanes if len(lanes) == 1 else ():
                single[lane.provider, plan.priority].append((plan, lane))
        messages = [
            message
            for alike in single.values()
            for message in share_messages(
                alike, lane_width=self._lane_width, many_messages=self._many_messages
            )
        ]
        return wide, messages

    def _send_levels(self, plans: Sequence[LevelPlan]) -> None:
        wide, messages = self.cut(plans)
        for plan, lanes in wide:
            header = [self._lane(plan, lane) for lane in lanes]
            chord(header, app=self._celery)(self._advance(plan.run_id, plan.level))
        for message in messages:
            self._lanes(message).apply_async()

    def _lanes(self, message: Message) -> Signature:
        plan, lane = message[0]
        if len(message) == 1:
            return self._lane(plan, lane)
        lanes = [(str(plan.run_id), plan.level, lane.width) for plan, lane in message]
        return self._signature(LANES, (lane.provider, lanes), plan, lane)

    def _lane(self, plan: LevelPlan, lane: Lane) -> Signature:
        args = (str(plan.run_id), plan.level, lane.provider, lane.width)
        return self._signature(LANE, args, plan, lane)

    def _signature(
        self, task: str, args: tuple[object, ...], plan: LevelPlan, lane: Lane
    ) -> Signature:
        return self._celery.signature(
            task,
            args=args,
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

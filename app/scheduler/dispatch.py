"""Sends messages to workers: levels as chords of lanes, and requests to advance a run."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from celery import Celery, Signature, chord
from kombu.transport.redis import PRIORITY_STEPS
from redis.asyncio import Redis

from app.celery import ADVANCE, LANE, LANES, SCHEDULER_QUEUE
from app.scheduler.lanes import MANY_MESSAGES, Lane, cut_lanes, share_messages
from app.scheduler.messages import message_of, queue_key
from app.storage.progress import LevelPlan

HIGHEST_PRIORITY = 10

Level = tuple[LevelPlan, list[Lane]]
Message = list[tuple[LevelPlan, Lane]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sending:
    """A task for a queue; a low priority is served first."""

    task: str
    args: tuple[object, ...]
    queue: str
    priority: int


class Dispatcher:
    """Publishes messages to the broker; the watchdog sends a lost message again.

    Example:
        await dispatcher.send_levels(await plan_levels(connection, [run_id]))  # after the commit

    The dispatcher does not know whether a message arrives. A lost message does no harm, because
    Postgres stores the work. A message only permits a worker to look for work in Postgres.

    Args:
        celery: The Celery instance.
        redis: The broker's Redis.
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
        wide, messages = self.cut(plans)
        if wide:
            await asyncio.to_thread(self._send_chords, wide)
        await self._send([self._lanes(message) for message in messages])

    async def send_lane(self, plan: LevelPlan, lane: Lane) -> None:
        """Send a single lane, without a chord."""
        await self._send([self._lane(plan, lane)])

    async def send_advance(self, run_id: UUID, level: int | None = None) -> None:
        """Ask the scheduler to look at a run; the level is None if the run was just enqueued."""
        await self._send([_advance(run_id, level)])

    async def backlog(self, queue: str) -> int:
        """Count the messages that wait in a queue, with all priorities."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for priority in PRIORITY_STEPS:
                pipe.execute_command("LLEN", queue_key(queue, priority))
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

    def _send_chords(self, wide: Sequence[Level]) -> None:
        for plan, lanes in wide:
            header = [self._signature(self._lane(plan, lane)) for lane in lanes]
            body = self._signature(_advance(plan.run_id, plan.level))
            chord(header, app=self._celery)(body)

    async def _send(self, sendings: Sequence[Sending]) -> None:
        """Send messages with one round trip."""
        if not sendings:
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for each in sendings:
                key, text = message_of(
                    self._celery, each.task, each.args, queue=each.queue, priority=each.priority
                )
                pipe.execute_command("LPUSH", key, text)
            await pipe.execute()

    def _lanes(self, message: Message) -> Sending:
        plan, lane = message[0]
        if len(message) == 1:
            return self._lane(plan, lane)
        lanes = [(str(plan.run_id), plan.level, lane.width) for plan, lane in message]
        return _on_queue(LANES, (lane.provider, lanes), plan, lane)

    def _lane(self, plan: LevelPlan, lane: Lane) -> Sending:
        args = (str(plan.run_id), plan.level, lane.provider, lane.width)
        return _on_queue(LANE, args, plan, lane)

    def _signature(self, sending: Sending) -> Signature:
        return self._celery.signature(
            sending.task,
            args=sending.args,
            queue=sending.queue,
            priority=sending.priority,
            ignore_result=True,
            immutable=True,
        )


def _on_queue(task: str, args: tuple[object, ...], plan: LevelPlan, lane: Lane) -> Sending:
    # Redis serves low numbers first.
    priority = HIGHEST_PRIORITY - plan.priority
    return Sending(task=task, args=args, queue=lane.provider, priority=priority)


def _advance(run_id: UUID, level: int | None) -> Sending:
    return Sending(task=ADVANCE, args=(str(run_id), level), queue=SCHEDULER_QUEUE, priority=0)

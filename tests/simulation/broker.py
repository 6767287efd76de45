"""The broker as simulated processes see it; messages are permissions, and anything may happen.

Messages take different times, so that they overtake each other. Some messages are lost, and some
come twice.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from kombu.exceptions import OperationalError

from app.celery import SCHEDULER_QUEUE
from app.scheduler.dispatch import Dispatcher, Message
from app.scheduler.lanes import Lane
from app.storage.progress import LevelPlan
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.trace import Trace

RETRY_S = 0.2
Args = tuple[Any, ...]


class Consumer(Protocol):
    """A worker process as the broker sees it."""

    process: Process

    def serves(self, queue: str) -> bool:
        """Return whether this process takes messages of a queue."""
        ...

    def work(self, task: str, args: Args, done: Callable[[], None]) -> None:
        """Start a task; call ``done`` when the task ends."""
        ...


@dataclass(eq=False)
class _Message:
    queue: str
    task: str
    args: Args
    #: The chord of the message; None outside of chords.
    chord: "_Chord | None" = None


@dataclass(eq=False)
class _Chord:
    body: _Message
    open: set[int] = field(default_factory=set)


class Broker:
    """Queues; for each message, a consumer is drawn.

    Args:
        loop: The simulation's loop.
        generator: Draws delays, losses, repetitions and consumers.
        trace: Notes every message.
    """

    def __init__(self, loop: VirtualLoop, generator: random.Random, trace: Trace) -> None:
        self._loop, self._generator, self._trace = loop, generator, trace
        self.consumers: list[Consumer] = []
        self.away = False
        self.lost_share = 0.0
        self.twice_share = 0.0
        self._queued: dict[str, list[_Message]] = defaultdict(list)

    def send(self, message: _Message) -> None:
        """Take a message."""
        draw = self._generator.random()
        if draw < self.lost_share:
            self._trace.tell(f"lost: {self._shown(message)}")
            return
        copies = 2 if draw > 1 - self.twice_share else 1
        for _ in range(copies):
            self._queued[message.queue].append(message)
            delay_s = self._generator.expovariate(1 / 0.005)
            self._loop.at(delay_s, lambda: self._deliver(message))

    def check(self) -> None:
        """Raise an error if the broker cannot be reached."""
        if self.away:
            raise OperationalError("connection refused")

    def backlog(self, queue: str) -> int:
        """Return the number of messages that no worker has taken."""
        return len(self._queued[queue])

    def flush(self) -> None:
        """Lose every message that no worker has taken."""
        self._queued.clear()

    def _deliver(self, message: _Message) -> None:
        if message not in self._queued[message.queue]:
            return  # the message was flushed meanwhile
        able = [c for c in self.consumers if c.process.alive and c.serves(message.queue)]
        if not able or self.away:
            self._loop.at(RETRY_S, lambda: self._deliver(message))
            return
        self._queued[message.queue].remove(message)
        consumer = self._generator.choice(able)
        self._trace.tell(f"{self._shown(message)} -> {consumer.process}")
        consumer.work(message.task, message.args, lambda: self._done(message))

    def _done(self, message: _Message) -> None:
        chord = message.chord
        if chord is None or id(message) not in chord.open:
            return
        chord.open.discard(id(message))
        if not chord.open and not self.away:
            self.send(chord.body)

    def _shown(self, message: _Message) -> str:
        if message.task == "lanes":
            _, lanes = message.args
            return f"lanes {[self._trace.called(run_id) for run_id, *_ in lanes]}"
        run_id, *rest = message.args
        return f"{message.task} {self._trace.called(run_id)} {rest}"


class SimulatedDispatcher(Dispatcher):
    """A dispatcher whose messages go to the simulated broker."""

    def __init__(self, broker: Broker, *, lane_width: int) -> None:
        self._broker = broker
        self._lane_width = lane_width
        self._many_messages = 1  # a simulation has few runs

    async def send_levels(self, plans: Sequence[LevelPlan]) -> None:
        """See ``Dispatcher``."""
        await self._travel()
        wide, messages = self.cut(plans)
        for plan, cut in wide:
            lanes = [self._message(plan, lane) for lane in cut]
            chord = _Chord(_advance(plan.run_id, plan.level), {id(lane) for lane in lanes})
            for lane in lanes:
                lane.chord = chord
                self._broker.send(lane)
        for message in messages:
            self._broker.send(self._shared(message))

    async def send_lane(self, plan: LevelPlan, lane: Lane) -> None:
        """See ``Dispatcher``."""
        await self._travel()
        self._broker.send(self._message(plan, lane))

    async def send_advance(self, run_id: UUID, level: int | None = None) -> None:
        """See ``Dispatcher``."""
        await self._travel()
        self._broker.send(_advance(run_id, level))

    async def backlog(self, queue: str) -> int:
        """See ``Dispatcher``."""
        await self._travel()
        return self._broker.backlog(queue)

    async def _travel(self) -> None:
        await asyncio.sleep(0.0005)
        self._broker.check()

    def _message(self, plan: LevelPlan, lane: Lane) -> _Message:
        args = (plan.run_id, plan.level, lane.provider, lane.width)
        return _Message(lane.provider, "lane", args)

    def _shared(self, message: Message) -> _Message:
        plan, lane = message[0]
        if len(message) == 1:
            return self._message(plan, lane)
        lanes = [(plan.run_id, plan.level, lane.width) for plan, lane in message]
        return _Message(lane.provider, "lanes", (lane.provider, lanes))


def _advance(run_id: UUID, level: int | None) -> _Message:
    return _Message(SCHEDULER_QUEUE, "advance", (run_id, level))

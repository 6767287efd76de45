"""The backends of simulated workers: the cluster's limits, circuits and shared answers, and Flower.

All processes share these backends, which are in memory. A message to a process takes time. While
Redis is away, circuits and answers cannot be reached.
"""

import asyncio
import math
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from app.domain.money import HoldRequest
from app.errors import ServiceUnavailable
from app.events.signals import Signals
from app.failures.circuit import CircuitNews, Message, View
from app.llm.cache import LEASE_S, AnswerCache
from app.rate_limits.backends.memory import MemoryBackend
from app.rate_limits.base import Exchange, News, Reply
from app.rate_limits.tiers import BucketSpec
from app.storage.records import Ending
from tests.simulation.loop import CURRENT, Process, VirtualLoop
from tests.simulation.messenger import Messenger
from tests.support.circuit_model import PROBE_LEASE_S, MemoryCircuits
from workers.calls.money import Holds, HoldTicket, Money
from workers.flower_events import FlowerEvents
from workers.jobs import Job

TRAVEL_S = 0.0005
#: Seconds after which every process that receives news must know that a circuit is open.
KNOWN_AFTER_S = 1.0
#: The hold of the call that the current task is about to make.
HOLD: ContextVar[HoldRequest] = ContextVar("HOLD")


class Buckets:
    """The cluster's buckets, as one process sees them.

    Args:
        loop: The simulation's loop.
        shared: The buckets.
        process: The process.
    """

    def __init__(self, loop: VirtualLoop, shared: MemoryBackend, process: Process) -> None:
        self._loop, self._shared, self._process = loop, shared, process

    async def exchange(self, spec: BucketSpec, message: Exchange) -> Reply:
        """See ``LimiterBackend``."""
        await asyncio.sleep(TRAVEL_S)
        return await self._shared.exchange(spec, message)

    async def listen(self, process: str, on_news: Callable[[News], None]) -> None:
        """See ``LimiterBackend``; this process handles the news, not the process that sent them."""

        async def hear(news: News) -> None:
            on_news(news)

        await self._shared.listen(
            process, lambda news: self._loop.spawn(self._process, hear(news), "news")
        )

    async def snapshot(self) -> list[dict[str, Any]]:
        """See ``LimiterBackend``."""
        return await self._shared.snapshot()

    async def close(self) -> None:
        """See ``LimiterBackend``."""


@dataclass
class Probe:
    """A call that tries a model whose circuit is open."""

    process: Process
    until_s: float = 0.0
    calls: set[UUID] = field(default_factory=set)


@dataclass
class CircuitWatch:
    """Judges, from outside, the calls that circuits let through.

    Attributes:
        loop: The simulation's loop.
        opened_at_s: Times at which the open circuits have opened, by name.
        probes: The probes of a circuit, by name and token.
        quiet_since_s: Time since which Redis has delivered all news.
        broken: The faults that were found.
    """

    loop: VirtualLoop
    opened_at_s: dict[str, float] = field(default_factory=dict)
    probes: dict[str, dict[str, Probe]] = field(default_factory=dict)
    quiet_since_s: float = 0.0
    broken: list[str] = field(default_factory=list)

    def heard(self, circuit: str, process: Process, message: Message | None, view: View) -> None:
        """Note the answer of a circuit, and judge the probes that the circuit lets through."""
        if view.state == "closed":
            self.opened_at_s.pop(circuit, None)
            self.probes.pop(circuit, None)
            return
        self.opened_at_s.setdefault(circuit, self.loop.time())
        probes = self.probes.setdefault(circuit, {})
        if message is None or not message.token:
            return
        if view.granted:
            now_s = self.loop.time()
            if any(p.until_s > now_s for t, p in probes.items() if t != message.token):
                self.broken.append(f"circuit {circuit} has let a second probe through")
            probe = probes.setdefault(message.token, Probe(process))
            probe.until_s = now_s + PROBE_LEASE_S
        elif message.verdict == "renew" and message.token in probes:
            probes[message.token].until_s = self.loop.time() + PROBE_LEASE_S
        elif message.verdict is not None:
            probes.pop(message.token, None)

    def about_to_hold(self, request: HoldRequest, process: Process) -> None:
        """Judge a call that has passed: it must be a probe, or its process knew no opening."""
        circuit = f"{request.provider}/{request.model}"
        since_s = self.opened_at_s.get(circuit)
        if since_s is None:
            return
        for probe in self.probes.get(circuit, {}).values():
            if probe.process is process and probe.calls <= {request.call_id}:
                probe.calls.add(request.call_id)
                return
        known_s = max(since_s, self.quiet_since_s, process.thawed_at_s) + KNOWN_AFTER_S
        if self.loop.time() > known_s:
            self.broken.append(f"a call has gone through the open circuit {circuit}")


class Circuits:
    """The cluster's circuits, as one process sees them.

    Args:
        shared: The circuits.
        messenger: Redis.
        watch: Sees the answers of the circuits.
        loop: The simulation's loop.
        process: The process.
    """

    def __init__(
        self,
        shared: MemoryCircuits,
        messenger: Messenger,
        watch: CircuitWatch,
        loop: VirtualLoop,
        process: Process,
    ) -> None:
        self._shared, self._messenger, self._watch = shared, messenger, watch
        self._loop, self._process = loop, process

    async def exchange(self, circuit: str, message: Message | None) -> View:
        """See ``CircuitBackend``."""
        await asyncio.sleep(TRAVEL_S)
        if self._messenger.away:
            raise ServiceUnavailable("Redis is away")
        view = await self._shared.exchange(circuit, message)
        self._watch.heard(circuit, self._process, message, view)
        return view

    async def names(self) -> list[str]:
        """See ``CircuitBackend``."""
        return await self._shared.names()

    def listen(self, on_news: Callable[[CircuitNews], None]) -> None:
        """See ``CircuitBackend``; while Redis is away, a process hears only that it missed some."""

        async def hear(news: CircuitNews) -> None:
            await asyncio.sleep(TRAVEL_S)
            on_news(CircuitNews(circuit="") if self._messenger.away else news)

        self._shared.listen(lambda news: self._loop.spawn(self._process, hear(news), "news"))

    async def close(self) -> None:
        """See ``CircuitBackend``."""


@dataclass
class SharedAnswers:
    """A cluster's answers, and the tokens of the calls that ask the provider; both expire."""

    loop: VirtualLoop
    answers: dict[str, tuple[float, bytes]] = field(default_factory=dict)
    asked: dict[str, tuple[float, str]] = field(default_factory=dict)

    def flush(self) -> None:
        """Forget everything, as FLUSHALL does."""
        self.answers.clear()
        self.asked.clear()

    def exchange(self, address: str, command: str, token: str, *values: Any) -> Any:
        """See cache.lua."""
        now_s = self.loop.time()
        until_s, answer = self.answers.get(address, (0.0, b""))
        leased_s, owner = self.asked.get(address, (0.0, ""))
        free = leased_s <= now_s
        if command == "look":
            if until_s > now_s:
                return answer, None
            if free:
                self.asked[address] = now_s + LEASE_S, token
            return None, (token if free else owner).encode()
        mine = owner == token and not free
        if command == "keep":
            if mine:
                self.asked[address] = now_s + LEASE_S, token
            return int(mine)
        value, ttl_ms = values
        if value:
            self.answers[address] = now_s + ttl_ms / 1000, value
        if mine:
            del self.asked[address]
        return 1


class SimulatedAnswers(AnswerCache):
    """The real cache, with its answers in the simulation's memory instead of Redis.

    Args:
        shared: The answers of the cluster.
        messenger: Redis; while Redis is away, no answer is known.
    """

    def __init__(self, shared: SharedAnswers, messenger: Messenger) -> None:
        self.lease_s = LEASE_S
        self._key = b"of the simulation"
        self._shared, self._messenger = shared, messenger

    async def _exchange(self, address: str, command: str, token: str, *values: Any) -> Any:
        await asyncio.sleep(TRAVEL_S)
        if self._messenger.away:
            return None
        return self._shared.exchange(address, command, token, *values)


class WatchedTicket(HoldTicket):
    """A ticket that notes the hold of the task's next call."""

    watch: CircuitWatch
    _waits = False

    async def place(self) -> bool:
        """See ``HoldTicket``."""
        HOLD.set(self._request)
        process = CURRENT.get()
        assert process is not None, "only processes call"
        if not self._waits:
            self.watch.about_to_hold(self._request, process)
        return await super().place()

    async def wait(self, *, max_wait_s: float = math.inf) -> None:
        """See ``HoldTicket``; after the wait, the call passes the circuit and ``place`` again."""
        self._waits = True
        try:
            await super().wait(max_wait_s=max_wait_s)
        finally:
            self._waits = False


class WatchedMoney(Money):
    """Money whose holds are watched.

    Args:
        holds: As for ``Money``.
        signals: As for ``Money``.
        watch: Sees every hold before it is placed.
    """

    def __init__(self, holds: Holds, signals: Signals, *, watch: CircuitWatch) -> None:
        super().__init__(holds, signals)
        self._watch = watch

    def ticket(self, agent: str, request: HoldRequest) -> HoldTicket:
        """See ``Money``."""
        made = WatchedTicket(agent, request, self._holds, self._signals)
        made.watch = self._watch
        return made


class Silence(FlowerEvents):
    """Shows nothing: a simulation has no Flower."""

    def __init__(self) -> None:
        pass

    def started(self, job: Job) -> None:
        """Show nothing."""

    def ended(self, job: Job, ending: Ending) -> None:
        """Show nothing."""

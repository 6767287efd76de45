"""One simulation: a cluster is drawn from a seed, runs until it rests, and is judged."""

import asyncio
import gc
import logging
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.concurrency.user_code import ON_CALLERS_LOOP
from app.domain.circuit import CircuitBreakerConfig
from app.domain.policies import RateLimitConfig
from tests.simulation.broker import Broker
from tests.simulation.conversations import broken_conversations
from tests.simulation.database import Database
from tests.simulation.faults import LONGEST_S, Faults
from tests.simulation.invariants import broken_at_rest, broken_now
from tests.simulation.loop import EPOCH_S, Stalled, VirtualLoop, silence, virtual_time
from tests.simulation.messenger import Messenger
from tests.simulation.people import People
from tests.simulation.provider import Provider
from tests.simulation.tools import EXECUTED
from tests.simulation.trace import Trace, is_an_outage
from tests.simulation.worker import Cluster

#: Seconds in which steps and faults begin; faults may last somewhat longer.
WINDOWS_S = (6.0, 12.0, 20.0)
#: Policies of circuits: no circuits, the default, and two policies whose circuits open soon; with
#: QUICK, calls wait at open circuits, and with FAILS they fail.
NONE, USUAL = CircuitBreakerConfig(enabled=False), CircuitBreakerConfig()
QUICK = CircuitBreakerConfig(
    window_s=10.0, min_failures=2, failure_share=0.3, open_s=1.0, max_open_s=6.0
)
FAILS = replace(QUICK, when_open="fail")
#: Every run must end within so many seconds after the last fault. Under NARROW, a model gets one
#: call every two seconds, and a run with many tools makes more than 60 calls.
BOUND_S = 240.0
#: So many seconds after the end of the runs, no worker must be at work any more.
SETTLE_S = 40.0
#: Share of simulations that, after the last fault, retry failed runs with enough money.
RETRIED_SHARE = 0.3
#: Number of transactions after which the invariants of every step are checked again.
LOOK_EVERY = 6
UNLIMITED = RateLimitConfig(
    requests_per_minute=None,
    requests_per_hour=None,
    requests_per_day=None,
    tokens_per_minute=None,
    concurrent_requests=None,
)
NARROW = RateLimitConfig(
    requests_per_minute=None,
    requests_per_hour=None,
    requests_per_day=None,
    tokens_per_minute=None,
    concurrent_requests=2,
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a simulation.

    Attributes:
        seed: The seed of the simulation.
        broken: The faults that were found; empty if all is well.
        digest: Digest of all steps; two simulations with the same steps have the same digest.
        trace: The last steps.
        faults: The faults that were injected.
        statements: Number of SQL statements.
        lock_waits: Number of statements that had to wait for another transaction.
        calls: Number of calls that reached the provider.
        seconds: Virtual seconds that the simulation took.
    """

    seed: int
    broken: tuple[str, ...]
    digest: str
    trace: tuple[str, ...]
    faults: tuple[str, ...]
    statements: int
    lock_waits: int
    calls: int
    seconds: float

    def __str__(self) -> str:
        verdict = [f"  - {what}" for what in self.broken] or ["  all is well"]
        again = f"repeat it: .venv/bin/python -m tests.simulation --seed {self.seed}"
        return "\n".join([*self.trace, "", f"seed {self.seed}, {self.digest}:", *verdict, again])


def simulate(database: Database, seed: int) -> Report:
    """Run one simulation.

    Args:
        database: An empty database, or a database that earlier simulations have used.
        seed: Draws everything.
    """
    with _undisturbed():
        return _World(database, seed).run()


class _World:
    def __init__(self, database: Database, seed: int) -> None:
        self._seed = seed
        # Each part has its own generator, so that a change in one part does not change the others.
        draws = [random.Random(f"{seed} {part}") for part in range(7)]
        self._draw = draws[0]
        self._database = database
        self._trace = Trace()
        self._broken: list[str] = []
        self._executed: list[tuple[str, float]] = []
        self._transactions = 0
        self._loop = VirtualLoop(draws[1], database.set_clock)
        self._trace.loop = self._loop
        queues = ("openai", "anthropic", "scheduler")
        slots = [("w1", queues), ("w2", queues), ("w3", queues[1:])][: self._draw.choice((2, 2, 3))]
        self._window_s = self._draw.choice(WINDOWS_S)
        self._faults = Faults(draws[2], slots, self._window_s)
        self._people = People(draws[3], window_s=self._window_s)
        self._cluster = Cluster(
            loop=self._loop,
            trace=self._trace,
            database=database,
            broker=Broker(self._loop, draws[4], self._trace),
            messenger=Messenger(self._loop, draws[5]),
            provider=Provider(draws[6], self._trace, self._faults.boundary),
            limits=self._draw.choice((UNLIMITED, NARROW)),
            max_recoveries=self._draw.choice((1, 20, 20)),
            lane_width=self._draw.choice((1, 2, 50)),
            breaker=self._draw.choice((NONE, USUAL, QUICK, QUICK, FAILS)),
        )
        database.begin(
            self._loop,
            random.Random(f"{seed} sql"),
            boundary=self._faults.boundary,
            ended=self._look,
        )

    def run(self) -> Report:
        """Run the simulation to its end."""
        self._loop.set_exception_handler(self._note)
        with (
            _seeded(self._seed, self._loop),
            virtual_time(self._loop),
            self._trace.logging(),
        ):
            try:
                self._loop.run_until_complete(self._live())
            except Stalled as error:
                self._broken.append(str(error))
            if self._database.deadlocks:
                self._broken.append(f"{self._database.deadlocks} deadlocks")
            self._broken += broken_at_rest(
                self._database.inspector, self._cluster.provider, self._people
            )
            self._broken += broken_conversations(
                self._database.inspector, self._cluster.provider, self._executed
            )
            for name, crash in self._loop.crashed():
                if not is_an_outage(crash):
                    self._trace.alarm(f"task {name}: {type(crash).__name__}: {crash}")
            self._broken += self._trace.alarms
            seconds, digest = self._loop.time(), self._trace.digest
            for worker in self._faults.workers.values():
                worker.process.alive = False
            self._database.end()
            self._loop.dispose()
        return Report(
            seed=self._seed,
            broken=tuple(dict.fromkeys(self._broken)),
            digest=digest,
            trace=tuple(self._trace.lines),
            faults=tuple(self._faults.happened),
            statements=self._database.statements,
            lock_waits=self._database.lock_waits,
            calls=len(self._cluster.provider.served),
            seconds=seconds,
        )

    async def _live(self) -> None:
        EXECUTED.set(self._note_execution)
        ON_CALLERS_LOOP.set(True)
        self._faults.begin(self._cluster)
        self._people.begin(self._cluster)
        await asyncio.sleep(self._window_s)
        await self._until(lambda: self._people.rest, LONGEST_S)
        self._faults.end()
        self._trace.tell("from now on everything works")
        for story in self._people.stories:
            self._people.resume(story)
        await self._until(lambda: self._people.rest, LONGEST_S + BOUND_S)
        all_retried = self._draw.random() < RETRIED_SHARE
        if not self._broken:
            for story in self._people.stories:
                if all_retried or story.repaired:
                    self._people.retry(story, cost_budget=Decimal(100 if story.repaired else 10))
            await asyncio.sleep(1.0)
            await self._until(lambda: self._people.rest, BOUND_S)
        await self._until(self._is_settled, SETTLE_S)

    def _is_settled(self) -> bool:
        (open_,) = self._database.inspector.execute("SELECT count(*) FROM holds").fetchone() or (0,)
        return not open_ and all(worker.idle for worker in self._faults.workers.values())

    async def _until(self, over: Callable[[], bool], seconds: float) -> None:
        """Wait until a condition holds, but at most ``seconds`` virtual seconds."""
        end_s = self._loop.time() + seconds
        while self._loop.time() < end_s and not self._broken and not over():  # noqa: ASYNC110  no event says so
            await asyncio.sleep(1.0)  # virtual time

    def _look(self) -> None:
        self._transactions += 1
        if self._transactions % LOOK_EVERY == 0 and not self._broken:
            self._broken += broken_now(self._database.inspector)

    def _note_execution(self, key: str) -> None:
        call_id, tool = key.split()
        self._trace.tell(f"{tool} of {self._trace.called(call_id)} is executed")
        self._executed.append((key, self._loop.wall_clock()))

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._trace.alarm(f"{context['message']} {type(error).__name__}: {error}")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Switch off the logs about faults, and the garbage collection, whose times are not virtual."""
    gc.disable()
    gc.freeze()  # the last collection skips the objects of now
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        with silence():
            gc.collect()
        logging.disable(logging.NOTSET)
        gc.enable()


@contextmanager
def _seeded(seed: int, loop: VirtualLoop) -> Iterator[None]:
    """Let the product's own random values, which are jitter and ids, follow the seed."""
    state = random.getstate()
    random.seed(f"{seed} product")
    ids = random.Random(f"{seed} ids")

    def uuid7() -> UUID:
        """Make an id; like real ids, these ids are ordered by time."""
        milliseconds = int((EPOCH_S + loop.time()) * 1000)
        number = milliseconds << 80 | ids.getrandbits(80)
        number = number & ~(0xF << 76) | 0x7 << 76
        return UUID(int=number & ~(0x3 << 62) | 0x2 << 62)

    drawing = [
        module
        for name, module in sorted(sys.modules.items())
        if name.startswith(("app.", "workers.")) and "uuid7" in vars(module)
    ]
    real = [module.uuid7 for module in drawing]
    for module in drawing:
        module.uuid7 = uuid7  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module, function in zip(drawing, real, strict=True):
            module.uuid7 = function  # type: ignore[attr-defined]
        random.setstate(state)

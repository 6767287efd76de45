"""Faults by seed: at drawn moments, and at drawn boundaries between two steps.

At a boundary, a process waits for a service: before a statement, after a statement, after a
commit, before a call, during a call, and when the answer arrives.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from app.failures.circuit import CircuitNews
from tests.simulation.loop import Process
from tests.simulation.worker import Cluster, Worker
from tests.simulation.workflows import MODELS as MODELS_OF

#: The longest fault, in seconds.
LONGEST_S = 25.0
BOUNDARIES = (
    "sql_before",
    "sql_after",
    "sql_ended",
    "connect",
    "call_before",
    "call_sent",
    "call_answered",
)
AMBUSH_WEIGHTS = (3, 3, 6, 1, 4, 4, 6)
MODELS = sorted(MODELS_OF.values())


@dataclass
class Faults:
    """Breaks parts of the cluster, and repairs these parts.

    Attributes:
        generator: Draws the faults.
        sizes: The queues that the worker of each slot serves.
        window_s: Seconds in which faults begin.
    """

    generator: random.Random
    sizes: Sequence[tuple[str, Sequence[str]]]
    window_s: float
    workers: dict[str, Worker] = field(default_factory=dict)
    over: bool = False
    happened: list[str] = field(default_factory=list)

    def begin(self, cluster: Cluster) -> None:
        """Start the workers, and draw the faults."""
        self._cluster = cluster
        self._ambushes: list[tuple[str, int, Callable[[Process], None]]] = []
        for slot, queues in self.sizes:
            self._start(slot, 0, queues)
        generator = self.generator
        if generator.random() < 0.8:
            cluster.broker.lost_share = generator.choice((0.0, 0.05, 0.2))
            cluster.broker.twice_share = generator.choice((0.0, 0.1, 0.3))
            cluster.messenger.lost_share = generator.choice((0.0, 0.1, 1.0, 1.0))
            cluster.provider.trouble = generator.choice((0.0, 0.05, 0.15))
        kinds: Sequence[tuple[Callable[[], None], int]] = (
            (self._kill_somebody, 4),
            (self._kill_all, 1),
            (self._freeze_somebody, 4),
            (self._drain_somebody, 2),
            (self._ambush, 8),
            (self._cut_connections, 3),
            (self._restart_postgres, 1),
            (self._flush_redis, 1),
            (self._stop_redis, 1),
            (self._fail_a_model, 5),
        )
        steps, weights = zip(*kinds, strict=True)
        for step in generator.choices(steps, weights, k=generator.randint(2, 9)):
            cluster.loop.at(generator.uniform(0.0, self.window_s), step)

    def end(self) -> None:
        """Repair everything, and cause no more faults."""
        self.over = True
        self._ambushes.clear()
        cluster = self._cluster
        cluster.broker.lost_share = cluster.broker.twice_share = 0.0
        cluster.messenger.lost_share = cluster.provider.trouble = 0.0
        cluster.provider.refuses = False
        cluster.provider.down.clear()

    def boundary(self, name: str, process: Process) -> None:
        """Let the next ambush at this boundary hit the process."""
        self._cluster.trace.count(name)
        for place, (wanted, left, strike) in enumerate(self._ambushes):
            if wanted == name:
                if left:
                    self._ambushes[place] = (wanted, left - 1, strike)
                else:
                    del self._ambushes[place]
                    strike(process)
                return

    def _tell(self, what: str) -> None:
        self.happened.append(what)
        self._cluster.trace.tell(f"FAULT {what}")

    def _start(self, slot: str, generation: int, queues: Sequence[str]) -> None:
        worker = Worker(self._cluster, slot, generation, queues)
        self.workers[slot] = worker
        self._cluster.broker.consumers.append(worker)

    def _somebody(self) -> Worker:
        return self.generator.choice(list(self.workers.values()))

    def _kill_somebody(self) -> None:
        self._kill(self._somebody().process, "killed")

    def _kill_all(self) -> None:
        for worker in list(self.workers.values()):
            self._kill(worker.process, "killed with all others")

    def _drain_somebody(self) -> None:
        worker = self._somebody()
        if worker.process.alive:
            self._tell(f"{worker.process} is asked to stop")
            worker.drain(lambda: self._kill(worker.process, "has ended"))
            self._cluster.loop.at(20.0, lambda: self._kill(worker.process, "ran out of grace"))

    def _freeze_somebody(self) -> None:
        self._freeze(self._somebody().process)

    def _kill(self, process: Process, why: str) -> None:
        """End a process; if it is a worker, another worker takes its place after a while."""
        if not process.alive:
            return
        self._tell(f"{process} {why}")
        self._cluster.loop.kill(process)
        self._cluster.database.drop_process(process)
        dead = next((w for w in self.workers.values() if w.process is process), None)
        if dead is not None:
            self._cluster.broker.consumers.remove(dead)
            delay_s = self.generator.uniform(0.5, 6.0)
            again = partial(self._start, dead.slot, dead.generation + 1, dead.queues)
            self._cluster.loop.at(delay_s, again)

    def _freeze(self, process: Process) -> None:
        if not process.alive or process.frozen:
            return
        seconds = self.generator.choice((0.5, 4.0, 17.0, 22.0, LONGEST_S))
        self._tell(f"{process} frozen for {seconds:g} s")
        process.frozen = True
        self._cluster.database.freeze(process)

        def thaw() -> None:
            if not process.alive:
                return
            self._tell(f"{process} goes on")
            process.frozen = False
            process.thawed_at_s = self._cluster.loop.time()

        self._cluster.loop.at(seconds, thaw)

    def _ambush(self) -> None:
        """Hit the next process that comes to a boundary, or one of the next twelve processes."""
        (name,) = self.generator.choices(BOUNDARIES, AMBUSH_WEIGHTS)
        strike: Callable[[Process], None] = self.generator.choice(
            (
                lambda process: self._kill(process, f"killed at {name}"),
                lambda process: self._kill(process, f"killed at {name}"),
                self._freeze,
                lambda process: self._cut(process, name),
            )
        )
        self._ambushes.append((name, self.generator.randint(0, 12), strike))

    def _cut(self, process: Process, name: str) -> None:
        self._tell(f"{process} loses its connections at {name}")
        self._cluster.database.drop_process(process)

    def _cut_connections(self) -> None:
        count = self.generator.choice((1, 3, None))
        self._tell(f"{count or 'all'} connections terminated")
        self._cluster.database.terminate(count)

    def _restart_postgres(self) -> None:
        seconds = self.generator.uniform(0.5, 12.0)
        self._tell(f"Postgres away for {seconds:.1f} s")
        self._cluster.database.away = True
        self._cluster.database.terminate()
        self._cluster.loop.at(seconds, self._postgres_is_back)

    def _postgres_is_back(self) -> None:
        self._cluster.database.away = False

    def _flush_redis(self) -> None:
        self._tell("Redis flushed")
        self._cluster.broker.flush()
        self._cluster.messenger.flush()
        self._cluster.circuits.flush()
        self._cluster.answers.flush()

    def _stop_redis(self) -> None:
        seconds = self.generator.uniform(0.5, 10.0)
        self._tell(f"Redis away for {seconds:.1f} s")
        self._cluster.broker.away = self._cluster.messenger.away = True
        self._cluster.loop.at(seconds, self._redis_is_back)

    def _fail_a_model(self) -> None:
        """Let a model fail for all agents, so that its circuit opens."""
        provider = self._cluster.provider
        model, seconds = self.generator.choice(MODELS), self.generator.uniform(3.0, 15.0)
        self._tell(f"{model} fails for {seconds:.1f} s")
        provider.down.add(model)
        self._cluster.loop.at(seconds, lambda: provider.down.discard(model))

    def _redis_is_back(self) -> None:
        cluster = self._cluster
        cluster.broker.away = cluster.messenger.away = False
        cluster.circuit_watch.quiet_since_s = cluster.loop.time()
        cluster.circuits.tell(CircuitNews(circuit=""))  # every process connects again

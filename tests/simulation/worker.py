"""A simulated worker process: the composition of a real worker, on simulated backends."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import structlog
from redis.asyncio import Redis
from sqlalchemy.exc import DBAPIError

from app.bootstrap import Platform
from app.configuration.sections import EngineSettings
from app.configuration.settings import Settings
from app.domain.circuit import CircuitBreakerConfig
from app.domain.policies import CostConfig, MonitorConfig, RateLimitConfig
from app.events.signals import Signals
from app.llm.clients import Clients
from app.rate_limits.backends.memory import MemoryBackend
from app.rate_limits.limiter import ClusterLimiter
from app.scheduler.scheduler import Scheduler
from app.storage.leases import renew_leases
from tests.simulation import tools
from tests.simulation.backends import (
    Buckets,
    Circuits,
    CircuitWatch,
    SharedAnswers,
    Silence,
    SimulatedAnswers,
    WatchedMoney,
)
from tests.simulation.broker import Args, Broker, SimulatedDispatcher
from tests.simulation.database import Database
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.messenger import Messenger, SimulatedRedis
from tests.simulation.provider import INPUT_USD, OUTPUT_USD, Provider, SimulatedClient
from tests.simulation.trace import Trace
from tests.support.circuit_model import MemoryCircuits
from workers.composition import Backends, Composition
from workers.worker_metrics import WorkerMetrics

PROVIDERS = ("openai", "anthropic")

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class Cluster:
    """The services that all processes of a simulation share.

    Attributes:
        loop: The simulation's loop.
        trace: Notes what happens.
        database: Postgres.
        broker: The broker.
        messenger: Redis.
        provider: The providers.
        limits: The limits that every model has.
        max_recoveries: Number of recoveries after which an agent is quarantined.
        lane_width: Largest width of a lane.
        breaker: The policy of all circuits.
    """

    loop: VirtualLoop
    trace: Trace
    database: Database
    broker: Broker
    messenger: Messenger
    provider: Provider
    limits: RateLimitConfig
    max_recoveries: int
    lane_width: int
    breaker: CircuitBreakerConfig

    def __post_init__(self) -> None:
        self.buckets = MemoryBackend(clock=self.loop.wall_clock)
        self.circuits = MemoryCircuits(self.breaker, clock=self.loop.wall_clock)
        self.circuit_watch = CircuitWatch(self.loop)
        self.answers = SharedAnswers(self.loop)
        # The settings are constants, because a simulation depends only on its seed.
        self.settings = Settings.model_construct(
            costs=CostConfig(
                default_input_cost=float(INPUT_USD), default_output_cost=float(OUTPUT_USD)
            ),
            engine=EngineSettings(
                default_max_tokens=50,
                max_recoveries=self.max_recoveries,
                lane_width=self.lane_width,
            ),
            circuit_breaker=self.breaker,
            monitoring=MonitorConfig(enable_metrics=False),
            imports=[tools.__name__],
        )


def platform_of(cluster: Cluster, slot: str) -> Platform:
    """Build the collaborators that clients and workers share; see ``app.bootstrap``.

    Args:
        cluster: The cluster.
        slot: The slot whose engine the platform uses.
    """
    redis = cast(Redis, SimulatedRedis(cluster.messenger))
    engine = cluster.database.engine(slot)
    signals = Signals(redis)
    dispatcher = SimulatedDispatcher(cluster.broker, lane_width=cluster.lane_width)
    limits = cluster.settings.engine
    return Platform(
        settings=cluster.settings,
        has_embedded_postgres=False,
        engine=engine,
        redis=redis,
        signals=signals,
        dispatcher=dispatcher,
        scheduler=Scheduler(
            engine,
            dispatcher,
            signals,
            max_running=limits.max_concurrent_workflows,
            max_collected_bytes=limits.max_collected_bytes,
        ),
    )


class Worker:
    """One worker process.

    Args:
        cluster: The cluster.
        slot: The place of the worker in the cluster; after its death, a new worker has this place.
        generation: Number of earlier workers in this place.
        queues: The queues that the worker serves.
    """

    def __init__(self, cluster: Cluster, slot: str, generation: int, queues: Sequence[str]) -> None:
        self.process = Process(f"{slot}.{generation}")
        self.slot, self.generation, self.queues = slot, generation, queues
        self._cluster = cluster
        self._running = 0
        self._parts: Composition | None = None
        self._beat = asyncio.Event()
        cluster.loop.spawn(self.process, self._open(), "open")

    def serves(self, queue: str) -> bool:
        """See ``Consumer``."""
        parts = self._parts
        return parts is not None and queue in self.queues and not parts.inflight.draining

    def work(self, task: str, args: Args, done: Callable[[], None]) -> None:
        """See ``Consumer``."""
        assert self._parts is not None, "it serves only once it is open"
        self._cluster.loop.spawn(self.process, self._work(self._parts, task, args, done), task)

    @property
    def idle(self) -> bool:
        """Whether the worker has no more work; a frozen worker may still record its work."""
        return not self.process.frozen and not (self._parts and len(self._parts.inflight))

    def drain(self, ended: Callable[[], None]) -> None:
        """Drain the worker as SIGTERM does; call ``ended`` when no work is left."""
        if self._parts is None:
            ended()
            return
        self._parts.inflight.drain()
        self._cluster.loop.spawn(self.process, self._end(self._parts, ended), "drain")

    async def _work(
        self, parts: Composition, task: str, args: Args, done: Callable[[], None]
    ) -> None:
        """See ``workers.tasks``."""
        self._running += 1
        try:
            if task == "lane":
                await parts.lanes.run(*args)
            elif task == "lanes":
                provider, lanes = args
                await asyncio.gather(
                    *(parts.lanes.run(run_id, at, provider, width) for run_id, at, width in lanes)
                )
            else:
                await self._platform.scheduler.advance(*args)
        except Exception:
            log.exception("advance_failed" if task == "advance" else "lane_failed", args=args)
        finally:
            self._running -= 1
        done()

    async def _end(self, parts: Composition, ended: Callable[[], None]) -> None:
        while self._running or len(parts.inflight):  # noqa: ASYNC110  no event tells this
            await asyncio.sleep(0.1)
        ended()

    async def _open(self) -> None:
        """See ``Runtime._open``; on the loop, all that this starts belongs to this process."""
        cluster = self._cluster
        self._platform = platform_of(cluster, self.slot)
        parts = Composition(self._platform, self._backends(), worker=self.process.name)
        self._platform.signals.on_stop(self._beat.set)
        for name, work in parts.background().items():
            cluster.loop.spawn(self.process, work, name)
        cluster.loop.spawn(self.process, self._heartbeat(parts), "heartbeat")
        self._parts = parts

    def _backends(self) -> Backends:
        cluster = self._cluster
        return Backends(
            clients=Clients(
                {name: partial(SimulatedClient, name, cluster.provider) for name in PROVIDERS}
            ),
            limiter=ClusterLimiter(
                Buckets(cluster.loop, cluster.buckets, self.process),
                lambda provider, model: (f"{provider}/{model}", cluster.limits),
            ),
            circuits=Circuits(
                cluster.circuits,
                cluster.messenger,
                cluster.circuit_watch,
                cluster.loop,
                self.process,
            ),
            answers=SimulatedAnswers(cluster.answers, cluster.messenger),
            flower_events=Silence(),
            metrics=WorkerMetrics(cluster.settings.monitoring),
            money=partial(WatchedMoney, watch=cluster.circuit_watch),
        )

    async def _heartbeat(self, parts: Composition) -> None:
        """See ``Heartbeat``, which is a thread; this coroutine runs the same statement."""
        limits = self._cluster.settings.engine
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._beat.wait(), limits.heartbeat_s)
            self._beat.clear()
            held = parts.inflight.held()
            if not held:
                continue
            try:
                async with self._platform.engine.begin() as connection:
                    renew = partial(renew_leases, held=held, lease_s=limits.lease_s)
                    answer = await connection.run_sync(renew)
            except (DBAPIError, TimeoutError) as error:
                log.warning("heartbeat_failed", error=str(error))
                continue
            parts.inflight.renewed(held, answer)

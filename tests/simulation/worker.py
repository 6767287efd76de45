"""A simulated worker process: the real collaborators, composed as ``workers.runtime`` does it."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from uuid import UUID

import structlog
from redis.asyncio import Redis
from sqlalchemy.exc import DBAPIError

from app.conditions.evaluator import ConditionEvaluator
from app.configuration.sections import EngineSettings
from app.costs.pricing import Pricing
from app.domain.policies import CostConfig, MonitorConfig, RateLimitConfig
from app.domain.retry import RetryPolicy
from app.events.signals import Signals
from app.events.texts import Publisher
from app.failures.handler import FailureHandler
from app.kinds.registry import KindRegistry
from app.llm.clients import Clients
from app.rate_limits.backends.memory import MemoryBackend
from app.rate_limits.base import Exchange, News, Reply
from app.rate_limits.limiter import ClusterLimiter
from app.rate_limits.tiers import BucketSpec
from app.scheduler.scheduler import Scheduler
from app.scheduler.watchdog import Watchdog
from app.storage.deferred import wake_deferred
from app.storage.group_commit import GroupCommit
from app.storage.holds import place_holds
from app.storage.leases import Lost, renew_leases
from app.storage.records import CallRecord, Ending, apply_records
from app.storage.turns import read_turns
from app.tools.registry import ToolRegistry
from tests.simulation import tools
from tests.simulation.broker import Args, Broker, SimulatedDispatcher
from tests.simulation.database import Database
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.messenger import Messenger, SimulatedRedis
from tests.simulation.provider import HOLD, INPUT_USD, OUTPUT_USD, Provider, SimulatedClient
from tests.simulation.trace import Trace
from workers.agents.kinds import KindAgents
from workers.agents.llm import LLMAgent
from workers.agents.sub_workflow import SubWorkflowAgent
from workers.agents.tool_turns import ToolTurns
from workers.calls.fallback import FallbackCaller
from workers.calls.money import BudgetWaiters, HoldTicket, Money
from workers.calls.provider import Caller
from workers.claims import Claims
from workers.flower_events import FlowerEvents
from workers.inflight import InFlight
from workers.jobs import Job
from workers.lane import LaneRunner
from workers.pipeline import Agents, Pipeline
from workers.run_contexts import RunContexts
from workers.worker_metrics import WorkerMetrics

PROVIDERS = ("openai", "anthropic")
SETTINGS = EngineSettings(default_max_tokens=50)
LIMIT_RENEWAL_S = 4.0

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class Cluster:
    """What all processes of a simulation share.

    Attributes:
        loop: The simulation's loop.
        trace: Told what happens.
        database: Postgres.
        broker: The broker.
        messenger: Redis.
        provider: The providers.
        limits: Limits of every model.
        max_recoveries: Recoveries until an agent is quarantined.
        lane_width: Widest lane.
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

    def __post_init__(self) -> None:
        self.buckets = MemoryBackend(clock=self.loop.wall_clock)


class Platform:
    """What clients and workers have alike; see ``app.bootstrap``.

    Args:
        cluster: Where it is.
        slot: Whose engine it uses.
    """

    def __init__(self, cluster: Cluster, slot: str) -> None:
        self.redis = cast(Redis, SimulatedRedis(cluster.messenger))
        self.engine = cluster.database.engine(slot)
        self.signals = Signals(self.redis)
        self.dispatcher = SimulatedDispatcher(cluster.broker, lane_width=cluster.lane_width)
        self.scheduler = Scheduler(
            self.engine,
            self.dispatcher,
            self.signals,
            max_running=SETTINGS.max_concurrent_workflows,
            max_collected_bytes=SETTINGS.max_collected_bytes,
        )


class Worker:
    """One worker process.

    Args:
        cluster: Where it lives.
        slot: Its place in the cluster; who follows on a dead worker has the same.
        generation: How many were there before it.
        queues: Queues it serves.
    """

    def __init__(self, cluster: Cluster, slot: str, generation: int, queues: Sequence[str]) -> None:
        self.process = Process(f"{slot}.{generation}")
        self.slot, self.generation, self.queues = slot, generation, queues
        self._cluster = cluster
        self._running = 0
        self._opened = False
        self._beat = asyncio.Event()
        self._inflight = InFlight()
        cluster.loop.spawn(self.process, self._open(), "open")

    def serves(self, queue: str) -> bool:
        """See ``Consumer``."""
        return self._opened and queue in self.queues and not self._inflight.draining

    def work(self, task: str, args: Args, done: Callable[[], None]) -> None:
        """See ``Consumer``."""
        self._cluster.loop.spawn(self.process, self._work(task, args, done), task)

    @property
    def idle(self) -> bool:
        """Whether it has nothing to finish: frozen work may still be told to somebody."""
        return not self.process.frozen and not len(self._inflight)

    def drain(self, ended: Callable[[], None]) -> None:
        """SIGTERM: hand back what waits; ``ended`` is called when nothing is left to do."""
        self._inflight.drain()
        self._cluster.loop.spawn(self.process, self._end(ended), "drain")

    async def _work(self, task: str, args: Args, done: Callable[[], None]) -> None:
        """See ``workers.tasks``."""
        self._running += 1
        try:
            if task == "lane":
                await self._lanes.run(*args)
            elif task == "lanes":
                provider, lanes = args
                await asyncio.gather(
                    *(self._lanes.run(run_id, at, provider, width) for run_id, at, width in lanes)
                )
            else:
                await self._platform.scheduler.advance(*args)
        except Exception:
            log.exception("advance_failed" if task == "advance" else "lane_failed", args=args)
        finally:
            self._running -= 1
        done()

    async def _end(self, ended: Callable[[], None]) -> None:
        while self._running or len(self._inflight):  # noqa: ASYNC110  nobody can tell
            await asyncio.sleep(0.1)
        ended()

    async def _open(self) -> None:
        """See ``Runtime._open``: it runs on the loop, so that what it starts is this process's."""
        cluster = self._cluster
        self._platform = Platform(cluster, self.slot)
        self._limiter = ClusterLimiter(
            _Buckets(cluster, self.process),
            lambda provider, model: (f"{provider}/{model}", cluster.limits),
        )
        self._build_lanes(self._platform)
        self._platform.signals.on_stop(self._beat.set)
        self._watchdog = watchdog = Watchdog(
            self._platform.engine,
            self._platform.redis,
            scheduler=self._platform.scheduler,
            dispatcher=self._platform.dispatcher,
            interval_s=SETTINGS.watchdog_s,
            max_recoveries=cluster.max_recoveries,
            on_quarantine=_tell_nobody,
        )
        for work in (self._heartbeat(), self._renew_limits(), watchdog.run()):
            cluster.loop.spawn(self.process, work, "background")
        self._opened = True

    def _build_lanes(self, platform: Platform) -> None:
        cluster, engine = self._cluster, platform.engine
        claims = Claims(
            engine,
            worker=self.process.name,
            lease_s=SETTINGS.lease_s,
            max_recoveries=cluster.max_recoveries,
            max_collected_bytes=SETTINGS.max_collected_bytes,
            lanes=platform.dispatcher.lanes,
        )
        self._wakings = GroupCommit(engine, wake_deferred, name="wake_deferred")
        budget_waiters = BudgetWaiters(platform.signals, self._wake_deferred)
        records = GroupCommit(
            engine,
            partial(apply_records, wake=budget_waiters),
            name="record",
            key=lambda record: record.agent_run_id,
            delay_s=self._inflight.commit_delay_s,
        )
        holds = GroupCommit(
            engine,
            partial(place_holds, wake=budget_waiters),
            name="hold",
            key=lambda hold: hold.agent_run_id,
        )
        provider = cluster.provider
        prices = CostConfig(
            default_input_cost=float(INPUT_USD), default_output_cost=float(OUTPUT_USD)
        )
        pricing = Pricing(prices)
        caller = Caller(
            clients=Clients({name: partial(SimulatedClient, name, provider) for name in PROVIDERS}),
            limiter=self._limiter,
            pricing=pricing,
            money=_WatchedMoney(holds, platform.signals),
            texts=Publisher(platform.redis),
            default_max_tokens=SETTINGS.default_max_tokens,
            long_wait_s=SETTINGS.long_wait_s,
        )
        agents = Agents(
            llm=LLMAgent(
                caller=FallbackCaller(caller, pricing=pricing, records=records, engine=engine),
                registry=ToolRegistry([tools.__name__]),
                tool_turns=ToolTurns(
                    records=records, engine=engine, max_output_bytes=SETTINGS.max_output_bytes
                ),
                stored=GroupCommit(engine, read_turns, name="read_turns"),
                max_output_bytes=SETTINGS.max_output_bytes,
            ),
            kinds=KindAgents(KindRegistry(), max_output_bytes=SETTINGS.max_output_bytes),
            sub_workflows=SubWorkflowAgent(
                engine, max_depth=SETTINGS.max_depth, thresholds=SETTINGS.budget_thresholds
            ),
            conditions=ConditionEvaluator(),
        )
        pipeline = Pipeline(
            inflight=self._inflight,
            records=records,
            agents=agents,
            flower_events=_Silence(),
            metrics=WorkerMetrics(MonitorConfig(enable_metrics=False)),
            failures=FailureHandler(RetryPolicy()),
            scheduler=platform.scheduler,
            limits=SETTINGS,
        )
        self._lanes = LaneRunner(
            claims=claims,
            contexts=RunContexts(engine),
            pipeline=pipeline,
            inflight=self._inflight,
            scheduler=platform.scheduler,
            dispatcher=platform.dispatcher,
            signals=platform.signals,
        )

    async def _wake_deferred(self, agent_run_ids: Sequence[UUID]) -> None:
        """See ``Runtime._wake_deferred``."""
        with contextlib.suppress(DBAPIError, TimeoutError):
            if await self._wakings.submit(agent_run_ids):
                await self._watchdog.deferred.look()

    async def _heartbeat(self) -> None:
        """See ``Heartbeat``, which is a thread; its statement is the same."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._beat.wait(), SETTINGS.heartbeat_s)
            self._beat.clear()
            held = self._inflight.held()
            if not held:
                continue
            try:
                async with self._platform.engine.begin() as connection:
                    renew = partial(renew_leases, held=held, lease_s=SETTINGS.lease_s)
                    answer = await connection.run_sync(renew)
            except (DBAPIError, TimeoutError) as error:
                log.warning("heartbeat_failed", error=str(error))
                continue
            self._inflight.renewed(held, answer)

    async def _renew_limits(self) -> None:
        while True:
            await asyncio.sleep(LIMIT_RENEWAL_S)
            await self._limiter.renew()


class _Buckets:
    """The cluster's buckets, as one process hears of them."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster, self._process = cluster, process

    async def exchange(self, spec: BucketSpec, message: Exchange) -> Reply:
        """See ``LimiterBackend``."""
        await asyncio.sleep(0.0005)
        return await self._cluster.buckets.exchange(spec, message)

    async def listen(self, process: str, on_news: Callable[[News], None]) -> None:
        """See ``LimiterBackend``; news come to the process, not into whoever sends them."""

        async def hear(news: News) -> None:
            on_news(news)

        await self._cluster.buckets.listen(
            process, lambda news: self._cluster.loop.spawn(self._process, hear(news), "news")
        )

    async def snapshot(self) -> list[dict[str, Any]]:
        """See ``LimiterBackend``."""
        return await self._cluster.buckets.snapshot()

    async def close(self) -> None:
        """See ``LimiterBackend``."""


class _WatchedMoney(Money):
    """Tells the provider under which hold the call comes that the task makes next."""

    async def hold(self, hold_request: HoldTicket) -> bool:
        HOLD.set(hold_request.request)
        return await super().hold(hold_request)


class _Silence(FlowerEvents):
    """Nobody watches."""

    def __init__(self) -> None:
        pass

    def started(self, job: Job) -> None:
        pass

    def ended(self, job: Job, ending: Ending, calls: Sequence[CallRecord]) -> None:
        pass


async def _tell_nobody(lost: Lost) -> None:
    """Quarantine has its own tests."""

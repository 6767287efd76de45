"""The one asyncio loop of a worker process, and the bridge from Celery's threads to it."""

import asyncio
import contextlib
import gc
from collections.abc import Container, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from structlog.contextvars import bound_contextvars

from app.bootstrap import Platform, build_platform, client_factories, database_url
from app.celery import app as celery
from app.conditions.evaluator import ConditionEvaluator
from app.configuration.settings import agent_secret
from app.costs.pricing import Pricing
from app.domain.agent import AgentResult
from app.domain.for_each import agent_of
from app.domain.status import AgentStatus
from app.errors import RecoveriesExhausted
from app.events.relay import Relay
from app.events.stream import EventStream
from app.events.texts import Publisher
from app.failures.breakers import CircuitBreakers
from app.failures.callback import load_callback
from app.failures.circuit_redis import RedisCircuits
from app.failures.handler import FailureHandler
from app.kinds.registry import KindRegistry
from app.llm.cache import AnswerCache
from app.llm.clients import Clients
from app.loop_thread import LoopThread
from app.rate_limits.limiter import ClusterLimiter
from app.scheduler.watchdog import Watchdog
from app.storage.deferred import wake_deferred
from app.storage.group_commit import GroupCommit
from app.storage.holds import place_holds
from app.storage.leases import Lost
from app.storage.records import apply_records
from app.storage.session import LOOKUP_SETTINGS
from app.storage.turns import read_turns
from app.telemetry.redaction import Redactor
from app.tools.builtin import builtin_tools
from app.tools.registry import ToolRegistry
from app.tools.threads import run_in_thread
from workers.agents.kinds import KindAgents
from workers.agents.llm import Calls, LLMAgent
from workers.agents.sub_workflow import SubWorkflowAgent
from workers.agents.tool_turns import ToolTurns
from workers.calls.cache import CachedCaller
from workers.calls.circuit import GuardedCaller
from workers.calls.fallback import FallbackCaller
from workers.calls.money import BudgetWaiters, Money
from workers.calls.provider import Caller
from workers.claims import Claims
from workers.flower_events import EVENT_OF_TYPE, FlowerEvents
from workers.heartbeat import Heartbeat
from workers.inflight import InFlight
from workers.lane import LaneRunner
from workers.pipeline import Agents, Pipeline
from workers.run_contexts import RunContexts
from workers.stored_limits import StoredLimits
from workers.worker_metrics import MeteredRecords, WorkerMetrics

Result = TypeVar("Result")
LIMIT_RENEWAL_S = 4.0
CANCEL_STEP_S = 0.1
GC_THRESHOLDS = (20_000, 20, 50)

log = structlog.get_logger(__name__)


class Runtime:
    """Everything a worker process needs, alive on one loop in one thread.

    Args:
        worker: Unique name of this process: the owner of its leases.
        node: Its name among Celery's workers, under which Flower shows what it does.
        queues: Queues it serves: what their providers need is loaded before the first call.
    """

    def __init__(self, worker: str, *, node: str, queues: Container[str]) -> None:
        self.worker = worker
        self._node = node
        self._queues = queues
        self._loop = LoopThread("agentchord")
        self.run(self._open())

    def run(self, step: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the loop and wait for it; called from Celery's threads."""
        return self._loop.run(step)

    async def lane(self, run_id: UUID, level: int, provider: str, width: int) -> None:
        """Run a lane; see LaneRunner."""
        with bound_contextvars(run_id=str(run_id)):
            await self._lanes.run(run_id, level, provider, width)

    async def lanes(self, provider: str, lanes: Sequence[tuple[UUID, int, int]]) -> None:
        """Run several lanes at once, each of a run, at a level, with a width."""
        ends = await asyncio.gather(
            *(self.lane(run_id, level, provider, width) for run_id, level, width in lanes),
            return_exceptions=True,
        )
        if errors := [end for end in ends if isinstance(end, Exception)]:
            raise ExceptionGroup("lanes failed", errors)

    async def advance(self, run_id: UUID, level: int | None) -> None:
        """Move a run on; see Scheduler."""
        with bound_contextvars(run_id=str(run_id)):
            await self._platform.scheduler.advance(run_id, level)

    def drain(self) -> None:
        """Take no more work: hand back what waits, let calls finish within the grace period."""
        self._loop.call(self._start_draining)

    def close(self) -> None:
        """Close everything and end the loop."""
        self.run(self._close())
        self._loop.close()

    async def _open(self) -> None:
        # Half a million objects of imported modules live as long as the process: the garbage
        # collector need not look at them again and again, neither now nor later.
        gc.disable()
        self._platform = build_platform(
            application_name=f"agentchord {self.worker}", session_settings=LOOKUP_SETTINGS
        )
        settings = self._platform.settings
        self._inflight = InFlight()
        self._flower_events = FlowerEvents(
            celery,
            self._node,
            redact=Redactor(settings.secret_values()).text,
            payloads=settings.monitoring.flower_payloads,
        )
        self._metrics = WorkerMetrics(settings.monitoring)
        self._metrics.watch_dropped(lambda: self._flower_events.dropped)
        # First what can be refused, such as a module of imports: that does not exist.
        self._build_lanes(self._platform)
        await self._limits.load()
        self._flower_events.start()
        self._metrics.start()
        self._heartbeat = Heartbeat(
            database_url(settings),
            self._inflight,
            asyncio.get_running_loop(),
            lease_s=settings.engine.lease_s,
            beat_s=settings.engine.heartbeat_s,
        )
        self._heartbeat.start()
        self._platform.signals.on_stop(self._heartbeat.beat_now)
        self._platform.signals.on_limits(self._limits.look_now)
        self._watchdog = watchdog = Watchdog(
            self._platform.engine,
            self._platform.redis,
            scheduler=self._platform.scheduler,
            dispatcher=self._platform.dispatcher,
            interval_s=settings.engine.watchdog_s,
            max_recoveries=settings.engine.max_recoveries,
            on_quarantine=self._tell_quarantine,
        )
        self._background = [
            asyncio.create_task(watchdog.run(), name="watchdog"),
            asyncio.create_task(self._renew_limits(), name="renew_limits"),
            asyncio.create_task(self._breakers.run(), name="circuit_breakers"),
            asyncio.create_task(
                self._limits.follow(self._limiter, watchdog.deferred.look), name="stored_limits"
            ),
        ]
        if settings.monitoring.stream_events:
            relay = self._relay(settings.monitoring.stream_length)
            self._background.append(asyncio.create_task(relay.run(), name="events_relay"))
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        gc.enable()

    def _build_lanes(self, platform: Platform) -> None:
        settings, engine = platform.settings, platform.engine
        claims = Claims(
            engine,
            worker=self.worker,
            lease_s=settings.engine.lease_s,
            max_recoveries=settings.engine.max_recoveries,
            max_collected_bytes=settings.engine.max_collected_bytes,
            lanes=platform.dispatcher.lanes,
        )
        self._wakings = GroupCommit(engine, wake_deferred, name="wake_deferred")
        budget_waiters = BudgetWaiters(platform.signals, self._wake_deferred)
        records = MeteredRecords(
            self._metrics,
            engine,
            partial(apply_records, wake=budget_waiters),
            key=lambda record: record.agent_run_id,
            delay_s=self._inflight.commit_delay_s,
        )
        holds = GroupCommit(
            engine,
            partial(place_holds, wake=budget_waiters),
            name="hold",
            key=lambda hold: hold.agent_run_id,
        )
        self._clients = Clients(client_factories(settings))
        self._limits = StoredLimits(engine, settings.rate_limits, settings.provider_names)
        self._limiter = ClusterLimiter(
            platform.redis,
            self._limits.resolve,
            recent_use=self._limits.recent_use,
            cautious=True,
        )
        pricing = Pricing(settings.costs, settings.all_providers())
        served = [provider for provider in settings.provider_names if provider in self._queues]
        self._clients.preload(served)
        if served:
            pricing.preload()
        self._texts = Publisher(platform.redis)
        caller = Caller(
            clients=self._clients,
            limiter=self._limiter,
            pricing=pricing,
            money=Money(holds, platform.signals),
            texts=self._texts,
            default_max_tokens=settings.engine.default_max_tokens,
            long_wait_s=settings.engine.long_wait_s,
            providers=settings.all_providers(),
        )
        calls: Calls = caller
        self._circuits = RedisCircuits(platform.redis, settings.circuit_breaker)
        self._breakers = CircuitBreakers(self._circuits, settings.circuit_breaker)
        if settings.circuit_breaker.enabled:
            self._circuits.listen(self._breakers.hear)
            calls = GuardedCaller(
                caller,
                self._breakers,
                records=records,
                engine=engine,
                long_wait_s=settings.engine.long_wait_s,
            )
        self._cached = CachedCaller(
            calls, cache=AnswerCache(platform.redis), signals=platform.signals, pricing=pricing
        )
        redactor = Redactor(settings.secret_values())
        calls = FallbackCaller(
            self._cached, pricing=pricing, records=records, engine=engine, redact=redactor.text
        )
        on_failure = settings.on_failure and load_callback(settings.on_failure)
        self._failures = FailureHandler(
            settings.retry, on_failure or None, in_thread=run_in_thread, redact=redactor.text
        )
        tools = ToolRegistry(settings.imports, builtin_tools(settings.tools))
        tools.load()
        kinds = KindRegistry(
            imports=settings.imports,
            allow_addresses=settings.allow_addresses,
            secret=agent_secret,
        )
        agents = Agents(
            llm=LLMAgent(
                caller=calls,
                registry=tools,
                tool_turns=ToolTurns(
                    records=records,
                    engine=engine,
                    max_output_bytes=settings.tools.max_output_bytes,
                ),
                stored=GroupCommit(engine, read_turns, name="read_turns"),
                max_output_bytes=settings.engine.max_output_bytes,
            ),
            kinds=KindAgents(kinds, max_output_bytes=settings.engine.max_output_bytes),
            sub_workflows=SubWorkflowAgent(
                engine,
                max_depth=settings.engine.max_depth,
                thresholds=settings.engine.budget_thresholds,
            ),
            conditions=ConditionEvaluator(),
        )
        pipeline = Pipeline(
            inflight=self._inflight,
            records=records,
            agents=agents,
            flower_events=self._flower_events,
            metrics=self._metrics,
            failures=self._failures,
            scheduler=platform.scheduler,
            limits=settings.engine,
        )
        self._contexts = RunContexts(engine)
        self._lanes = LaneRunner(
            claims=claims,
            contexts=self._contexts,
            pipeline=pipeline,
            inflight=self._inflight,
            scheduler=platform.scheduler,
            dispatcher=platform.dispatcher,
            signals=platform.signals,
        )

    def _relay(self, length: int) -> Relay:
        return Relay(
            self._platform.engine,
            self._platform.redis,
            EventStream(self._platform.redis, length),
            length=length,
            tell=self._flower_events.tell,
            types=frozenset(EVENT_OF_TYPE),
        )

    async def _tell_quarantine(self, lost: Lost) -> None:
        """The worker that should have told of this failure is the one that it has ended."""
        run = await self._contexts.get(lost.run_id)
        agent = run.workflow.get_agent_by_name(agent_of(lost.name)) if run else None
        if run is None or agent is None:
            return
        self._failures.tell(
            agent,
            AgentResult(
                agent_id=str(lost.agent_run_id),
                status=AgentStatus.FAILED,
                error=lost.error,
                retry_count=lost.retries,
                metadata={
                    "run_id": str(lost.run_id),
                    "workflow": run.workflow.name,
                    "tenant": run.tenant,
                    "attempts": lost.attempt,
                    "error_class": RecoveriesExhausted.__name__,
                },
            ),
        )

    async def _wake_deferred(self, agent_run_ids: Sequence[UUID]) -> None:
        with contextlib.suppress(DBAPIError, TimeoutError):  # the watchdog's next look finds them
            if await self._wakings.submit(agent_run_ids):
                await self._watchdog.deferred.look()

    async def _renew_limits(self) -> None:
        """Concurrency slots are leases too: whoever dies gives them back."""
        while True:
            await asyncio.sleep(LIMIT_RENEWAL_S)
            await self._limiter.renew()

    def _start_draining(self) -> None:
        if self._inflight.draining:
            return
        log.info("draining", worker=self.worker, in_flight=len(self._inflight))
        self._inflight.drain()
        grace_s = self._platform.settings.engine.drain_grace_s
        asyncio.get_running_loop().call_later(
            grace_s, partial(self._inflight.drain, calls_too=True)
        )

    async def _close(self) -> None:
        while pending := [task for task in self._background if not task.done()]:
            # Again and again: redis-py may swallow a cancellation that meets an answer.
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=CANCEL_STEP_S)
        self._heartbeat.stop()
        self._flower_events.stop()
        self._metrics.stop()
        await self._failures.close()
        await self._cached.close()
        await self._breakers.close()
        await self._circuits.close()
        await self._texts.close()
        log.info("texts", dropped_chars=self._texts.dropped_chars)
        log.info("failures", **self._failures.get_statistics())
        log.info("circuits", **self._breakers.get_statistics())
        await self._limiter.close()
        await self._clients.close()
        await self._platform.close()

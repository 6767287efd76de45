"""The composition of a worker, in processes and in simulations: makes lanes from backends."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError

from app.attachments.reader import AttachmentReader
from app.bootstrap import Platform, call_planner
from app.concurrency.user_code import run_in_thread
from app.conditions.evaluator import ConditionEvaluator
from app.configuration.functions import load_function
from app.configuration.settings import agent_secret
from app.domain.agent import AgentResult
from app.domain.for_each import agent_of
from app.domain.loaded import Loaded
from app.domain.status import AgentStatus
from app.errors import RecoveriesExhausted
from app.events.signals import Signals
from app.events.texts import Publisher
from app.failures.breakers import CircuitBreakers
from app.failures.circuit import CircuitBackend
from app.failures.handler import FailureHandler
from app.kinds.functions import function_names
from app.kinds.registry import KindRegistry
from app.llm.cache import AnswerCache
from app.llm.clients import Clients
from app.rate_limits.limiter import ClusterLimiter
from app.registration.output_schemas import OutputSchemas
from app.sandbox.processes import Sandbox
from app.scheduler.watchdog import Watchdog
from app.storage.attachments import fix_attachments
from app.storage.deferred import wake_deferred
from app.storage.group_commit import GroupCommit
from app.storage.holds import place_holds
from app.storage.leases import Lost
from app.storage.turns import read_turns
from app.telemetry.redaction import Redactor
from app.tools.builtin import builtin_tools
from app.tools.registry import ToolRegistry
from app.tools.sources import hashes_of, own_folders, source_files, user_modules
from workers.agents.attachments import Attachments
from workers.agents.kinds import KindAgents
from workers.agents.llm import LLMAgent
from workers.agents.sub_workflow import SubWorkflowAgent
from workers.agents.tool_turns import ToolTurns
from workers.background import Background
from workers.calls.base import CallRing, surround
from workers.calls.cache import CacheRing
from workers.calls.circuit import CircuitRing
from workers.calls.counting import TokenCounter
from workers.calls.fallback import FallbackRing
from workers.calls.money import BudgetWaiters, Holds, Money
from workers.calls.provider import ProviderRing
from workers.claims import Claims
from workers.flower_events import FlowerEvents
from workers.history import HistoryWriter
from workers.inflight import InFlight
from workers.lane import LaneRunner
from workers.pipeline import Agents, Pipeline
from workers.records import RecordWriter
from workers.run_contexts import RunContexts
from workers.worker_metrics import WorkerMetrics

LIMIT_RENEWAL_S = 4.0
#: Seconds for which a closing worker waits for the steps in the background.
CLOSE_S = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Backends:
    """The services of a worker, without Postgres and the platform.

    ``workers.runtime`` makes the services of a process: provider SDKs, Redis, Flower, Prometheus. A
    simulation makes its own services.

    Attributes:
        clients: The providers.
        limiter: The cluster's limits.
        circuits: The cluster's circuits.
        answers: The cluster's shared answers.
        flower_events: Shows agents in Flower.
        metrics: Counts attempts, calls, tokens and dollars for Prometheus.
        money: Makes the ``Money`` that places holds, from the group commit of the holds and the
            platform's signals.
    """

    clients: Clients
    limiter: ClusterLimiter
    circuits: CircuitBackend
    answers: AnswerCache
    flower_events: FlowerEvents
    metrics: WorkerMetrics
    money: Callable[[Holds, Signals], Money] = Money


class Composition:
    """All collaborators of one worker, bound to the running loop.

    Its weakness: a composition has no heartbeat and does not read stored limits. In a process,
    ``workers.runtime`` has the heartbeat and reads the limits. These parts do not belong to the
    composition, because a heartbeat needs a thread, while a simulation cannot have threads.

    Args:
        platform: The objects that workers and clients share.
        backends: The other services.
        worker: Unique name of the worker. The worker's leases store this name as their owner.

    Attributes:
        inflight: The agent runs in progress.
        planner: Plans calls.
        lanes: Runs lanes.
        loaded: The names of the code that agents can use here; no queue is named.
        watchdog: Finds lost work and starts it again.

    Raises:
        ConfigurationError: If a module of ``imports`` or the function ``on_failure`` cannot be
            used.

    Example:
        parts = Composition(platform, backends, worker="host:1:5f0c")
        tasks = [asyncio.create_task(work) for work in parts.background().values()]
        await parts.lanes.run(run_id, 0, "openai", 50)
    """

    def __init__(self, platform: Platform, backends: Backends, *, worker: str) -> None:
        settings, engine = platform.settings, platform.engine
        self._platform = platform
        self._backends = backends
        self._redactor = Redactor(settings.secret_values())
        self.inflight = InFlight()
        self._sandbox = Sandbox()
        self.planner = call_planner(settings)
        self._background = Background()
        self._history = HistoryWriter(engine, self._background)
        self._contexts = RunContexts(engine)
        self._texts = Publisher(platform.redis)
        self._breakers = CircuitBreakers(backends.circuits, settings.circuit_breaker)
        on_failure = settings.on_failure and load_function("on_failure", settings.on_failure)
        self._failures = FailureHandler(
            settings.retry,
            on_failure or None,
            redact=self._redactor.text,
        )
        self._wakings = GroupCommit(engine, wake_deferred, name="wake_deferred")
        self._waiters = BudgetWaiters(platform.signals, self._wake_deferred, self._background)
        claims = Claims(
            engine,
            self._contexts,
            worker=worker,
            lease_s=settings.engine.lease_s,
            max_recoveries=settings.engine.max_recoveries,
            max_collected_bytes=settings.engine.max_collected_bytes,
            lanes=platform.dispatcher.lanes,
        )
        self._records = RecordWriter(
            engine,
            claims=claims,
            wake=self._waiters,
            metrics=backends.metrics,
            delay_s=self.inflight.commit_delay_s,
        )
        self.lanes = LaneRunner(
            claims=claims,
            pipeline=Pipeline(
                inflight=self.inflight,
                records=self._records,
                agents=self._agents(),
                flower_events=backends.flower_events,
                metrics=backends.metrics,
                failures=self._failures,
                scheduler=platform.scheduler,
                limits=settings.engine,
            ),
            inflight=self.inflight,
            scheduler=platform.scheduler,
            dispatcher=platform.dispatcher,
            signals=platform.signals,
        )
        self.watchdog = Watchdog(
            engine,
            platform.redis,
            scheduler=platform.scheduler,
            dispatcher=platform.dispatcher,
            interval_s=settings.engine.watchdog_s,
            max_recoveries=settings.engine.max_recoveries,
            on_quarantine=self._tell_quarantine,
        )

    def background(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return, by name, the coroutines that run beside the lanes; the caller cancels each."""
        return {
            "watchdog": self.watchdog.run(),
            "renew_limits": self._renew_limits(),
            "circuit_breakers": self._breakers.run(),
        }

    async def close(self) -> None:
        """Wait for the steps in the background, and close the backends' connections."""
        self._sandbox.close()
        await self._failures.close()
        await self._background.close(timeout_s=CLOSE_S)
        await self._breakers.close()
        await self._backends.circuits.close()
        await self._texts.close()
        log.info("texts", dropped_chars=self._texts.dropped_chars)
        log.info("failures", **self._failures.get_statistics())
        log.info("circuits", **self._breakers.get_statistics())
        await self._backends.limiter.close()
        await self._backends.clients.close()

    def _rings(self) -> CallRing:
        """Return the outermost ring around a call; see ``workers.calls.base``."""
        platform, backends = self._platform, self._backends
        settings = platform.settings
        holds: Holds = GroupCommit(
            platform.engine,
            partial(place_holds, wake=self._waiters),
            name="hold",
            key=lambda hold: hold.agent_run_id,
        )
        provider = ProviderRing(
            clients=backends.clients,
            limiter=backends.limiter,
            planner=self.planner,
            money=backends.money(holds, platform.signals),
            texts=self._texts,
            counter=TokenCounter(clients=backends.clients, limiter=backends.limiter),
            history=self._history,
        )
        rings: dict[str, Callable[[CallRing], CallRing]] = {
            "cache": partial(
                CacheRing,
                cache=backends.answers,
                signals=platform.signals,
                pricing=self.planner.pricing,
                background=self._background,
            ),
            "fallback": partial(
                FallbackRing,
                pricing=self.planner.pricing,
                history=self._history,
                redact=self._redactor.text,
            ),
        }
        if settings.circuit_breaker.enabled:
            backends.circuits.listen(self._breakers.hear)
            rings["circuit"] = partial(CircuitRing, breakers=self._breakers, history=self._history)
        return surround(provider, rings)

    def _agents(self) -> Agents:
        settings, engine = self._platform.settings, self._platform.engine
        tools = ToolRegistry(settings.imports, builtin_tools(settings.tools, self._sandbox))
        tools.load()
        max_output_bytes = settings.engine.max_output_bytes
        schemas = OutputSchemas(self._sandbox)
        kinds = KindRegistry(
            imports=settings.imports,
            allow_addresses=settings.allow_addresses,
            secret=agent_secret,
        )
        self.loaded = Loaded(
            queues=(),
            tools=tools.names(),
            functions=function_names(settings.imports),
            kinds=kinds.names(),
            host=socket.gethostname(),
            files=hashes_of(source_files(user_modules(settings), own_folders())),
        )
        return Agents(
            llm=LLMAgent(
                calls=self._rings(),
                registry=tools,
                tool_turns=ToolTurns(
                    engine=engine, max_output_bytes=settings.tools.max_output_bytes
                ),
                stored=GroupCommit(engine, read_turns, name="read_turns"),
                attachments=Attachments(
                    AttachmentReader(settings.attachments, in_thread=run_in_thread),
                    GroupCommit(engine, fix_attachments, name="attachments"),
                ),
                schemas=schemas,
                max_output_bytes=max_output_bytes,
            ),
            kinds=KindAgents(kinds, max_output_bytes=max_output_bytes),
            sub_workflows=SubWorkflowAgent(
                engine,
                max_depth=settings.engine.max_depth,
                thresholds=settings.engine.budget_thresholds,
                schemas=schemas,
            ),
            conditions=ConditionEvaluator(self._sandbox),
            schemas=schemas,
        )

    async def _tell_quarantine(self, lost: Lost) -> None:
        """Tell ``on_failure`` about an agent that has killed all its workers."""
        run = await self._contexts.get(lost.run_id)
        agent = run.workflow.get_agent_by_name(agent_of(lost.name)) if run else None
        if run is None or agent is None:
            return
        self._failures.tell(
            deepcopy(agent),
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
        with contextlib.suppress(DBAPIError, TimeoutError):  # the watchdog finds the agents later
            if await self._wakings.submit(agent_run_ids):
                await self.watchdog.deferred.look()

    async def _renew_limits(self) -> None:
        """Renew concurrency slots, which are leases, too; slots of a dead worker become free."""
        while True:
            await asyncio.sleep(LIMIT_RENEWAL_S)
            await self._backends.limiter.renew()

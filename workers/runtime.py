"""The runtime of a worker process: one asyncio loop in one thread, and all that runs on this loop.

Celery's threads give their tasks to the loop and wait. For each message, one thread waits, however
many agents run in the message's lanes. ``workers.composition`` puts the parts together.
"""

import asyncio
import faulthandler
import gc
import os
import sys
import threading
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog
from structlog.contextvars import bound_contextvars

from app.bootstrap import build_platform, client_factories
from app.celery import SCHEDULER_QUEUE
from app.celery import app as celery
from app.concurrency.loop_thread import LoopThread
from app.concurrency.loop_watch import LoopWatch
from app.concurrency.user_code import run_in_thread
from app.embedded.connected import database_url
from app.events.relay import Relay
from app.events.stream import EventStream
from app.failures.circuit_redis import RedisCircuits
from app.llm.cache import AnswerCache
from app.llm.clients import Clients
from app.rate_limits.limiter import ClusterLimiter
from app.storage.cluster_keys import ANSWERS, cluster_key
from app.storage.session import LOOKUP_SETTINGS
from app.telemetry.redaction import Redactor
from workers.composition import Backends, Composition
from workers.flower_events import EVENT_OF_TYPE, FlowerEvents
from workers.heartbeat import Heartbeat
from workers.published import Publisher
from workers.stored_limits import StoredLimits
from workers.worker_metrics import WorkerMetrics

Result = TypeVar("Result")
CANCEL_STEP_S = 0.1
#: The process ends if its loop has not turned, or could start no thread, during so many probes of
#: so many seconds. A blocked loop has lost all leases before that: the heartbeat renews none after
#: 60 s, and a lease is valid for 15 s.
PROBE_S, PROBES = 10.0, 9
#: The process ends if no thread could run Python code for so many seconds, because C code kept the
#: interpreter lock. A process that is stopped for longer ends when it continues.
LOCKED_S = 900.0
#: Seconds that the last log line may take.
LAST_WORDS_S = 2.0
STDERR = 2
GC_THRESHOLDS = (20_000, 20, 50)

log = structlog.get_logger(__name__)


class Runtime:
    """Everything that a worker process needs, on one loop in one thread.

    Its weakness: a process uses one core for Python code, however many agents run. To use more
    cores, start more processes (``agentchord up --workers``). Each process has its own connections.

    Args:
        worker: Unique name of this process. The process's leases store this name as their owner.
        node: Name of this process among Celery's workers and in Flower.
        queues: The queues that this process serves. The SDKs of the queues' providers are loaded
            before the first call.

    Example:
        runtime = Runtime("host:1:5f0c", node="celery@host", queues={"openai"})
        runtime.run(runtime.lane(run_id, 0, "openai", 50))
        runtime.drain()
        runtime.close()
    """

    def __init__(self, worker: str, *, node: str, queues: Collection[str]) -> None:
        self.worker = worker
        self._node = node
        self._queues = queues
        self._closing = False
        self._loop = LoopThread("agentchord", on_death=partial(self._end_process, "event loop"))
        self.run(self._open())
        self._watch.start()

    def run(self, step: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the loop and wait for its end; Celery's threads call this method."""
        return self._loop.run(step)

    async def lane(self, run_id: UUID, level: int, provider: str, width: int) -> None:
        """Run a lane; see LaneRunner."""
        await self._parts.lanes.run(run_id, level, provider, width)

    async def lanes(self, provider: str, lanes: Sequence[tuple[UUID, int, int]]) -> None:
        """Run several lanes at once; each lane is given as run id, level and width."""
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
        """Claim no more agents, hand back waiting agents, and let calls end in the grace period."""
        self._loop.call(self._start_draining)

    def close(self) -> None:
        """Close everything and end the loop."""
        self.run(self._close())
        self._loop.close()

    async def _open(self) -> None:
        # Half a million objects of imported modules live until the process ends, so the garbage
        # collector does not have to look at these objects, now or later.
        gc.disable()
        self._platform = platform = build_platform(
            application_name=f"agentchord {self.worker}", session_settings=LOOKUP_SETTINGS
        )
        settings = platform.settings
        self._limits = StoredLimits(platform.engine, settings.rate_limits, settings.provider_names)
        self._backends = self._build_backends(await cluster_key(platform.engine, ANSWERS))
        # The composition is made first, because this step can fail, for example if a module of
        # `imports` does not exist.
        self._parts = Composition(platform, self._backends, worker=self.worker)
        self._preload()
        await self._limits.load()
        self._backends.flower_events.start()
        self._backends.metrics.start()
        self._heartbeat = Heartbeat(
            database_url(settings),
            self._parts.inflight,
            asyncio.get_running_loop(),
            lease_s=settings.engine.lease_s,
            beat_s=settings.engine.heartbeat_s,
            on_death=partial(self._end_process, "heartbeat"),
        )
        self._heartbeat.start()
        self._watch = LoopWatch(
            asyncio.get_running_loop(),
            name="loop watch",
            probe_s=PROBE_S,
            probes=PROBES,
            on_blocked=self._loop_blocked,
            on_probe=_watch_lock,
            check=partial(run_in_thread, int),
        )
        platform.signals.on_stop(self._heartbeat.beat_now)
        platform.signals.on_limits(self._limits.look_now)
        background = self._parts.background()
        background["stored_limits"] = self._limits.follow(
            self._backends.limiter, self._parts.watchdog.deferred.look
        )
        loaded = replace(self._parts.loaded, queues=sorted(self._queues))
        self._publisher = Publisher(
            platform.engine, worker=self.worker, node=self._node, loaded=loaded
        )
        background["published"] = self._publisher.run()
        if SCHEDULER_QUEUE in self._queues:
            background["admission"] = platform.scheduler.answer_asks()
        if settings.monitoring.stream_events:
            background["events_relay"] = self._relay(settings.monitoring.stream_length).run()
        self._background = [
            asyncio.create_task(work, name=name) for name, work in background.items()
        ]
        for task in self._background:
            task.add_done_callback(self._background_ended)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        gc.enable()

    def _build_backends(self, answers_key: bytes) -> Backends:
        platform, settings = self._platform, self._platform.settings
        flower_events = FlowerEvents(
            celery,
            self._node,
            redact=Redactor(settings.secret_values()).text,
            payloads=settings.monitoring.flower_payloads,
        )
        metrics = WorkerMetrics(settings.monitoring)
        metrics.watch_dropped(lambda: flower_events.dropped)
        return Backends(
            clients=Clients(client_factories(settings)),
            limiter=ClusterLimiter(
                platform.redis,
                self._limits.resolve,
                recent_use=self._limits.recent_use,
                cautious=True,
            ),
            circuits=RedisCircuits(platform.redis, settings.circuit_breaker),
            answers=AnswerCache(platform.redis, key=answers_key),
            flower_events=flower_events,
            metrics=metrics,
        )

    def _preload(self) -> None:
        names = self._platform.settings.provider_names
        if served := [provider for provider in names if provider in self._queues]:
            self._backends.clients.preload(served)
            self._parts.planner.pricing.preload()

    def _relay(self, length: int) -> Relay:
        return Relay(
            self._platform.engine,
            self._platform.redis,
            EventStream(self._platform.redis, length),
            length=length,
            tell=self._backends.flower_events.tell,
            types=frozenset(EVENT_OF_TYPE),
        )

    def _start_draining(self) -> None:
        inflight = self._parts.inflight
        if inflight.draining:
            return
        log.info("draining", worker=self.worker, in_flight=len(inflight))
        inflight.drain()
        grace_s = self._platform.settings.engine.drain_grace_s
        asyncio.get_running_loop().call_later(grace_s, partial(inflight.drain, calls_too=True))

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        if self._closing:
            return
        error = None if task.cancelled() else task.exception()
        log.error("background_ended", step=task.get_name(), exc_info=error)
        self._end_process(task.get_name())

    def _end_process(self, part: str) -> None:
        """End the process at once, because a part without which it cannot work has ended.

        Otherwise the process would look healthy, and its threads would take messages for ever. The
        watchdog of another process recovers the agents, and the process manager starts a new
        process.
        """
        try:
            last_words = threading.Thread(target=self._say_last_words, args=(part,), daemon=True)
            last_words.start()
            # A blocked thread may keep a lock of the log.
            last_words.join(LAST_WORDS_S)
        except BaseException:  # noqa: BLE001  the process may have no more threads
            os.write(STDERR, f"worker_cannot_work: {part}\n".encode())
        finally:
            # sys.exit() would only end this thread, and the other threads wait for ever.
            os._exit(1)

    def _say_last_words(self, part: str) -> None:
        log.critical("worker_cannot_work", worker=self.worker, ended=part)
        sys.stdout.flush()
        sys.stderr.flush()

    def _loop_blocked(self) -> None:
        """End the process, and show first where each of its threads stands."""
        try:
            faulthandler.dump_traceback(file=STDERR)
        finally:
            self._end_process("event loop or its threads, which do not answer")

    async def _close(self) -> None:
        self._closing = True
        self._watch.stop()
        faulthandler.cancel_dump_traceback_later()
        while pending := [task for task in self._background if not task.done()]:
            # Cancel repeatedly, because redis-py may swallow a cancellation that arrives together
            # with an answer.
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=CANCEL_STEP_S)
        await self._publisher.close()
        self._heartbeat.stop()
        self._backends.flower_events.stop()
        self._backends.metrics.stop()
        await self._parts.close()
        await self._platform.close()


def _watch_lock() -> None:
    """Let a thread of faulthandler, which needs no lock, end this process after LOCKED_S."""
    faulthandler.dump_traceback_later(LOCKED_S, exit=True, file=STDERR)

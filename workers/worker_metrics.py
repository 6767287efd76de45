"""What a worker process counts, and where Prometheus reads it."""

import contextlib
import errno
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from threading import Thread
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.policies import MonitorConfig
from app.storage.group_commit import Delay, GroupCommit, Statement
from app.storage.records import CallRecord, Ending, Record
from app.telemetry.metrics import WorkerInstruments
from workers.jobs import Job

#: So many ports from the first are tried: one for each worker of a machine.
PORTS = 100

log = structlog.get_logger(__name__)


class MeteredRecords(GroupCommit[Record, bool]):
    """Group commit of records that counts their calls, whoever writes them, once they are booked.

    Args:
        metrics: Counts.
        engine: As for GroupCommit.
        execute: As for GroupCommit.
        key: As for GroupCommit.
        delay_s: As for GroupCommit.
    """

    def __init__(
        self,
        metrics: "WorkerMetrics",
        engine: AsyncEngine,
        execute: Statement[Record, bool],
        *,
        key: Callable[[Record], Hashable] | None,
        delay_s: Delay,
    ) -> None:
        super().__init__(engine, execute, name="record", key=key, delay_s=delay_s)
        self._metrics = metrics

    async def submit(self, item: Record) -> bool:
        """See GroupCommit; what is fenced has booked its money all the same."""
        accepted = await super().submit(item)
        self._metrics.booked(item.calls)
        return accepted


class WorkerMetrics:
    """Counts attempts, calls, tokens and dollars of this process.

    Args:
        config: Whether to count, and where to show it.
    """

    def __init__(self, config: MonitorConfig) -> None:
        self._config = config
        self._metrics = WorkerInstruments(CollectorRegistry())
        self._server: tuple[WSGIServer, Thread] | None = None

    @property
    def registry(self) -> CollectorRegistry:
        """Where the metrics are kept."""
        return self._metrics.registry

    @property
    def port(self) -> int | None:
        """Where they are served; None where they are not."""
        return None if self._server is None else self._server[0].server_port

    def start(self) -> None:
        """Serve ``/metrics``, if the configuration says so."""
        first, host = self._config.metrics_port, self._config.metrics_host
        if first is None or not self._config.enable_metrics:
            return
        for port in range(first, first + PORTS):
            try:
                self._server = start_http_server(port, host, self._metrics.registry)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    log.exception("metrics_not_served", host=host, port=port)
                    return
            else:
                log.info("metrics_served", host=host, port=port)
                return
        log.error("metrics_not_served", host=host, first_port=first, error="all ports are taken")

    def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join()

    @contextlib.contextmanager
    def running(self, job: Job) -> Iterator[None]:
        """An attempt is under way."""
        gauge = self._metrics.in_flight.labels(job.agent.provider)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def ended(self, job: Job, ending: Ending) -> None:
        """An attempt has ended and is recorded."""
        if not self._config.enable_metrics:
            return
        agent, metrics = job.agent, self._metrics
        metrics.attempts.labels(agent.provider, agent.module, _outcome(ending)).inc()
        metrics.attempt_seconds.labels(agent.provider).observe(time.time() - job.started_at)
        for reason, seconds in job.waits.by_reason_s.items():
            metrics.wait_seconds.labels(agent.provider, reason).observe(seconds)
        if job.clock.first_token_s is not None:
            model = metrics.first_token_seconds.labels(agent.provider, agent.model)
            model.observe(job.clock.first_token_s)

    def booked(self, calls: Sequence[CallRecord]) -> None:
        """Calls have been written to the ledger."""
        if not self._config.enable_metrics:
            return
        for call in calls:
            if call.kind not in ("void", "cached"):
                self._count_call(call)

    def watch_dropped(self, dropped: Callable[[], float]) -> None:
        """Show how many task events have been dropped so far."""
        self._metrics.events_dropped.set_function(dropped)

    def _count_call(self, call: CallRecord) -> None:
        metrics, who = self._metrics, (call.provider, call.model)
        metrics.calls.labels(*who, call.outcome).inc()
        if call.seconds is not None:
            metrics.call_seconds.labels(*who).observe(call.seconds)
        metrics.cost_usd.labels(*who, call.module, call.kind).inc(max(float(call.cost_usd), 0.0))
        metrics.tokens.labels(*who, "input").inc(call.usage.prompt_tokens)
        metrics.tokens.labels(*who, "output").inc(call.usage.output_tokens)


def _outcome(ending: Ending) -> str:
    """What became of an attempt: a failure by its kind, else the outcome of its row."""
    if ending.retry:
        return "retried"
    return str(ending.status) if ending.status.is_failure else ending.outcome

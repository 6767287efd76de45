"""The metrics of a worker process, and the server from which Prometheus reads them."""

import contextlib
import errno
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from threading import Thread
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import CollectorRegistry, start_http_server

from app.domain.plain_text import shown_line
from app.domain.policies import MonitorConfig
from app.outbound.own_hosts import own_hosts_only_wsgi
from app.storage.records import CallRecord, Ending
from app.telemetry.metrics import WorkerInstruments
from workers.jobs import Job

#: Number of ports that are tried, from the first port on; each worker of a machine takes one port.
PORTS = 100

log = structlog.get_logger(__name__)


class WorkerMetrics:
    """Counts attempts, calls, tokens and dollars of this process.

    Its weakness: the counters begin at 0 with each process. Exact sums are in the ledger
    (``agentchord costs``).

    Args:
        config: Whether metrics are counted, and the address at which the metrics are served.

    Example:
        metrics = WorkerMetrics(settings.monitoring)
        metrics.start()
        with metrics.running(job):
            ...
        metrics.ended(job, ending)
    """

    def __init__(self, config: MonitorConfig) -> None:
        self._config = config
        self._metrics = WorkerInstruments(CollectorRegistry())
        self._server: tuple[WSGIServer, Thread] | None = None

    @property
    def registry(self) -> CollectorRegistry:
        """The registry of the metrics."""
        return self._metrics.registry

    @property
    def port(self) -> int | None:
        """The port on which the metrics are served; None if the metrics are not served."""
        return None if self._server is None else self._server[0].server_port

    def start(self) -> None:
        """Serve ``/metrics``, if the configuration says so."""
        first, host = self._config.metrics_port, self._config.metrics_host
        if first is None or not self._config.enable_metrics:
            return
        for port in range(first, first + PORTS):
            try:
                self._server = start_http_server(port, host, self._metrics.registry)
                guarded = own_hosts_only_wsgi(self._server[0].get_app(), self._config.allowed_hosts)
                self._server[0].set_app(guarded)
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
        """Count an attempt as in progress inside the block."""
        gauge = self._metrics.in_flight.labels(job.agent.provider)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def ended(self, job: Job, ending: Ending) -> None:
        """Count an attempt that has ended and is recorded."""
        if not self._config.enable_metrics:
            return
        agent, metrics = job.agent, self._metrics
        metrics.attempts.labels(agent.provider, _label(agent.module), _outcome(ending)).inc()
        metrics.attempt_seconds.labels(agent.provider).observe(time.time() - job.started_at)
        for reason, seconds in job.waits.by_reason_s.items():
            metrics.wait_seconds.labels(agent.provider, reason).observe(seconds)
        if job.clock.first_token_s is not None:
            model = metrics.first_token_seconds.labels(agent.provider, _label(agent.model))
            model.observe(job.clock.first_token_s)

    def booked(self, calls: Sequence[CallRecord]) -> None:
        """Count calls that are written to the ledger."""
        if not self._config.enable_metrics:
            return
        for call in calls:
            if call.kind not in ("void", "cached"):
                self._count_call(call)

    def watch_dropped(self, dropped: Callable[[], float]) -> None:
        """Show the number of task events that were dropped so far."""
        self._metrics.events_dropped.set_function(dropped)

    def _count_call(self, call: CallRecord) -> None:
        metrics, model = self._metrics, (call.provider, _label(call.model))
        metrics.calls.labels(*model, call.outcome).inc()
        if call.seconds is not None:
            metrics.call_seconds.labels(*model).observe(call.seconds)
        purpose = *model, _label(call.module), call.kind
        metrics.cost_usd.labels(*purpose).inc(max(float(call.cost_usd), 0.0))
        metrics.tokens.labels(*model, "input").inc(call.usage.prompt_tokens)
        metrics.tokens.labels(*model, "output").inc(call.usage.output_tokens)


#: A name as the value of a label; there are few names, and each call has several.
_label = lru_cache(maxsize=4096)(shown_line)


def _outcome(ending: Ending) -> str:
    """Return ``retried`` after a retry, the status after a failure, else the stored outcome."""
    if ending.retry:
        return "retried"
    return str(ending.status) if ending.status.is_failure else ending.outcome

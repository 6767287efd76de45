"""The exporter: a web server that gives the cluster's state to Prometheus."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.domain.plain_text import shown_line
from app.errors import AgentChordError
from app.monitoring.cluster import Sample
from app.outbound.own_hosts import own_hosts_only
from app.telemetry import metrics
from app.telemetry.metrics import ClusterMetric

#: A function that reads a part of the cluster's state, and can raise an AgentChordError.
Reader = Callable[[], Awaitable[Sequence[Sample]]]
#: A reading that takes more seconds than this is stopped, because Prometheus asks again.
READ_S = 8.0
TOTAL = "_total"

log = structlog.get_logger(__name__)


class Exporter:
    """Serves ``/metrics``, with the state at the time of the request, and ``/healthz``.

    Each request reads Postgres and Redis. So only one Prometheus server should scrape the exporter,
    at most once every 10 s. The exporter does not count durations and waits, because the workers
    count durations and waits.

    Args:
        readers: A function for each service, by the service's name; the function reads the samples
            of this service.
        allowed_hosts: Names, besides local names, under which the exporter may be asked.

    Example:
        exporter = Exporter({"postgres": read_postgres, "redis": read_redis})
        web.run_app(exporter.application(), host="127.0.0.1", port=9464)
    """

    def __init__(self, readers: Mapping[str, Reader], *, allowed_hosts: Sequence[str] = ()) -> None:
        self._readers = readers
        self._allowed_hosts = allowed_hosts

    def application(self) -> web.Application:
        """Make the web application."""
        application = web.Application(middlewares=[own_hosts_only(self._allowed_hosts)])
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", _healthz)
        return application

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(registry_of(await self.read()))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def read(self) -> list[Sample]:
        """Read all services; SERVICE_UP is 0 for a service that does not answer."""
        answers = await asyncio.gather(
            *(self._read(name, reader) for name, reader in self._readers.items())
        )
        return [sample for samples in answers for sample in samples]

    async def _read(self, name: str, reader: Reader) -> list[Sample]:
        try:
            async with asyncio.timeout(READ_S):
                return [*await reader(), (metrics.SERVICE_UP, (name,), 1.0)]
        except (AgentChordError, TimeoutError) as error:
            log.warning("reading_failed", service=name, error=str(error) or "too slow")
            return [(metrics.SERVICE_UP, (name,), 0.0)]


def registry_of(samples: Iterable[Sample]) -> CollectorRegistry:
    """Put samples into the form that prometheus_client prints."""
    registry = CollectorRegistry()
    registry.register(_Reading(samples))
    return registry


class _Reading(Collector):
    def __init__(self, samples: Iterable[Sample]) -> None:
        self._families: dict[ClusterMetric, Metric] = {}
        for metric, labels, value in samples:
            family = self._families.get(metric)
            if family is None:
                family = self._families[metric] = _family(metric)
            family.add_metric([shown_line(each) for each in labels], value)  # type: ignore[attr-defined]

    def collect(self) -> Iterable[Metric]:
        return self._families.values()


def _family(metric: ClusterMetric) -> Metric:
    if metric.name.endswith(TOTAL):
        name = metric.name.removesuffix(TOTAL)
        return CounterMetricFamily(name, metric.help, labels=metric.labels)
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")

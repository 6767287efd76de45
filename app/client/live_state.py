"""The current state of the cluster in Redis and in the tables, for people and for Prometheus."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import Platform
from app.celery import SCHEDULER_QUEUE
from app.errors import ServiceUnavailable
from app.failures.circuit_redis import RedisCircuits
from app.monitoring.cluster import (
    Sample,
    circuit_samples,
    limit_samples,
    read_cluster,
    with_zeros,
)
from app.rate_limits.backends.redis import RedisBackend
from app.scheduler.watchdog import LOOKED_KEY, LOOKED_MS
from app.telemetry import metrics

Step = Callable[[AsyncConnection], Awaitable[list[Sample]]]
#: A function that runs a step in a transaction of its own and raises the errors of this package.
Transaction = Callable[[Step], Awaitable[list[Sample]]]

#: Maximum number of seconds to wait for Redis; a frozen or unreachable Redis never answers.
ANSWER_S = 3.0


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(ANSWER_S):
            yield
    except TimeoutError as error:
        raise ServiceUnavailable(
            f"Redis cannot be reached: no answer within {ANSWER_S:g} s"
        ) from error


class LiveState:
    """The live state of the cluster.

    Args:
        platform: The process's platform.
        transaction: A function that runs a step that reads from Postgres.
    """

    def __init__(self, platform: Platform, transaction: Transaction) -> None:
        self._platform = platform
        self._transaction = transaction

    async def buckets(self) -> list[dict[str, Any]]:
        """Return the buckets in use, in the form of ``ClusterLimiter.snapshot``.

        Raises:
            ServiceUnavailable: If Redis cannot be reached.
        """
        async with _in_time():
            return await RedisBackend(self._platform.redis).snapshot()

    async def circuits(self) -> list[dict[str, Any]]:
        """Return the circuit breakers that have counted failures lately.

        Returns:
            One dict for each circuit breaker, with these keys:

            - ``provider``, ``model`` and ``state``,
            - ``wait_s``: seconds until the next trial call, or until a trial call in flight counts
              as lost,
            - ``opening``: number of times that the circuit has opened,
            - ``ok``: number of calls in the window that succeeded,
            - ``bad``: number of calls in the window that failed.

        Raises:
            ServiceUnavailable: If Redis cannot be reached.
        """
        circuits = RedisCircuits(self._platform.redis, self._platform.settings.circuit_breaker)
        found = []
        async with _in_time():
            for name in await circuits.names():
                view = await circuits.exchange(name, None)
                provider, _, model = name.partition("/")
                shown = asdict(view)
                del shown["granted"], shown["change"], shown["at"]
                found.append({"provider": provider, "model": model} | shown)
        return found

    async def backlogs(self) -> dict[str, int]:
        """Return the number of waiting messages in each queue.

        Raises:
            ServiceUnavailable: If Redis cannot be reached.
        """
        try:
            return {
                queue: await self._platform.dispatcher.backlog(queue)
                for queue in (*self._platform.settings.agent_queues, SCHEDULER_QUEUE)
            }
        except (RedisError, OSError) as error:
            raise ServiceUnavailable(f"Redis cannot be reached: {error}") from error

    async def watchdog_silent_s(self) -> float:
        """Return the seconds since the last pass of a watchdog, at most ten minutes.

        Raises:
            ServiceUnavailable: If Redis cannot be reached.
        """
        try:
            left_ms = await self._platform.redis.pttl(LOOKED_KEY)
        except (RedisError, OSError) as error:
            raise ServiceUnavailable(f"Redis cannot be reached: {error}") from error
        return (LOOKED_MS - max(left_ms, 0)) / 1000

    async def from_postgres(self) -> Sequence[Sample]:
        """Read the metrics from the tables."""
        found = await self._transaction(read_cluster)
        queues = self._platform.settings.agent_queues
        return with_zeros(found, metrics.AGENTS_ADMISSIBLE, queues)

    async def from_redis(self) -> Sequence[Sample]:
        """Read the metrics from Redis."""
        backlogs = await self.backlogs()
        return [
            *((metrics.QUEUE_MESSAGES, (queue,), float(n)) for queue, n in backlogs.items()),
            *limit_samples(await self.buckets()),
            *circuit_samples(await self.circuits()),
            (metrics.WATCHDOG_SILENT, (), await self.watchdog_silent_s()),
        ]

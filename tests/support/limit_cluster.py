"""Limiters of several processes, on one backend whose clock can be moved."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from redis.asyncio import Redis

from app.domain.policies import RateLimitConfig
from app.domain.protocols import PROTOCOLS
from app.rate_limits.backends.memory import MemoryBackend
from app.rate_limits.backends.redis import RedisBackend
from app.rate_limits.base import LimiterBackend, LimitRequest, Permit
from app.rate_limits.limiter import ClusterLimiter, Resolve
from app.rate_limits.link import RecentUse

UNLIMITED: dict[str, Any] = dict.fromkeys(
    (
        "requests_per_minute",
        "requests_per_hour",
        "requests_per_day",
        "tokens_per_minute",
        "concurrent_requests",
    )
)


def limits(**given: Any) -> RateLimitConfig:
    """Return limits with only the given tiers."""
    return RateLimitConfig(**UNLIMITED | given)


def request(**given: Any) -> LimitRequest:
    """Return a small request of one run."""
    values: dict[str, Any] = {
        "provider": "acme",
        "model": "m",
        "counting": PROTOCOLS["anthropic"].counting,
        "run_id": "run",
        "input_tokens": 10,
        "output_tokens": 0,
    }
    return LimitRequest(**values | given)


class Backends(Protocol):
    """Makes the backend of each process, and can delete everything, like FLUSHALL."""

    def backend(self) -> LimiterBackend: ...

    async def flush(self) -> None: ...


@dataclass(kw_only=True)
class LimitCluster:
    """Limiters that share their buckets.

    Attributes:
        backends: The backends with the buckets.
        shift_s: Seconds by which the backend's clock is ahead.
    """

    backends: Backends
    limiters: list[ClusterLimiter] = field(default_factory=list)

    def limiter(
        self,
        config: RateLimitConfig | None = None,
        *,
        resolve: Resolve | None = None,
        recent_use: RecentUse | None = None,
        cautious: bool = False,
    ) -> ClusterLimiter:
        """Return the limiter of one more process."""
        chosen = resolve or (lambda provider, _: (f"{provider}/default", config or limits()))
        limiter = ClusterLimiter(
            self.backends.backend(), chosen, recent_use=recent_use, cautious=cautious
        )
        self.limiters.append(limiter)
        return limiter

    async def close(self) -> None:
        """End all processes."""
        for limiter in self.limiters:
            await limiter.close()


class MovableClock:
    """A clock that can be ahead of the real time."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


class InMemory:
    """The backends in memory, which are all one object."""

    def __init__(self, clock: MovableClock) -> None:
        self._backend = MemoryBackend(clock=clock)

    def backend(self) -> LimiterBackend:
        return self._backend

    async def flush(self) -> None:
        self._backend.flush()


class InRedis:
    """The backends on one Redis."""

    def __init__(self, redis: Redis, clock: MovableClock) -> None:
        self._redis = redis
        self._clock = clock

    def backend(self) -> LimiterBackend:
        return RedisBackend(self._redis, clock=self._clock)

    async def flush(self) -> None:
        await self._redis.flushdb()


@asynccontextmanager
async def open_cluster(
    backend: str, redis_url: str, clock: MovableClock
) -> AsyncIterator[LimitCluster]:
    """Open a cluster whose buckets are in ``memory`` or in ``redis``."""
    async with Redis.from_url(redis_url) as redis:
        cluster = LimitCluster(
            backends=InMemory(clock) if backend == "memory" else InRedis(redis, clock)
        )
        yield cluster
        await cluster.close()


async def take(limiter: ClusterLimiter, count: int, **given: Any) -> list[Permit]:
    """Ask for permits at the same time, and return them in the order of the requests."""
    return list(await asyncio.gather(*(limiter.acquire(request(**given)) for _ in range(count))))


async def timed(step: Awaitable[Any]) -> float:
    """Return the seconds that a step takes."""
    started_s = time.monotonic()
    await step
    return time.monotonic() - started_s


async def level(limiter: ClusterLimiter, tier: str = "requests") -> float:
    """Return the level of a tier of the only bucket in use."""
    (bucket,) = await limiter.snapshot()
    return next(float(shown["level"]) for shown in bucket["tiers"] if shown["tier"] == tier)

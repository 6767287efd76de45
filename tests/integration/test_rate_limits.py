"""The cluster's limiter, on Redis and in memory: two limiters stand for two worker processes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

import pytest
from redis.asyncio import Redis

from app.domain.policies import RateLimitConfig
from app.domain.usage import Usage
from app.rate_limits.base import LimiterBackend, LimitRequest
from app.rate_limits.limiter import ClusterLimiter
from app.rate_limits.memory import MemoryBackend
from app.rate_limits.redis import RedisBackend
from app.storage.redis import connect_redis

pytestmark = pytest.mark.anyio

UNLIMITED: dict[str, Any] = {
    "requests_per_minute": None,
    "requests_per_hour": None,
    "requests_per_day": None,
    "tokens_per_minute": None,
    "concurrent_requests": None,
}
Backends = Callable[[], LimiterBackend]


def limits(**values: Any) -> RateLimitConfig:
    return RateLimitConfig(**UNLIMITED | values)


def request(input_tokens: int = 0, run_id: str = "r") -> LimitRequest:
    return LimitRequest(
        provider="openai", model="m", run_id=run_id, input_tokens=input_tokens, output_tokens=0
    )


@pytest.fixture
async def redis(redis_url: str, anyio_backend: str) -> AsyncIterator[Redis]:
    client = connect_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture(params=["redis", "memory"])
def backends(request: pytest.FixtureRequest, redis: Redis) -> Backends:
    """Makes the backend of one more process on the same buckets."""
    if request.param == "redis":
        return lambda: RedisBackend(redis)
    shared = MemoryBackend()
    return lambda: shared


@asynccontextmanager
async def limiter(backends: Backends, config: RateLimitConfig) -> AsyncIterator[ClusterLimiter]:
    made = ClusterLimiter(backends(), lambda provider, _: (f"{provider}/default", config))
    yield made
    await made.close()


async def times(limiter: ClusterLimiter, count: int, run_id: str = "r") -> list[float]:
    """Seconds at which each of several calls may start, all asked for at once."""
    loop = asyncio.get_running_loop()
    started_s = loop.time()

    async def one() -> float:
        permit = await limiter.acquire(request(run_id=run_id))
        limiter.settle(permit, usage=None)
        return loop.time() - started_s

    return sorted(await asyncio.gather(*(one() for _ in range(count))))


async def test_a_wide_open_limit_makes_nobody_wait(backends: Backends) -> None:
    config = limits(requests_per_minute=600_000, burst=10_000, concurrent_requests=1000)
    async with limiter(backends, config) as one:
        await times(one, 1)

        started = await times(one, 300)

        assert started[-1] < 1.0
        assert one.get_statistics()["exchanges"] < 30


async def test_two_processes_keep_one_rate_and_use_it(backends: Backends) -> None:
    config = limits(requests_per_minute=3000, burst=10)
    async with limiter(backends, config) as one, limiter(backends, config) as two:
        sent = sorted(chain(*await asyncio.gather(times(one, 60), times(two, 60))))

    used = (120 - 10) / (50 * (sent[-1] - sent[0]))
    assert 0.7 <= used <= 1.02


async def test_tokens_are_limited_and_the_unused_part_comes_back(backends: Backends) -> None:
    async with limiter(backends, limits(input_tokens_per_minute=6000)) as one:
        first = await one.acquire(request(6000), timeout_s=5)
        with pytest.raises(TimeoutError):
            await one.acquire(request(3000), timeout_s=0.3)

        one.settle(first, usage=Usage(input_tokens=100))
        await one.flush()

        await one.acquire(request(3000), timeout_s=5)


async def test_a_timed_out_or_cancelled_waiter_leaves_nothing_behind(backends: Backends) -> None:
    async with limiter(backends, limits(concurrent_requests=1)) as one:
        held = await one.acquire(request())
        with pytest.raises(TimeoutError):
            await one.acquire(request(), timeout_s=0.1)
        waiting = asyncio.create_task(one.acquire(request()))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])

        one.settle(held, usage=None)
        again = await one.acquire(request(), timeout_s=5)

        assert waiting.cancelled()
        assert again.request_id != held.request_id
        assert one.get_statistics()["waiting"] == 0


async def test_concurrent_requests_are_counted_over_all_processes(backends: Backends) -> None:
    config = limits(concurrent_requests=2)
    async with limiter(backends, config) as one, limiter(backends, config) as two:
        held = [await one.acquire(request()), await two.acquire(request())]
        with pytest.raises(TimeoutError):
            await two.acquire(request(), timeout_s=0.2)

        one.settle(held[0], usage=None)

        await two.acquire(request(), timeout_s=5)


async def test_a_429_pauses_everybody(backends: Backends) -> None:
    config = limits(requests_per_minute=60_000, burst=100)
    async with limiter(backends, config) as one, limiter(backends, config) as two:
        await times(two, 1)
        refused = [await one.acquire(request()) for _ in range(3)]
        for permit in refused:
            one.settle(permit, usage=None, throttled=True, retry_after_s=0.5)
        await one.flush()

        (waited_s,) = await times(two, 1)

    assert 0.3 <= waited_s < 3.0


async def test_a_small_run_behind_a_large_one_is_served_in_turn(backends: Backends) -> None:
    async with limiter(backends, limits(requests_per_minute=1200, burst=1)) as one:
        large = asyncio.create_task(times(one, 200, "large"))
        await times(one, 1, "first")

        small = await times(one, 3, "small")
        large.cancel()
        await asyncio.wait([large])

    assert small[-1] < 3 * 3 / 20


async def test_a_flushed_redis_allows_no_second_burst_and_stops_nothing(redis: Redis) -> None:
    config = limits(requests_per_minute=600, burst=10)
    async with limiter(lambda: RedisBackend(redis), config) as one:
        await times(one, 10)
        await one.flush()

        await redis.flushdb()
        sent = await times(one, 5)

    assert sent[-1] >= 0.25

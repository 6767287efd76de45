"""Permits per second of one process, and the memory of a bucket in Redis."""

import asyncio
import time
from dataclasses import dataclass

import uvloop
from redis.asyncio import Redis

from app.domain.policies import RateLimitConfig
from app.domain.protocols import PROTOCOLS
from app.domain.usage import Usage
from app.rate_limits.base import LimitRequest
from app.rate_limits.limiter import ClusterLimiter
from app.storage.redis import connect_redis

# All tiers are set, and none is reached.
WIDE = RateLimitConfig(
    requests_per_minute=100_000_000,
    requests_per_hour=1_000_000_000,
    requests_per_day=10_000_000_000,
    tokens_per_minute=10_000_000_000,
    concurrent_requests=100_000,
    burst=1_000_000,
)
NARROW = RateLimitConfig(requests_per_minute=1, burst=1)
REQUEST = LimitRequest(
    provider="openai",
    model="gpt-4o",
    counting=PROTOCOLS["openai"].counting,
    run_id="a run",
    input_tokens=10,
    output_tokens=10,
)
USAGE = Usage(input_tokens=10, output_tokens=5)
BUCKET = "openai/default"


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The measurement of one process.

    Attributes:
        at_once: Calls under way at once.
        per_s: Permits acquired and settled a second.
        round_trips: Script calls for each.
        cpu_us: CPU of the process for each, in microseconds.
    """

    at_once: int
    per_s: float
    round_trips: float
    cpu_us: float


def measure_speed(redis_url: str, *, at_once: int, permits: int) -> Speed:
    """Acquire and settle this number of permits."""
    return uvloop.run(_speed(redis_url, at_once, permits))


def measure_memory(redis_url: str, *, waiting: int) -> int:
    """Measure a bucket's bytes in Redis while this number of requests wait for it."""
    return uvloop.run(_memory(redis_url, waiting))


async def _speed(redis_url: str, at_once: int, permits: int) -> Speed:
    redis = connect_redis(redis_url)
    limiter = ClusterLimiter(redis, lambda *_: (BUCKET, WIDE))

    async def take(count: int) -> None:
        for _ in range(count):
            permit = await limiter.acquire(REQUEST)
            limiter.settle(permit, usage=USAGE)

    await take(1)  # connected, and the script is loaded
    await limiter.flush()
    exchanges = limiter.get_statistics()["exchanges"]
    began_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(take(permits // at_once) for _ in range(at_once)))
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    exchanges = limiter.get_statistics()["exchanges"] - exchanges
    await limiter.close()
    await redis.aclose()
    return Speed(
        at_once=at_once,
        per_s=permits / took_s,
        round_trips=exchanges / permits,
        cpu_us=cpu_s / permits * 1e6,
    )


async def _memory(redis_url: str, waiting: int) -> int:
    redis: Redis = connect_redis(redis_url)
    await redis.flushdb()
    limiter = ClusterLimiter(redis, lambda *_: (BUCKET, NARROW))
    await limiter.acquire(REQUEST)
    waiters = [asyncio.create_task(limiter.acquire(REQUEST)) for _ in range(waiting)]
    await asyncio.sleep(0)  # all of them are in the queue
    await limiter.flush()
    used = [await redis.memory_usage(key) or 0 async for key in redis.scan_iter()]
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    await limiter.close()
    await redis.aclose()
    return sum(used)

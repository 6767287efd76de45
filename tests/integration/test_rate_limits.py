"""The cluster's limiter on a real Redis: two limiters stand for two worker processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from app.domain.policies import RateLimitConfig
from app.domain.usage import Usage
from app.rate_limits.base import LimitRequest, Permit, Settlement
from app.rate_limits.limiter import ClusterLimiter
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
REQUEST = LimitRequest(provider="openai", model="m", run_id="r")


def limits(**values: Any) -> RateLimitConfig:
    return RateLimitConfig(**UNLIMITED | values)


@pytest.fixture
async def redis(redis_url: str, anyio_backend: str) -> AsyncIterator[Redis]:
    client = connect_redis(redis_url)
    yield client
    await client.aclose()


@asynccontextmanager
async def limiter(
    redis: Redis, config: RateLimitConfig, process: str = "p1"
) -> AsyncIterator[ClusterLimiter]:
    backend = RedisBackend(redis, process)
    made = ClusterLimiter(backend, lambda provider, _: (f"{provider}/default", config))
    yield made
    await made.close()


async def times(
    limiter: ClusterLimiter, count: int, request: LimitRequest = REQUEST
) -> list[float]:
    """Seconds at which each of several calls may be sent, all asked for at once."""
    started_s = asyncio.get_running_loop().time()

    async def one() -> float:
        permit = await limiter.acquire(request)
        await limiter.start(permit)
        limiter.settle(permit, usage=None)
        return asyncio.get_running_loop().time() - started_s

    return sorted(await asyncio.gather(*(one() for _ in range(count))))


async def test_a_wide_open_limit_grants_hundreds_in_a_few_calls(redis: Redis) -> None:
    config = limits(requests_per_minute=600_000, burst=10_000, concurrent_requests=1000)
    async with limiter(redis, config) as one:
        await one.flush()
        before = (await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]

        await times(one, 300)
        await one.flush()

        after = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert after - before <= 15


async def test_two_processes_keep_one_rate_and_use_it(redis: Redis) -> None:
    config = limits(requests_per_minute=6000, burst=10)
    async with limiter(redis, config, "p1") as one, limiter(redis, config, "p2") as two:
        sent = sorted(sum(await asyncio.gather(times(one, 60), times(two, 60)), []))

    used = (120 - 10) / (100 * (sent[-1] - sent[0]))
    assert 0.85 <= used <= 1.0


async def test_tokens_are_limited_and_the_unused_part_comes_back(redis: Redis) -> None:
    config = limits(tokens_per_minute=60_000)
    request = LimitRequest(provider="openai", model="m", input_tokens=500, output_tokens=500)
    async with limiter(redis, config) as one:
        first = await one.acquire(request, timeout_s=1)
        with pytest.raises(TimeoutError):
            await one.acquire(request, timeout_s=0.2)
        one.settle(first, usage=Usage(input_tokens=50, output_tokens=0))
        await one.flush()

        second = await one.acquire(request, timeout_s=0.5)

    assert second.id != first.id


async def test_a_timed_out_or_cancelled_waiter_leaves_nothing_behind(redis: Redis) -> None:
    config = limits(concurrent_requests=1)
    async with limiter(redis, config) as one:
        held = await one.acquire(REQUEST)
        with pytest.raises(TimeoutError):
            await one.acquire(REQUEST, timeout_s=0.1)
        waiting = asyncio.create_task(one.acquire(REQUEST))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait([waiting])

        one.settle(held, usage=None)
        again = await one.acquire(REQUEST, timeout_s=1)
        one.settle(again, usage=None)
        await one.flush()

        assert await redis.zcard("agentchord:limit:{openai/default}:permits") == 0
        assert one.get_statistics()["waiting"] == {"openai/default": 0}


async def test_the_slots_of_a_dead_process_return_by_themselves(redis: Redis) -> None:
    config = limits(concurrent_requests=1)
    key = "agentchord:limit:{openai/default}:permits"
    async with limiter(redis, config, "dead") as dead, limiter(redis, config, "alive") as alive:
        permit = await dead.acquire(REQUEST)
        (_, until_ms), *_ = await redis.zrange(key, 0, -1, withscores=True)
        seconds, _ = await redis.time()

        await redis.zadd(key, {permit.id: seconds * 1000 - 1})  # its 15 s are over
        taken = await alive.acquire(REQUEST, timeout_s=1)

    assert 13_000 < until_ms - seconds * 1000 <= 16_500
    assert taken.id != permit.id


async def test_renewing_keeps_the_slots_of_calls_that_take_long(redis: Redis) -> None:
    key = "agentchord:limit:{openai/default}:permits"
    async with limiter(redis, limits(concurrent_requests=1)) as one:
        permit = await one.acquire(REQUEST)
        await redis.zadd(key, {permit.id: 1.0})

        await one.renew()

        score = await redis.zscore(key, permit.id)
    assert score is not None
    assert score > 1.0


async def test_a_429_pauses_everybody_once(redis: Redis) -> None:
    config = limits(requests_per_minute=60_000, burst=100)
    async with limiter(redis, config, "p1") as one, limiter(redis, config, "p2") as two:
        refused = [await one.acquire(REQUEST) for _ in range(3)]
        for permit in refused:
            one.settle(permit, usage=None, throttled=True, retry_after_s=0.4)
        await one.flush()

        (waited_s,) = await times(two, 1)

    assert 0.3 <= waited_s < 1.0


async def test_headers_lower_the_level_but_never_raise_it(redis: Redis) -> None:
    config = limits(requests_per_minute=60, burst=20)
    headers = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0"}
    async with limiter(redis, config) as one:
        one.settle(await one.acquire(REQUEST), usage=None, headers=headers)
        await one.flush()
        with pytest.raises(TimeoutError):
            await one.acquire(REQUEST, timeout_s=0.3)


async def test_a_flushed_redis_allows_no_second_burst(redis: Redis) -> None:
    config = limits(requests_per_minute=600, burst=10)
    async with limiter(redis, config) as one:
        await times(one, 5)
        await one.flush()

        await redis.flushdb()
        sent = await times(one, 3)

    assert sent[-1] >= 0.2


async def test_a_repeated_command_grants_once(redis: Redis) -> None:
    config = limits(requests_per_minute=60, burst=6, concurrent_requests=5)
    backend = RedisBackend(redis, "p1")

    first = await backend.acquire("b", config, [("id-1", REQUEST)])
    second = await backend.acquire("b", config, [("id-1", REQUEST)])

    state = await redis.hgetall("agentchord:limit:{b}:state")
    assert len(first.delays_ms) == len(second.delays_ms) == 1
    assert float(state[b"rpm:l"]) == pytest.approx(4.0, abs=0.1)
    assert await redis.zcard("agentchord:limit:{b}:permits") == 1


async def test_settling_twice_gives_back_once(redis: Redis) -> None:
    config = limits(requests_per_minute=60, burst=6)
    backend = RedisBackend(redis, "p1")
    await backend.acquire("b", config, [("id-1", REQUEST)])
    returned = Settlement(permit=Permit(id="id-1", bucket="b", request=REQUEST), returned=True)

    await backend.settle("b", [returned])
    await backend.settle("b", [returned])

    assert float(await redis.hget("agentchord:limit:{b}:state", "rpm:l") or 0) == 5.0


async def test_a_sliding_window_never_holds_more_than_the_limit(redis: Redis) -> None:
    config = limits(requests_per_minute=5, enforcement="window")
    async with limiter(redis, config) as one:
        await times(one, 5)
        with pytest.raises(TimeoutError):
            await one.acquire(REQUEST, timeout_s=0.3)

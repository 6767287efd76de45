"""The laws of every limiter, on both backends; over 400 lines because it is one list of laws."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.domain.policies import RateLimitConfig
from app.domain.protocols import PROTOCOLS
from app.domain.usage import Usage
from app.rate_limits.backends.redis import RedisBackend
from app.rate_limits.base import Exchange, Permit
from app.rate_limits.limiter import ClusterLimiter
from app.rate_limits.tiers import spec_of
from tests.support.limit_cluster import (
    LimitCluster,
    MovableClock,
    level,
    limits,
    open_cluster,
    request,
    take,
    timed,
)
from tests.support.pace import at_this_pace, scaled
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture(params=["memory", "redis"])
async def cluster(
    request: pytest.FixtureRequest, redis_url: str, clock: MovableClock, anyio_backend: str
) -> AsyncIterator[LimitCluster]:
    async with open_cluster(request.param, redis_url, clock) as cluster:
        yield cluster


async def test_a_burst_may_start_at_once_and_the_rest_at_the_rate(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=120, burst=10))

    burst_s = await timed(take(limiter, 8))
    rest_s = await timed(take(limiter, 4))

    assert burst_s < 7 / 2  # the time of eight at the rate
    assert rest_s > 0.9


async def test_processes_share_one_limit(cluster: LimitCluster) -> None:
    config = limits(requests_per_minute=6000, burst=10)
    first, second, third = (cluster.limiter(config) for _ in range(3))

    elapsed_s = await timed(asyncio.gather(take(first, 15), take(second, 15), take(third, 15)))

    assert 0.33 < elapsed_s < at_this_pace(5)


async def test_a_request_takes_from_all_tiers_or_from_none(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=60, burst=50, tokens_per_minute=1000))
    await limiter.acquire(request(input_tokens=900))

    with pytest.raises(TimeoutError, match=r"'acme/default' within 0.1 s"):
        await limiter.acquire(request(input_tokens=500), timeout_s=0.1)
    await limiter.flush()

    assert await level(limiter, "requests") > 46.5
    assert await level(limiter, "tokens") < 150


@pytest.mark.parametrize("tier", ["requests_per_hour", "requests_per_day"])
async def test_hours_and_days_are_limited(cluster: LimitCluster, tier: str) -> None:
    limiter = cluster.limiter(limits(**{tier: 5}))
    await take(limiter, 5)

    with pytest.raises(TimeoutError):
        await limiter.acquire(request(), timeout_s=0.1)


async def test_input_and_output_tokens_are_limited_apart(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(input_tokens_per_minute=1000, output_tokens_per_minute=100))
    await limiter.acquire(request(input_tokens=900, output_tokens=10))

    with pytest.raises(TimeoutError):
        await limiter.acquire(request(input_tokens=10, output_tokens=95), timeout_s=0.1)
    with pytest.raises(TimeoutError):
        await limiter.acquire(request(input_tokens=300, output_tokens=10), timeout_s=0.1)

    await limiter.acquire(request(input_tokens=10, output_tokens=10), timeout_s=scaled(5))


async def test_what_is_larger_than_a_tier_waits_until_it_is_full(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(tokens_per_minute=60_000))

    permit = await limiter.acquire(request(input_tokens=1_000_000), timeout_s=scaled(5))

    assert permit.taken[0] < 60_000
    assert await level(limiter, "tokens") < 5000


async def test_only_so_many_requests_are_in_flight(cluster: LimitCluster) -> None:
    config = limits(concurrent_requests=3)
    here, there = cluster.limiter(config), cluster.limiter(config)
    permits = await take(here, 3)

    waiting = asyncio.create_task(there.acquire(request()))
    with pytest.raises(TimeoutError):
        await here.acquire(request(), timeout_s=0.1)
    here.settle(permits[0], usage=None)

    assert (await asyncio.wait_for(waiting, scaled(5))).bucket == "acme/default"


async def test_slots_of_the_dead_return_and_those_of_the_living_do_not(
    cluster: LimitCluster, clock: MovableClock
) -> None:
    config = limits(concurrent_requests=2)
    dead, alive, other = (cluster.limiter(config) for _ in range(3))
    await dead.acquire(request())
    await alive.acquire(request())

    clock.ahead_s += 10
    await alive.renew()
    await alive.flush()
    clock.ahead_s += 6

    await other.acquire(request(), timeout_s=scaled(5))
    with pytest.raises(TimeoutError):
        await other.acquire(request(), timeout_s=0.2)


async def test_priority_goes_first_within_a_run_then_arrival(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=1200, burst=1))
    served: list[str] = []

    async def ask(name: str, priority: int) -> None:
        await limiter.acquire(request(priority=priority))
        served.append(name)

    await limiter.acquire(request())
    await asyncio.gather(ask("a", 5), ask("b", 1), ask("c", 9), ask("d", 5))

    assert served == ["c", "a", "d", "b"]


@pytest.mark.parametrize("processes", [1, 2])
async def test_runs_share_by_weight(cluster: LimitCluster, processes: int) -> None:
    config = limits(requests_per_minute=6000, burst=1)
    light = cluster.limiter(config)
    heavy = light if processes == 1 else cluster.limiter(config)
    served: list[str] = []

    async def ask(run: str, weight: float) -> None:
        limiter = heavy if run == "heavy" else light
        await limiter.acquire(request(run_id=run, weight=weight))
        served.append(run)

    await asyncio.gather(
        *(ask("light", 1) for _ in range(60)), *(ask("heavy", 3) for _ in range(60))
    )

    # The first few are granted before the other has asked.
    assert 25 <= served[5:45].count("heavy") <= 34


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_small_run_does_not_starve_behind_a_large_one(
    cluster: LimitCluster, processes: int
) -> None:
    config = limits(requests_per_minute=600, burst=10)
    large = cluster.limiter(config)
    small = large if processes == 1 else cluster.limiter(config)
    await take(large, 10, run_id="before")
    alone_s = await timed(take(small, 3, run_id="alone"))

    crowd = [asyncio.create_task(large.acquire(request(run_id="large"))) for _ in range(3000)]
    await wait_until_async(lambda: _waiting(large, 2900))
    behind_s = await timed(take(small, 3, run_id="small"))
    for task in crowd:
        task.cancel()

    # Alone it takes 0.3 s, behind all of the others it would take 300 s.
    assert behind_s < 3 * alone_s


async def _waiting(limiter: ClusterLimiter, least: int) -> bool:
    (bucket,) = await limiter.snapshot()
    return bool(bucket["waiting"] >= least)


async def test_a_timeout_leaves_nothing_behind(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=6, burst=5))
    await take(limiter, 5)

    with pytest.raises(TimeoutError):
        await limiter.acquire(request(), timeout_s=0.15)
    await limiter.flush()
    await wait_until_async(lambda: _idle(limiter))

    assert 0 <= await level(limiter) < 0.5
    assert limiter.get_statistics()["timeouts"] == 1


async def _idle(limiter: ClusterLimiter) -> bool:
    (bucket,) = await limiter.snapshot()
    return bool(bucket["waiting"] == 0 and bucket["in_flight"] == 0)


@pytest.mark.parametrize("steps", range(8))
async def test_cancelling_leaves_nothing_behind_whenever_it_comes(
    cluster: LimitCluster, steps: int
) -> None:
    limiter = cluster.limiter(limits(requests_per_hour=100, concurrent_requests=5))
    tasks = [asyncio.create_task(limiter.acquire(request())) for _ in range(5)]
    for _ in range(steps):
        await asyncio.sleep(0)
    if steps == 7:  # the grant has arrived, the task has not run yet
        await wait_until_async(lambda: _in_flight(limiter, 5))

    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for permit in results:
        if isinstance(permit, Permit):
            limiter.hand_back(permit)
    await limiter.flush()

    if shown := await limiter.snapshot():
        assert (shown[0]["waiting"], shown[0]["in_flight"]) == (0, 0)
        assert shown[0]["tiers"][0]["level"] > 97.9


async def _in_flight(limiter: ClusterLimiter, count: int) -> bool:
    shown = await limiter.snapshot()
    return bool(shown and shown[0]["in_flight"] == count)


async def test_the_real_usage_replaces_the_estimate(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(tokens_per_minute=10_000))
    low, high = await take(limiter, 2, input_tokens=4000, output_tokens=500)

    limiter.settle(low, usage=Usage(input_tokens=400, output_tokens=100))
    limiter.settle(high, usage=Usage(input_tokens=4000, output_tokens=3000))
    await limiter.flush()

    assert await level(limiter, "tokens") == pytest.approx(2490, abs=400)


async def test_settling_twice_changes_nothing(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(tokens_per_minute=10_000, concurrent_requests=1))
    permit = await limiter.acquire(request(input_tokens=5000))

    for _ in range(3):
        limiter.settle(permit, usage=Usage(input_tokens=1000))
        limiter.hand_back(permit)
    await limiter.flush()

    assert await level(limiter, "tokens") == pytest.approx(8990, abs=300)


async def test_an_unused_permit_is_returned_in_full(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(
        limits(requests_per_hour=10, tokens_per_minute=1000, concurrent_requests=1)
    )
    permit = await limiter.acquire(request(input_tokens=1000))

    limiter.hand_back(permit)

    await limiter.acquire(request(input_tokens=900), timeout_s=scaled(5))
    assert await level(limiter, "requests_per_hour") == pytest.approx(9, abs=0.1)


async def test_a_late_call_that_ends_at_once_gives_back_what_it_did_not_use(
    cluster: LimitCluster,
) -> None:
    limiter = cluster.limiter(limits(tokens_per_minute=10_000))
    permits = await asyncio.gather(
        *(limiter.acquire(request(input_tokens=4990), early=True) for _ in range(2))
    )
    used, unused = permits

    await mark_sent(limiter, permits, after_s=0.3)
    limiter.settle(used, usage=Usage(input_tokens=1000))
    limiter.hand_back(unused)
    await limiter.flush()

    assert await level(limiter, "tokens") == pytest.approx(9000, abs=300)


async def test_one_429_pauses_every_process_once(cluster: LimitCluster) -> None:
    config = limits(requests_per_minute=60_000, burst=100)
    here, there = cluster.limiter(config), cluster.limiter(config)
    permits = await take(here, 5)
    await there.acquire(request())

    started_s = time.monotonic()
    for permit in permits:
        here.settle(permit, usage=None, throttled=True, retry_after_s=1)
    await here.flush()
    await asyncio.gather(there.acquire(request()), here.acquire(request()))

    assert 0.98 < time.monotonic() - started_s < at_this_pace(4.9)  # five pauses
    assert here.get_statistics()["throttled"] == 5


async def test_after_a_429_the_rate_grows_gradually(
    cluster: LimitCluster, clock: MovableClock
) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=600, burst=50))
    permit = await limiter.acquire(request())

    limiter.settle(permit, usage=None, retry_after_s=1.0, throttled=True)
    await limiter.flush()
    clock.ahead_s += 1.01
    (just_after,) = await limiter.snapshot()
    clock.ahead_s += 5
    (later,) = await limiter.snapshot()
    clock.ahead_s += 5
    (at_last,) = await limiter.snapshot()

    assert just_after["tiers"][0]["level"] < 10
    assert just_after["ramp"] == pytest.approx(0.5, abs=0.1)
    assert later["ramp"] == pytest.approx(0.75, abs=0.1)
    assert at_last["ramp"] == 1
    assert at_last["tiers"][0]["rate"] == pytest.approx(10, rel=0.01)


async def test_granted_requests_that_have_not_started_wait_for_the_end_of_a_pause(
    cluster: LimitCluster,
) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=1200, burst=1))
    permit = await limiter.acquire(request())
    waiting = asyncio.create_task(limiter.acquire(request()))
    await wait_until_async(lambda: _planned(limiter))

    started_s = time.monotonic()
    limiter.settle(permit, usage=None, throttled=True, retry_after_s=0.3)
    await waiting

    assert time.monotonic() - started_s > 0.28


async def _planned(limiter: ClusterLimiter) -> bool:
    return bool(limiter._buckets["acme/default"]._planned)


async def test_headers_lower_the_limit_and_never_raise_it(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=1200, tokens_per_minute=50_000))
    permit = await limiter.acquire(request())

    limiter.settle(
        permit,
        usage=Usage(input_tokens=10),
        headers={
            "X-RateLimit-Limit-Requests": "600",
            "x-ratelimit-remaining-requests": "599",
            "x-ratelimit-limit-tokens": "90000",
            "x-ratelimit-remaining-tokens": "89000",
        },
    )
    await limiter.flush()
    (bucket,) = await limiter.snapshot()
    requests, tokens = bucket["tiers"]

    assert requests["learned_limit"] == 600
    assert requests["rate"] == pytest.approx(10, rel=0.02)
    assert "learned_limit" not in tokens
    assert tokens["rate"] == pytest.approx(50_000 / 60, rel=0.02)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-limit-requests": "-1", "x-ratelimit-remaining-requests": "-1"},
        {"x-ratelimit-limit-requests": "0", "x-ratelimit-remaining-requests": "0"},
        {"x-ratelimit-limit-requests": "many"},
        {},
    ],
)
async def test_headers_that_say_nothing_are_ignored(
    cluster: LimitCluster, headers: dict[str, str]
) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=600, burst=20))

    for _ in range(3):
        permit = await limiter.acquire(request())
        limiter.settle(permit, usage=Usage(input_tokens=10), headers=headers)
    await limiter.flush()
    (bucket,) = await limiter.snapshot()

    assert "learned_limit" not in bucket["tiers"][0]
    assert bucket["tiers"][0]["level"] > 15


async def test_headers_show_what_others_use_of_the_account(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(tokens_per_minute=600_000))

    for _ in range(40):
        permit = await limiter.acquire(request())
        headers = {
            "x-ratelimit-limit-tokens": "600000",
            "x-ratelimit-remaining-tokens": "100000",
        }
        limiter.settle(permit, usage=Usage(input_tokens=10), headers=headers)
    await limiter.flush()

    assert await level(limiter, "tokens") < 400_000


async def test_changed_limits_keep_the_level(cluster: LimitCluster) -> None:
    config = limits(requests_per_minute=60, burst=20)

    def resolve(provider: str, model: str) -> tuple[str, RateLimitConfig]:
        return provider, config

    limiter = cluster.limiter(resolve=resolve)
    await take(limiter, 15)
    config = limits(requests_per_minute=120, burst=40, requests_per_hour=50)
    await limiter.reconfigure()
    await limiter.flush()
    (bucket,) = await limiter.snapshot()

    assert [shown["tier"] for shown in bucket["tiers"]] == ["requests", "requests_per_hour"]
    assert bucket["tiers"][0]["capacity"] > 39
    assert bucket["tiers"][0]["level"] < 8


async def test_raised_limits_reach_those_who_wait(cluster: LimitCluster) -> None:
    config = limits(tokens_per_minute=1000)
    limiter = cluster.limiter(resolve=lambda provider, _: (provider, config))
    await limiter.acquire(request(input_tokens=1000))
    waiting = asyncio.create_task(limiter.acquire(request(input_tokens=500)))
    await wait_until_async(lambda: _waiting(limiter, 1))

    config = limits(tokens_per_minute=600_000)
    await limiter.reconfigure()

    assert (await asyncio.wait_for(waiting, scaled(5))).spec.tiers[0].limit == 600_000


async def test_who_waits_in_a_bucket_moves_on_with_its_model(cluster: LimitCluster) -> None:
    buckets = {"slow": limits(requests_per_minute=1, burst=1), "fast": limits(burst=5)}
    name = "slow"
    limiter = cluster.limiter(resolve=lambda provider, model: (name, buckets[name]))
    held = await limiter.acquire(request())
    waiting = asyncio.create_task(limiter.acquire(request(), timeout_s=scaled(5)))
    await wait_until_async(lambda: _waiting(limiter, 1))

    name = "fast"
    await limiter.reconfigure()
    moved = await asyncio.wait_for(waiting, scaled(5))

    assert (held.bucket, moved.bucket) == ("slow", "fast")

    async def nobody_waits() -> bool:
        return not any(bucket["waiting"] for bucket in await limiter.snapshot())

    await wait_until_async(nobody_waits)


async def test_a_flush_allows_no_second_burst(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=60, burst=20))
    await take(limiter, 15)

    await cluster.backends.flush()

    with pytest.raises(TimeoutError):
        await limiter.acquire(request(), timeout_s=0.3)
    await limiter.acquire(request(), timeout_s=scaled(5))


async def test_a_newcomer_after_a_flush_costs_one_burst_at_most(cluster: LimitCluster) -> None:
    config = limits(requests_per_minute=60, burst=20)
    old, new = cluster.limiter(config), cluster.limiter(config)
    await take(old, 15)

    await cluster.backends.flush()
    await take(new, 5)
    with pytest.raises(TimeoutError):
        await old.acquire(request(), timeout_s=0.3)

    assert await level(old) < 1


async def test_a_flush_forgets_neither_the_hour_nor_the_day(cluster: LimitCluster) -> None:
    asked: list[tuple[str, float]] = []

    async def recent_use(bucket: str, seconds: float) -> tuple[int, int]:
        asked.append((bucket, seconds))
        return (97, 0) if seconds == 3600 else (100, 0)

    config = limits(requests_per_hour=100, requests_per_day=1000)
    limiter = cluster.limiter(config, recent_use=recent_use)

    await take(limiter, 3)
    with pytest.raises(TimeoutError):
        await limiter.acquire(request(), timeout_s=0.2)

    assert asked == [("acme/default", 3600), ("acme/default", 86_400)]
    assert await level(limiter, "requests_per_day") == pytest.approx(897, abs=0.5)


async def test_a_limit_that_is_new_to_a_bucket_knows_what_was_used(cluster: LimitCluster) -> None:
    async def recent_use(bucket: str, seconds: float) -> tuple[int, int]:
        return (99, 0)

    config = [limits(requests_per_minute=6000, burst=10)]
    limiter = cluster.limiter(
        resolve=lambda provider, _: ("acme/default", config[-1]), recent_use=recent_use
    )
    await take(limiter, 3)

    config.append(limits(requests_per_minute=6000, burst=10, requests_per_hour=100))
    await limiter.reconfigure()
    await limiter.flush()

    await limiter.acquire(request(), timeout_s=scaled(5))
    with pytest.raises(TimeoutError):
        await limiter.acquire(request(), timeout_s=0.2)


async def test_a_cautious_bucket_keeps_half_back_until_the_first_answer(
    cluster: LimitCluster,
) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=60, burst=20), cautious=True)
    permits = await take(limiter, 10)
    with pytest.raises(TimeoutError):
        await limiter.acquire(request(), timeout_s=0.2)

    limiter.settle(permits[0], usage=Usage(input_tokens=10, output_tokens=1))

    assert await timed(take(limiter, 8)) < 7  # at the rate it takes 8 s


async def test_caution_without_an_answer_ends_before_the_provider_refills_in_vain(
    cluster: LimitCluster, clock: MovableClock
) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=60, burst=20), cautious=True)
    await take(limiter, 9)

    clock.ahead_s += 21

    assert await timed(take(limiter, 18)) < 15  # at the rate it takes 18 s


async def test_what_a_first_answer_says_holds_before_the_rest_is_let_go(
    cluster: LimitCluster,
) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=60, burst=20), cautious=True)
    permits = await take(limiter, 9)

    limiter.settle(
        permits[0],
        usage=Usage(input_tokens=10, output_tokens=1),
        headers={"x-ratelimit-limit-requests": "30", "x-ratelimit-remaining-requests": "1"},
    )

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(take(limiter, 3), 0.5)


async def test_answers_are_expected_to_be_as_long_as_they_lately_were(
    cluster: LimitCluster,
) -> None:
    limiter = cluster.limiter(limits(output_tokens_per_minute=8000))
    for _ in range(20):
        permit = await limiter.acquire(request(output_tokens=4096))
        limiter.settle(permit, usage=Usage(input_tokens=10, output_tokens=50))

    # At 4,096 tokens each just one more could be under way.
    permits = await asyncio.wait_for(take(limiter, 30, output_tokens=4096), scaled(3))

    assert all(50 <= permit.taken[0] < 100 for permit in permits)


async def test_answers_that_broke_off_do_not_tell_how_long_answers_are(
    cluster: LimitCluster,
) -> None:
    limiter = cluster.limiter(limits(output_tokens_per_minute=100_000))
    for output_tokens in (50, 4096):
        permit = await limiter.acquire(request(output_tokens=4096))
        usage = Usage(input_tokens=10, output_tokens=output_tokens)
        limiter.settle(permit, usage=usage, whole=output_tokens == 50)

    (permit,) = await take(limiter, 1, output_tokens=4096)

    assert permit.taken == (5 * 50,)


async def test_reservations_count_in_full_where_the_provider_counts_them(
    cluster: LimitCluster,
) -> None:
    limiter = cluster.limiter(limits(tokens_per_minute=100_000))
    reserving = PROTOCOLS["openai"].counting
    for _ in range(3):
        permit = await limiter.acquire(request(counting=reserving, output_tokens=4096))
        limiter.settle(permit, usage=Usage(input_tokens=10, output_tokens=50))

    (permit,) = await take(limiter, 1, counting=reserving, output_tokens=4096)

    assert permit.taken == (4096.0,)


async def test_slots_in_use_are_counted_again_after_a_flush(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(concurrent_requests=4))
    await take(limiter, 3)

    await cluster.backends.flush()
    await limiter.acquire(request(), timeout_s=scaled(5))
    await limiter.flush()

    (bucket,) = await limiter.snapshot()
    assert bucket["in_flight"] == 4


async def test_a_bucket_without_limits_asks_nobody(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits())

    for permit in await take(limiter, 200):
        limiter.settle(permit, usage=Usage(input_tokens=10, output_tokens=10))
    for permit in await take(limiter, 200):
        limiter.settle(permit, usage=Usage(input_tokens=10, output_tokens=10))

    assert limiter.get_statistics()["total_requests"] == 400
    assert limiter.get_statistics()["exchanges"] <= 2


async def test_a_pause_reaches_buckets_without_limits(cluster: LimitCluster) -> None:
    here, there = cluster.limiter(limits()), cluster.limiter(limits())
    permit = await here.acquire(request())
    await there.acquire(request())

    started_s = time.monotonic()
    here.settle(permit, usage=None, throttled=True, retry_after_s=0.4)
    await here.flush()
    late = cluster.limiter(limits())
    await asyncio.gather(*(take(limiter, 6) for limiter in (here, there, late)))

    assert 0.45 < time.monotonic() - started_s < at_this_pace(5)


async def test_the_largest_numbers_and_the_smallest_go_together(cluster: LimitCluster) -> None:
    most = 10**12
    limiter = cluster.limiter(limits(requests_per_day=1, burst=most, tokens_per_minute=most))
    other = cluster.limiter(limits(requests_per_minute=1, burst=most, concurrent_requests=most))

    await asyncio.wait_for(take(limiter, 1), scaled(2))
    await asyncio.wait_for(take(other, 5), scaled(2))


async def test_a_script_that_fails_is_no_outage_and_not_repeated(
    redis_url: str, anyio_backend: str
) -> None:
    async with Redis.from_url(redis_url) as redis:
        spec = spec_of("acme/default", limits(requests_per_minute=600, burst=10))
        await redis.hset("agentchord:limits:{acme/default}:state", "not", "a string")

        with pytest.raises(ResponseError, match="user_script"):
            await RedisBackend(redis).exchange(spec, Exchange(process="A", number=1))


async def test_many_at_once_share_their_round_trips(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(
        limits(requests_per_minute=6_000_000, tokens_per_minute=60_000_000, concurrent_requests=500)
    )

    permits = await take(limiter, 100)
    for permit in permits:
        limiter.settle(permit, usage=Usage(input_tokens=5))
    await limiter.flush()

    assert limiter.get_statistics()["exchanges"] <= 3


async def test_an_early_permit_comes_before_its_moment(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=1200, burst=1))
    first = await limiter.acquire(request(), early=True)
    await limiter.start(first)

    permit = await limiter.acquire(request(), early=True)
    lead_s = permit.starts_at_s - time.monotonic()
    started = await limiter.start(permit)
    await limiter.mark_sent(permit)

    assert lead_s > 0.01
    assert started
    assert 0 <= time.monotonic() - permit.starts_at_s < at_this_pace(5)


async def test_an_early_permit_is_void_after_a_pause(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=1200, burst=1))
    first = await limiter.acquire(request())
    permit = await limiter.acquire(request(), early=True)

    limiter.settle(first, usage=None, throttled=True, retry_after_s=0.2)

    assert not await limiter.start(permit)
    limiter.hand_back(permit)
    assert await limiter.start(await limiter.acquire(request(), early=True))


async def mark_sent(limiter: ClusterLimiter, permits: list[Permit], *, after_s: float) -> None:
    """Start early permits on time, and send their requests after a delay."""
    for permit in permits:
        assert await limiter.start(permit)
    await asyncio.sleep(after_s)
    for permit in permits:
        await limiter.mark_sent(permit)


async def test_a_bucket_is_never_fuller_than_full_without_the_calls_that_are_late(
    cluster: LimitCluster,
) -> None:
    here, there = (cluster.limiter(limits(requests_per_minute=60, burst=20)) for _ in range(2))
    early = await asyncio.gather(*(here.acquire(request(), early=True) for _ in range(5)))
    there_too = await asyncio.gather(*(there.acquire(request(), early=True) for _ in range(3)))
    full = await level(here) + 8

    await asyncio.gather(
        mark_sent(here, early, after_s=2.2), mark_sent(there, there_too, after_s=2.2)
    )
    since_s = -time.monotonic()
    await asyncio.gather(here.flush(), there.flush())
    left = await level(here)
    since_s += time.monotonic()

    # The refill would have been two, but the provider's bucket was full meanwhile.
    assert left < full - 8 + since_s + 0.6


async def test_a_call_that_is_never_sent_is_waited_for_until_it_has_ended(
    cluster: LimitCluster,
) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=600, burst=1))
    stuck = await limiter.acquire(request(), early=True)
    assert await limiter.start(stuck)
    with pytest.raises(TimeoutError):
        await limiter.acquire(request(), timeout_s=1)

    limiter.settle(stuck, usage=Usage())

    await limiter.acquire(request(), timeout_s=1)


async def test_paced_calls_go_out_at_their_moment_and_never_close_behind_a_late_one(
    cluster: LimitCluster,
) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=1200, burst=1))
    first = await limiter.acquire(request(), early=True)
    assert await limiter.start(first)
    second = await limiter.acquire(request(), early=True)
    assert await limiter.start(second)

    await limiter.mark_sent(second)
    on_time_s = time.monotonic()
    await limiter.mark_sent(first)
    late_s = time.monotonic()

    assert 0 <= on_time_s - second.starts_at_s < at_this_pace(0.02)
    assert late_s - on_time_s >= 60 / 1200


async def test_a_window_counts_a_late_call_from_when_it_was_sent(
    cluster: LimitCluster, clock: MovableClock
) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=20, enforcement="window"))
    permit = await limiter.acquire(request(), early=True)
    await mark_sent(limiter, [permit], after_s=1.0)
    await limiter.flush()

    clock.ahead_s = 59.6
    after_its_start = await level(limiter)
    clock.ahead_s = 60.7
    after_it_was_sent = await level(limiter)

    assert (after_its_start, after_it_was_sent) == (19, 20)


async def test_statistics_tell_what_was_waited_for(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=1200, burst=1))

    await take(limiter, 5, input_tokens=7, output_tokens=3)
    statistics = limiter.get_statistics()

    assert statistics["total_requests"] == 5
    assert statistics["total_tokens"] == 50
    assert statistics["waiting"] == 0
    assert 0.05 < statistics["avg_wait_s"] < statistics["p95_wait_s"] <= statistics["max_wait_s"]
    assert statistics["buckets"]["acme/default"]["total_requests"] == 5


async def test_a_snapshot_shows_the_live_buckets(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=60, burst=1, concurrent_requests=5))
    await limiter.acquire(request())
    waiting = asyncio.create_task(limiter.acquire(request()))
    await wait_until_async(lambda: _waiting(limiter, 1))

    (bucket,) = await cluster.limiter(limits()).snapshot()
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting

    assert bucket["bucket"] == "acme/default"
    assert (bucket["waiting"], bucket["in_flight"], bucket["concurrency"]) == (1, 1, 5)
    assert 0 < bucket["next_free_s"] < 1.1
    assert bucket["paused_s"] == 0
    assert bucket["tiers"][0]["tier"] == "requests"
    assert bucket["tiers"][0]["limit"] == 60

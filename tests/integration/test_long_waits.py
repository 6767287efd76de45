"""Requests with a long wait are refused, in order, with the time to come back at."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from app.domain.usage import Usage
from app.domain.waits import LongWait
from app.rate_limits.limiter import ClusterLimiter
from tests.support.limit_cluster import (
    LimitCluster,
    MovableClock,
    limits,
    open_cluster,
    request,
    take,
    timed,
)
from tests.support.pace import scaled
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio

MAX_WAIT_S = 5.0
DAY_S = 86_400.0


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture(params=["memory", "redis"])
async def cluster(
    request: pytest.FixtureRequest, redis_url: str, clock: MovableClock, anyio_backend: str
) -> AsyncIterator[LimitCluster]:
    async with open_cluster(request.param, redis_url, clock) as cluster:
        yield cluster


async def sent_away(
    limiter: ClusterLimiter, *priorities: int, max_wait_s: float = MAX_WAIT_S
) -> list[LongWait]:
    """The answers to requests that arrive together, in the order of arrival."""
    requests = (
        limiter.acquire(request(priority=priority), timeout_s=scaled(2), max_wait_s=max_wait_s)
        for priority in priorities
    )
    answers = await asyncio.gather(*requests, return_exceptions=True)
    told = [answer for answer in answers if isinstance(answer, LongWait)]
    assert len(told) == len(answers), answers
    return told


async def test_a_request_that_finds_the_day_used_up_learns_when_its_turn_comes(
    cluster: LimitCluster,
) -> None:
    limiter = cluster.limiter(limits(requests_per_day=100))
    await take(limiter, 100)

    last, first, second = await sent_away(limiter, 1, 9, 5)

    interval_s = DAY_S / 100
    assert {wait.waits_for for wait in (last, first, second)} == {"acme/default requests_per_day"}
    assert 0 < first.wait_s < interval_s * 1.05
    for sooner, later in pairwise((first, second, last)):
        assert later.wait_s - sooner.wait_s == pytest.approx(interval_s, rel=0.02)


async def test_a_request_that_comes_back_at_the_given_time_is_served(
    cluster: LimitCluster, clock: MovableClock
) -> None:
    limiter = cluster.limiter(limits(requests_per_day=100))
    await take(limiter, 100)
    first, second = await sent_away(limiter, 5, 5)

    clock.ahead_s += first.wait_s
    await limiter.acquire(request(), timeout_s=scaled(2), max_wait_s=MAX_WAIT_S)
    (behind,) = await sent_away(limiter, 5)

    assert behind.wait_s == pytest.approx(second.wait_s - first.wait_s, rel=0.02)


async def test_a_pause_sends_away_who_waits_and_who_comes(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=6000, burst=10))
    (refused,) = await take(limiter, 1)
    limiter.settle(refused, usage=Usage(), retry_after_s=30, throttled=True)

    came = await sent_away(limiter, 5, 5)

    assert {wait.waits_for for wait in came} == {"acme/default pause"}
    assert all(29 < wait.wait_s < 32 for wait in came)


async def test_a_pause_that_comes_sends_away_who_waits_already(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=60, burst=1))
    (refused,) = await take(limiter, 1)
    waiting = asyncio.gather(sent_away(limiter, 5, 5))
    await asyncio.sleep(0)

    limiter.settle(refused, usage=Usage(), retry_after_s=30, throttled=True)

    assert len((await waiting)[0]) == 2


async def test_a_limit_per_minute_is_waited_for_in_place(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=60, burst=1, requests_per_day=1000))
    await take(limiter, 1)

    waited_s = await timed(limiter.acquire(request(), max_wait_s=0.2))

    assert waited_s > 0.8
    assert limiter.blocked_by(request()) == "acme/default requests_per_minute"


async def test_who_waited_can_say_for_which_limit(cluster: LimitCluster) -> None:
    limiter = cluster.limiter(limits(requests_per_minute=6000, concurrent_requests=1))
    (held,) = await take(limiter, 1)
    waiting = asyncio.create_task(limiter.acquire(request(), timeout_s=scaled(5)))
    named = "acme/default concurrent_requests"

    async def is_named() -> bool:
        return limiter.blocked_by(request()) == named

    await wait_until_async(is_named)

    limiter.settle(held, usage=Usage())
    await waiting

    assert limiter.blocked_by(request()) == named

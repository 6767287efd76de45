import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.policies import RateLimitConfig
from app.rate_limits.single import RateLimiter
from app.rate_limits.token_bucket import TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_full_bucket_gives_its_capacity_and_then_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(capacity=3, refill_per_s=2, clock=clock)

    at_once = [bucket.consume() for _ in range(4)]
    clock.now_s = 0.5
    later = [bucket.consume() for _ in range(2)]

    assert at_once == [True, True, True, False]
    assert later == [True, False]


def test_a_wish_above_the_capacity_takes_a_full_bucket_and_leaves_a_debt() -> None:
    clock = Clock()
    bucket = TokenBucket(capacity=10, refill_per_s=1, clock=clock)

    taken = bucket.consume(25)

    assert taken
    assert bucket.wait_s(1) == 16


@given(
    capacity=st.integers(1, 20),
    rate=st.floats(0.1, 50),
    steps=st.lists(st.tuples(st.floats(0, 2), st.integers(1, 5)), max_size=60),
)
def test_no_interval_admits_more_than_capacity_and_refill(
    capacity: int, rate: float, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    bucket = TokenBucket(capacity, rate, clock)
    admitted: list[tuple[float, int]] = []
    for pause_s, tokens in steps:
        clock.now_s += pause_s
        if tokens <= capacity and bucket.consume(tokens):
            admitted.append((clock.now_s, tokens))

    for first, (start_s, _) in enumerate(admitted):
        for last in range(first, len(admitted)):
            total = sum(tokens for _, tokens in admitted[first : last + 1])
            assert total <= capacity + rate * (admitted[last][0] - start_s) + 1e-6


@pytest.mark.anyio
async def test_waiting_takes_the_computed_time() -> None:
    bucket = TokenBucket(capacity=1, refill_per_s=50)
    loop = asyncio.get_running_loop()
    started_s = loop.time()

    for _ in range(4):
        await bucket.wait_for_tokens()

    assert 0.055 <= loop.time() - started_s < 0.5


@pytest.mark.anyio
async def test_a_timeout_takes_nothing() -> None:
    bucket = TokenBucket(capacity=1, refill_per_s=0.01)
    bucket.consume()
    level = bucket.level

    with pytest.raises(TimeoutError):
        await bucket.wait_for_tokens(timeout=0.01)

    assert level <= bucket.level < 1


@pytest.mark.anyio
async def test_the_limiter_of_one_process_keeps_all_its_tiers() -> None:
    limiter = RateLimiter(RateLimitConfig(requests_per_minute=6000, burst=2, concurrent_requests=2))
    await limiter.acquire()
    await limiter.acquire()

    with pytest.raises(TimeoutError):
        await limiter.acquire(timeout=0.05)
    limiter.release()
    await limiter.acquire(timeout=1)

    assert limiter.get_statistics()["total_requests"] == 3

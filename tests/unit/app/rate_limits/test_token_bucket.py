import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rate_limits.token_bucket import TokenBucket
from tests.support.pace import at_this_pace, scaled

SLACK = 1e-6


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_it_starts_full_and_gives_no_more_than_it_holds() -> None:
    bucket = TokenBucket(10, 2.0, clock=Clock())

    assert bucket.consume(10)
    assert not bucket.consume(1)
    assert bucket.level == 0


def test_it_refills_continuously_up_to_its_capacity() -> None:
    clock = Clock()
    bucket = TokenBucket(10, 2.0, clock=clock)
    bucket.consume(10)

    clock.now_s += 0.25
    after_a_moment = bucket.level
    clock.now_s += 3600

    assert after_a_moment == 0.5
    assert bucket.level == 10


def test_a_refused_request_takes_nothing() -> None:
    bucket = TokenBucket(5, 1.0, clock=Clock())
    bucket.consume(3)

    assert not bucket.consume(3)
    assert bucket.consume(2)


def test_a_clock_that_goes_back_adds_nothing() -> None:
    clock = Clock()
    bucket = TokenBucket(5, 1.0, clock=clock)
    bucket.consume(5)

    clock.now_s -= 50

    assert bucket.level == 0


@pytest.mark.parametrize(("capacity", "refill_per_s"), [(0, 1.0), (1, 0.0), (-1, 1.0), (1, -2.0)])
def test_capacity_and_refill_must_be_positive(capacity: float, refill_per_s: float) -> None:
    with pytest.raises(ValueError, match="give positive numbers"):
        TokenBucket(capacity, refill_per_s)


def test_a_negative_number_of_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="give 0 or more"):
        TokenBucket(1, 1.0).consume(-1)


@pytest.mark.anyio
async def test_waiting_takes_the_computed_time() -> None:
    bucket = TokenBucket(1, 20.0)
    bucket.consume(1)

    started_s = time.monotonic()
    await bucket.wait_for_tokens(1, timeout=scaled(5))

    assert 0.045 < time.monotonic() - started_s < at_this_pace(5)


@pytest.mark.anyio
async def test_a_timeout_takes_nothing() -> None:
    clock = Clock()
    bucket = TokenBucket(10, 1.0, clock=clock)
    bucket.consume(8)

    with pytest.raises(TimeoutError):
        await bucket.wait_for_tokens(5, timeout=0.05)

    assert bucket.level == 2


@pytest.mark.anyio
async def test_more_than_it_can_hold_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="never fit"):
        await TokenBucket(10, 1.0).wait_for_tokens(11)


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 20)), max_size=50),
    st.floats(1, 30),
    st.floats(0.1, 50),
)
def test_no_interval_gets_more_than_capacity_and_refill(
    gaps_and_amounts: list[tuple[float, float]], capacity: float, refill_per_s: float
) -> None:
    clock = Clock()
    bucket = TokenBucket(capacity, refill_per_s, clock=clock)
    taken: list[tuple[float, float]] = []
    for gap_s, amount in gaps_and_amounts:
        clock.now_s += gap_s
        if bucket.consume(amount):
            taken.append((clock.now_s, amount))

    for start, (start_s, _) in enumerate(taken):
        total = 0.0
        for at_s, amount in taken[start:]:
            total += amount
            assert total <= capacity + refill_per_s * (at_s - start_s) + SLACK


@given(st.floats(1, 100), st.floats(0.1, 100), st.floats(0, 1), st.floats(0, 1))
def test_who_waits_as_long_as_told_gets_its_tokens(
    capacity: float, refill_per_s: float, used: float, wanted: float
) -> None:
    clock = Clock()
    bucket = TokenBucket(capacity, refill_per_s, clock=clock)
    bucket.consume(capacity * used)

    clock.now_s += bucket.time_until(capacity * wanted) + SLACK

    assert bucket.consume(capacity * wanted)

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.simulator.limits import (
    Charge,
    LimitGroup,
    Limits,
    Meter,
    RateLimit,
    SlidingWindow,
    TokenBucket,
)

SLACK = 1e-3

arrivals = st.lists(
    st.tuples(st.floats(min_value=0, max_value=40), st.integers(min_value=1, max_value=20)),
    max_size=60,
)


def admitted(meter: Meter, gaps_and_amounts: list[tuple[float, int]]) -> list[tuple[float, int]]:
    now_s, taken = 0.0, []
    for gap_s, amount in gaps_and_amounts:
        now_s += gap_s
        if meter.wait_s(amount, now_s) == 0:
            meter.take(amount, now_s)
            taken.append((now_s, amount))
    return taken


@given(
    arrivals,
    st.integers(min_value=1, max_value=120),
    st.integers(min_value=1, max_value=60),
)
def test_a_bucket_never_admits_more_than_its_capacity_and_refill_in_any_interval(
    gaps_and_amounts: list[tuple[float, int]], limit: int, capacity: int
) -> None:
    taken = admitted(TokenBucket(limit, capacity, 0.0), gaps_and_amounts)

    for start, (start_s, _) in enumerate(taken):
        total = 0
        for at_s, amount in taken[start:]:
            total += amount
            assert total <= capacity + limit / 60 * (at_s - start_s) + SLACK


@given(arrivals, st.integers(min_value=1, max_value=60))
def test_a_window_never_admits_more_than_its_limit_in_any_minute(
    gaps_and_amounts: list[tuple[float, int]], limit: int
) -> None:
    taken = admitted(SlidingWindow(limit), gaps_and_amounts)

    for start, (start_s, _) in enumerate(taken):
        minute = [amount for at_s, amount in taken[start:] if at_s < start_s + 60 - SLACK]
        assert sum(minute) <= limit


@given(arrivals, st.integers(min_value=1, max_value=60), st.booleans())
def test_whoever_waits_as_long_as_told_is_admitted(
    gaps_and_amounts: list[tuple[float, int]], limit: int, window: bool
) -> None:
    meter: Meter = SlidingWindow(limit) if window else TokenBucket(limit, limit, 0.0)
    start_s = 1_000_000.0
    now_s = start_s + sum(gap_s for gap_s, _ in gaps_and_amounts)
    admitted(meter, gaps_and_amounts)

    for _, amount in gaps_and_amounts:
        wait_s = meter.wait_s(amount, now_s)
        assert math.isinf(wait_s) == (amount > limit)
        if not math.isinf(wait_s):
            now_s += wait_s
            assert meter.wait_s(amount, now_s) == 0
            meter.take(amount, now_s)


def test_sixty_requests_a_minute_with_a_burst_of_one_are_one_per_second() -> None:
    group = LimitGroup(RateLimit(provider="openai", requests_per_minute=60, burst=1), 0.0)

    results = [group.admit(Charge(), at_s) for at_s in (0.0, 0.5, 1.0, 1.9, 2.0)]

    assert [excess is None for excess in results] == [True, False, True, False, True]
    refused = results[1]
    assert refused is not None
    assert refused.retry_after_s == pytest.approx(0.5)


def test_a_refused_request_counts_on_no_meter() -> None:
    rule = RateLimit(provider="openai", requests_per_minute=10, tokens_per_minute=100)
    group = LimitGroup(rule, 0.0)

    excess = group.admit(Charge(tokens=101), 0.0)

    assert excess is not None
    assert (excess.meter, excess.retry_after_s) == ("tokens", None)
    assert [state.remaining for state in group.states(0.0)] == [10, 100]


def test_the_reset_is_the_time_until_the_bucket_is_full() -> None:
    group = LimitGroup(RateLimit(provider="openai", requests_per_minute=60), 0.0)
    for _ in range(6):
        group.admit(Charge(), 0.0)

    (state,) = group.states(2.0)

    assert (state.limit, state.remaining) == (60, 56)
    assert state.reset_s == pytest.approx(4.0)


def test_models_that_match_one_rule_share_its_meters() -> None:
    rules = [
        RateLimit(provider="openai", model="gpt-4o*", requests_per_minute=1),
        RateLimit(provider="openai", requests_per_minute=2),
    ]
    limits = Limits(rules, 0.0)

    shared = limits.group_of("openai", "gpt-4o") is limits.group_of("openai", "gpt-4o-mini")

    assert shared
    assert limits.group_of("openai", "o3") is not limits.group_of("openai", "gpt-4o")
    assert limits.group_of("anthropic", "claude-sonnet-5") is None


@pytest.mark.parametrize("wrong", [{"enforcement": "leaky"}, {"requests_per_minute": 0}])
def test_an_impossible_limit_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be at least 1|use 'bucket' or 'window'"):
        RateLimit(provider="openai", **wrong)  # type: ignore[arg-type]

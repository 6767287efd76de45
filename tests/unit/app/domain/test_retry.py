from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.retry import RetryPolicy, RetryStrategy
from app.errors import ConfigurationError

seconds = st.floats(0, 10_000)
policies = st.builds(
    RetryPolicy,
    strategy=st.sampled_from(RetryStrategy),
    base_delay=seconds,
    max_delay=seconds,
    exponential_base=st.floats(1, 1000),
    jitter=st.booleans(),
)
retries = st.integers(1, 10**9)
units = st.floats(0, 1, exclude_max=True)


@given(policies, retries, units)
def test_a_delay_is_never_negative_nor_over_the_maximum(
    policy: RetryPolicy, retry: int, unit: float
) -> None:
    delay_s = policy.delay_s(retry, random_unit=lambda: unit)

    assert 0 <= delay_s <= policy.max_delay


@given(policies, retries, units, seconds)
def test_what_the_provider_asks_for_never_shortens_a_delay(
    policy: RetryPolicy, retry: int, unit: float, retry_after_s: float
) -> None:
    own_s = policy.delay_s(retry, random_unit=lambda: unit)

    delay_s = policy.delay_s(retry, retry_after_s=retry_after_s, random_unit=lambda: unit)

    assert delay_s == max(own_s, retry_after_s)


@given(policies, retries, units)
def test_jitter_takes_away_half_of_a_delay_at_most(
    policy: RetryPolicy, retry: int, unit: float
) -> None:
    steady = RetryPolicy(**{**vars(policy), "jitter": False})
    jittered = RetryPolicy(**{**vars(policy), "jitter": True})

    full_s = steady.delay_s(retry)
    delay_s = jittered.delay_s(retry, random_unit=lambda: unit)

    assert full_s * 0.5 <= delay_s <= full_s
    assert delay_s < full_s or full_s * (0.5 + unit * 0.5) == full_s


@given(policies, st.lists(st.integers(1, 2000), min_size=2).map(sorted))
def test_without_jitter_a_later_retry_never_waits_less(
    policy: RetryPolicy, numbers: list[int]
) -> None:
    steady = RetryPolicy(**{**vars(policy), "jitter": False})

    delays = [steady.delay_s(retry) for retry in numbers]

    assert all(earlier <= later for earlier, later in pairwise(delays))


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (RetryStrategy.EXPONENTIAL_BACKOFF, [2.0, 6.0, 18.0, 20.0]),
        (RetryStrategy.LINEAR_BACKOFF, [2.0, 4.0, 6.0, 8.0]),
        (RetryStrategy.CONSTANT_DELAY, [2.0, 2.0, 2.0, 2.0]),
        (RetryStrategy.IMMEDIATE, [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_delays_grow_as_the_strategy_says(strategy: RetryStrategy, expected: list[float]) -> None:
    policy = RetryPolicy(
        strategy=strategy, base_delay=2.0, exponential_base=3.0, max_delay=20.0, jitter=False
    )

    delays = [policy.delay_s(retry) for retry in range(1, 5)]

    assert delays == expected


def test_a_huge_number_of_retries_waits_the_maximum() -> None:
    policy = RetryPolicy(exponential_base=1000, jitter=False)

    delay_s = policy.delay_s(10**15)

    assert delay_s == policy.max_delay


def test_no_base_delay_means_no_delay_however_many_retries() -> None:
    policy = RetryPolicy(base_delay=0, exponential_base=1000, jitter=False)

    delay_s = policy.delay_s(10**15)

    assert delay_s == 0


def test_a_strategy_may_be_given_as_text() -> None:
    stored: dict[str, Any] = {"strategy": "linear_backoff"}

    policy = RetryPolicy(**stored)

    assert policy.strategy is RetryStrategy.LINEAR_BACKOFF


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_retries": -1}, "max_retries is -1"),
        ({"max_retries": 1.5}, "max_retries is 1.5"),
        ({"max_retries": True}, "max_retries is True"),
        ({"base_delay": -0.1}, "base_delay is -0.1"),
        ({"max_delay": float("nan")}, "max_delay is nan"),
        ({"max_delay": float("inf")}, "max_delay is inf"),
        ({"exponential_base": 0.5}, "exponential_base is 0.5"),
        ({"strategy": "sometimes"}, "strategy is 'sometimes'"),
        ({"jitter": "yes"}, "jitter is 'yes'"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RetryPolicy(**values)

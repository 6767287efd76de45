"""The fault suite's own arithmetic."""

import pytest

from tests.faults.invariants import excess_of, most_at_once
from tests.faults.scenario import BURST, PER_MINUTE

STEP_S = 60 / PER_MINUTE


def test_a_full_bucket_and_a_steady_rate_exceed_nothing() -> None:
    at_once = [0.0] * BURST
    steady = [STEP_S * number for number in range(1, 50)]

    assert excess_of([*at_once, *steady]) == pytest.approx(0, abs=1e-6)


def test_requests_beyond_the_bucket_are_counted_at_their_worst() -> None:
    assert excess_of([100.0] * (BURST + 3)) == pytest.approx(3)
    assert excess_of([100.0] * (BURST + 3) + [200.0]) == pytest.approx(3)


def test_the_most_requests_at_any_moment() -> None:
    records = [
        {"arrived_s": 1.0, "seconds": 2.0},
        {"arrived_s": 2.0, "seconds": 2.0},
        {"arrived_s": 3.0, "seconds": 1.0},
    ]

    assert most_at_once(records) == 2

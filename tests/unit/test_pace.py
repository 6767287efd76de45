"""Time-outs of tests grow with the slowness of the machine."""

import pytest

from tests.support import pace, waiting
from tests.support.pace import LEAST, MOST, Pace, at_this_pace, scaled
from tests.support.waiting import wait_until


@pytest.fixture
def slowness(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the machine measure these values from now on, and the last one for ever."""
    measured: list[float] = [1.0]

    def next_value() -> float:
        return measured.pop(0) if len(measured) > 1 else measured[0]

    made = Pace()
    monkeypatch.setattr(pace, "_slowness", next_value)
    monkeypatch.setattr(pace, "PACE", made)
    monkeypatch.setattr(waiting, "PACE", made)
    return measured


@pytest.mark.parametrize(("slow", "factor"), [(0.5, LEAST), (1.0, 2.0), (3.0, 6.0), (99.0, MOST)])
def test_a_ceiling_grows_with_the_slowness_within_bounds(
    slowness: list[float], slow: float, factor: float
) -> None:
    slowness[:] = [slow]

    assert scaled(10.0) == 10.0 * factor


@pytest.mark.parametrize(("slow", "factor"), [(0.5, 1.0), (3.0, 3.0), (99.0, MOST)])
def test_a_bound_is_measured_at_its_moment(
    slowness: list[float], slow: float, factor: float
) -> None:
    slowness[:] = [1.0]
    scaled(1.0)
    slowness[:] = [slow]

    assert at_this_pace(10.0) == 10.0 * factor


def test_a_wait_lasts_longer_if_the_machine_has_become_slower(slowness: list[float]) -> None:
    slowness[:] = [1.0, 5.0]
    scaled(1.0)

    assert wait_until(lambda: pace.PACE.factor == MOST, timeout_s=0.5)


def test_a_wait_for_what_never_comes_ends(slowness: list[float]) -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.1 s: a miracle"):
        wait_until(lambda: False, timeout_s=0.1, what="a miracle")

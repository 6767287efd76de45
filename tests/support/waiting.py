"""Waiting for a condition with a deadline, instead of sleeping."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from tests.support.pace import PACE, scaled

T = TypeVar("T")
POLL_S = 0.02
SOON_S = scaled(10.0)


class _Deadline:
    """The end of a wait; it moves on if the machine has become slower meanwhile."""

    def __init__(self, timeout_s: float) -> None:
        self._started_s, self._timeout_s, self._factor = time.monotonic(), timeout_s, PACE.factor

    def is_over(self) -> bool:
        if self._waited_s() < self._timeout_s:
            return False
        self._timeout_s *= PACE.measure() / self._factor
        self._factor = PACE.factor
        return self._waited_s() >= self._timeout_s

    def _waited_s(self) -> float:
        return time.monotonic() - self._started_s


def wait_until(condition: Callable[[], T], *, timeout_s: float = SOON_S, what: str = "") -> T:
    """Poll until ``condition()`` is truthy, and return its result.

    Args:
        condition: What has to hold.
        timeout_s: Seconds; a test gives ``scaled`` seconds.
        what: The name of the condition, for the error.

    Raises:
        AssertionError: If the condition is still false after the seconds.
    """
    deadline = _Deadline(timeout_s)
    while not (result := condition()):
        assert not deadline.is_over(), f"not within {timeout_s:g} s: {what or condition}"
        time.sleep(POLL_S)
    return result


async def wait_until_async(
    condition: Callable[[], Awaitable[T]], *, timeout_s: float = SOON_S, what: str = ""
) -> T:
    """Do the same as ``wait_until`` for a condition that has to be awaited."""
    deadline = _Deadline(timeout_s)
    while not (result := await condition()):
        assert not deadline.is_over(), f"not within {timeout_s:g} s: {what or condition}"
        await anyio.sleep(POLL_S)
    return result

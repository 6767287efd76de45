"""Waiting for a condition with a deadline, instead of sleeping."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")
POLL_S = 0.02


def wait_until(condition: Callable[[], T], *, timeout_s: float = 10.0, what: str = "") -> T:
    """Poll until ``condition()`` is truthy, and return its result.

    Raises:
        AssertionError: If the condition is still false after ``timeout_s`` seconds. ``what`` names
            the condition.
    """
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what or condition}"
        time.sleep(POLL_S)
    return result


async def wait_until_async(
    condition: Callable[[], Awaitable[T]], *, timeout_s: float = 10.0, what: str = ""
) -> T:
    """Do the same as ``wait_until`` for a condition that has to be awaited."""
    deadline = time.monotonic() + timeout_s
    while not (result := await condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what or condition}"
        await anyio.sleep(POLL_S)
    return result

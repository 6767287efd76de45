"""Measures whether a hostile input holds up the loop, or takes much memory.

A subject of ``tests/fuzz`` is a test with a Hypothesis strategy for the input and a coroutine that
reads the input in the way of a worker. ``assert_cheap`` runs the coroutine on a loop of its own and
measures each step of this loop.
"""

import asyncio
import resource
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

import psutil

from app.sandbox import program

#: CPU seconds that the loop's thread may spend at once.
MAX_LOOP_S = 0.25
MAX_MEMORY_BYTES = 200_000_000
MOST_MEASUREMENTS = 7
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Cost(NamedTuple):
    """The cost of an input.

    Attributes:
        loop_s: CPU seconds of the longest step of the loop.
        memory_bytes: The growth of the process's memory, or the memory of a process that the input
            was given to, whichever is larger.
    """

    loop_s: float
    memory_bytes: int


class _MeasuredLoop(asyncio.SelectorEventLoop):
    """A loop that notes the CPU time of its longest step; waiting takes no CPU time."""

    longest_s = 0.0

    def _run_once(self) -> None:
        started_s = time.thread_time()
        super()._run_once()  # type: ignore[misc]  # the private method that runs one step
        self.longest_s = max(self.longest_s, time.thread_time() - started_s)


def assert_cheap(attack: Callable[[], Awaitable[object]]) -> None:
    """Assert that an input is cheap to read.

    Other work on the machine can only add to a measurement, by cold caches and interrupts. If a
    measurement is above a limit, the least of some measurements counts.

    Args:
        attack: Reads the input. Errors that refuse the input are caught by the function itself.
    """
    costs = [cost_of(attack)]
    while len(costs) < MOST_MEASUREMENTS and not _is_cheap(_least(costs)):
        costs.append(cost_of(attack))
    assert _is_cheap(_least(costs)), _least(costs)


def cost_of(attack: Callable[[], Awaitable[object]]) -> Cost:
    """Run a coroutine on a loop of its own, and return its cost."""
    loop = _MeasuredLoop()
    before = _reset_peak_bytes()
    try:
        with _Children() as children:
            loop.run_until_complete(_awaited(attack))
            loop.run_until_complete(loop.shutdown_default_executor())
        return Cost(loop.longest_s, max(_peak_bytes() - before, children.peak_bytes))
    finally:
        loop.close()


async def _awaited(attack: Callable[[], Awaitable[object]]) -> object:
    return await attack()


def _least(costs: list[Cost]) -> Cost:
    return Cost(min(cost.loop_s for cost in costs), min(cost.memory_bytes for cost in costs))


def _is_cheap(cost: Cost) -> bool:
    return cost.loop_s <= MAX_LOOP_S and cost.memory_bytes <= MAX_MEMORY_BYTES


def _peak_bytes() -> int:
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if "VmHWM" in line)
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset_peak_bytes() -> int:
    """Set the peak to the present memory where the system can do this, and return the peak."""
    with suppress(OSError):
        _CLEAR.write_text("5")
    return _peak_bytes()


class _Children:
    """Watches the memory of sandbox processes; other children belong to other tests."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._done.wait(0.1):
            for child in own.children():
                with suppress(psutil.Error):
                    if program.__file__ in child.cmdline():
                        self.peak_bytes = max(self.peak_bytes, child.memory_info().rss)

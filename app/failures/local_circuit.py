"""A process's copy of one circuit: its state, callers that wait, and counts to be reported."""

import asyncio
import random
import time
from collections import deque
from itertools import count

from app.domain.waits import LongWait
from app.failures.circuit import SLOTS

#: Attempts that wait for a circuit come back at random times after the end of their wait. These
#: times are spread over this share of the wait, and over at most this many seconds.
SPREAD, MOST_SPREAD_S = 0.1, 2.0


class LocalCircuit:
    """The state of one circuit, as far as a process knows it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.known: asyncio.Task[None] | None = None
        self.opened = False
        self.probed = False
        self.known_at = 0
        self.ask_at_s = 0.0
        self.news = asyncio.Event()
        self.waiters: deque[asyncio.Future[str]] = deque()
        self.max_wait_s: dict[asyncio.Future[str], float] = {}
        self.keeper: asyncio.Task[None] | None = None
        self.reporting = False
        self.numbers = count(1)
        self.bad = 0
        self.counted_until_s = 0.0
        self.successes: deque[list[float]] = deque(maxlen=SLOTS + 1)

    def long_wait(self, max_wait_s: float) -> LongWait | None:
        """Return the exception for a caller that has to wait longer than ``max_wait_s``."""
        wait_s = self.ask_at_s - time.monotonic()
        if not self.opened or self.probed or wait_s <= max_wait_s:
            return None
        wait_s += random.uniform(0, min(SPREAD * wait_s, MOST_SPREAD_S))
        return LongWait(wait_s=wait_s, waits_for=f"{self.name} circuit")

    def succeeded(self, slot_s: float) -> None:
        """Count a success with its time, because only successes of the last window are reported."""
        now = time.monotonic()
        if self.successes and now - self.successes[-1][0] < slot_s:
            self.successes[-1][1] += 1
        else:
            self.successes.append([now, 1])

    def take_successes(self) -> list[tuple[float, int]]:
        """Take the unreported successes as pairs of an age in seconds and a number."""
        now = time.monotonic()
        taken = [(now - at_s, int(number)) for at_s, number in self.successes]
        self.successes.clear()
        return taken

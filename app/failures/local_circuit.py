"""One circuit as a process knows it: its state, the callers that wait, and unreported counts."""

import asyncio
import random
import time
from collections import deque
from itertools import count

from app.domain.waits import LongWait
from app.failures.circuit import SLOTS

#: Attempts that come back when a circuit may be probed do so within this share of the wait after
#: it, at most within so many seconds.
SPREAD, MOST_SPREAD_S = 0.1, 2.0


class LocalCircuit:
    """The state of one circuit that a process knows."""

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
        """Return the exception for a caller that waits no longer than this, if it applies."""
        wait_s = self.ask_at_s - time.monotonic()
        if not self.opened or self.probed or wait_s <= max_wait_s:
            return None
        wait_s += random.uniform(0, min(SPREAD * wait_s, MOST_SPREAD_S))
        return LongWait(wait_s=wait_s, waits_for=f"{self.name} circuit")

    def succeeded(self, slot_s: float) -> None:
        """Count a success, by time: only those of the last window are ever reported."""
        now = time.monotonic()
        if self.successes and now - self.successes[-1][0] < slot_s:
            self.successes[-1][1] += 1
        else:
            self.successes.append([now, 1])

    def take_successes(self) -> list[tuple[float, int]]:
        """Take the unreported successes: seconds ago, and how many."""
        now = time.monotonic()
        taken = [(now - at_s, int(number)) for at_s, number in self.successes]
        self.successes.clear()
        return taken

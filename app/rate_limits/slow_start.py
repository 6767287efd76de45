"""Starts the requests of an unlimited bucket: usually all at once, but slowly after a pause."""

import time

#: After a pause, groups of 1, 2, 4, ... requests may start: one group in each interval of this
#: length.
STEP_S = 0.05


class SlowStart:
    """Decides whether requests of an unlimited bucket may start at once.

    The start is closed at first, and opens when the backend has reported the bucket's pause.
    Therefore a new process makes no calls during a pause.
    """

    def __init__(self) -> None:
        self._known = False
        self._closed_until_s = 0.0
        self._at_once: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request that comes now may start."""
        return self._known and self._at_once is None and time.monotonic() >= self._closed_until_s

    @property
    def opens_in_s(self) -> float:
        """Seconds until the end of the last known pause; 0 if no pause is known."""
        return max(self._closed_until_s - time.monotonic(), 0.0)

    def know(self) -> None:
        """Note that the backend has reported the bucket's pause."""
        self._known = True

    def forget(self) -> None:
        """Note that the known pause may be out of date."""
        self._known = False

    def close_for(self, seconds: float) -> None:
        """Start a pause of this length now."""
        self._closed_until_s = max(self._closed_until_s, time.monotonic() + seconds)
        self._at_once = 1

    def let_go(self, waiting: int) -> int:
        """Return the number of waiters that may start now; callers ask again after ``STEP_S``."""
        if not self._known or self.opens_in_s > 0:
            return 0
        if self._at_once is None or waiting <= self._at_once:
            self._at_once = None
            return waiting
        count = self._at_once
        self._at_once *= 2
        return count

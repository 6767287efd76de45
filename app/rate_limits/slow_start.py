"""A bucket without limits: requests need no exchange, but a pause stops them and ends gradually."""

import time

#: After a pause 1, 2, 4, ... requests may start, at this interval.
STEP_S = 0.05


class SlowStart:
    """Whether requests of an unlimited bucket may start at once.

    It is closed until the bucket's pauses are known, so that a process that starts during one does
    not run into it.
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
        """Seconds until it opens, as far as known."""
        return max(self._closed_until_s - time.monotonic(), 0.0)

    def know(self) -> None:
        """Note that the backend has reported its pauses."""
        self._known = True

    def forget(self) -> None:
        """Note that the known pauses may be out of date."""
        self._known = False

    def close_for(self, seconds: float) -> None:
        """Pause from now on."""
        self._closed_until_s = max(self._closed_until_s, time.monotonic() + seconds)
        self._at_once = 1

    def let_go(self, waiting: int) -> int:
        """Return how many waiters may start now; after a pause, ask again every ``STEP_S``."""
        if not self._known or self.opens_in_s > 0:
            return 0
        if self._at_once is None or waiting <= self._at_once:
            self._at_once = None
            return waiting
        count = self._at_once
        self._at_once *= 2
        return count

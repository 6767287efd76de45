"""The waiting times of an attempt, by reason and description."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Shorter waits are not noted in the history.
NOTABLE_S = 0.1


class Waits:
    """The waiting times of one attempt, by reason and description.

    The reasons are ``limit``, ``money`` and ``circuit``. A description names the cause of a wait,
    such as ``openai/default requests_per_minute``.

    Example:
        waits = Waits()
        with waits.waiting("limit", lambda: "openai/default requests_per_minute"):
            await limiter.acquire(request)
        waits.by_reason_s  # {"limit": 1.5}
    """

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}

    @contextmanager
    def waiting(self, reason: str, waits_for: Callable[[], str]) -> Iterator[None]:
        """Count the time inside the block as waiting; when the block ends, call ``waits_for``."""
        since_s = time.monotonic()
        try:
            yield
        finally:
            key = reason, waits_for()
            self._seconds[key] = self._seconds.get(key, 0.0) + time.monotonic() - since_s

    @property
    def by_reason_s(self) -> dict[str, float]:
        """Seconds by reason."""
        sums: dict[str, float] = {}
        for (reason, _), seconds in self._seconds.items():
            sums[reason] = sums.get(reason, 0.0) + seconds
        return sums

    @property
    def notable_s(self) -> dict[str, float]:
        """Seconds by description, without short waits."""
        return {
            waits_for: seconds
            for (_, waits_for), seconds in self._seconds.items()
            if seconds >= NOTABLE_S
        }

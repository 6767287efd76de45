"""How long an attempt has waited, and for what."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Shorter waits are not noted in the history.
NOTABLE_S = 0.1


class Waits:
    """The waits of one attempt, by reason and by what was waited for.

    Reasons are ``limit``, ``money`` and ``circuit``; what was waited for is said in words, such as
    ``openai/default requests_per_minute``.
    """

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}

    @contextmanager
    def waiting(self, reason: str, waits_for: Callable[[], str]) -> Iterator[None]:
        """Count the time inside as waiting; ``waits_for`` is asked at its end."""
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
        """Seconds by what was waited for, without short waits."""
        return {
            waits_for: seconds
            for (_, waits_for), seconds in self._seconds.items()
            if seconds >= NOTABLE_S
        }

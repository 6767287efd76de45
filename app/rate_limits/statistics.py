"""What the limiter did in this process: counts, and how long requests waited."""

import math
from collections import deque
from typing import Any

_SAMPLES = 2000


class Statistics:
    """Counts of one bucket, or of all."""

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0.0
        self.throttled = 0
        self.timeouts = 0
        self.handed_back = 0
        self._waited_s = 0.0
        self._longest_s = 0.0
        self._recent_s: deque[float] = deque(maxlen=_SAMPLES)

    def granted(self, waited_s: float, tokens: float) -> None:
        """Count a permit that may be used."""
        self.requests += 1
        self.tokens += tokens
        self._waited_s += waited_s
        self._longest_s = max(self._longest_s, waited_s)
        self._recent_s.append(waited_s)

    def as_dict(self, *, waiting: int) -> dict[str, Any]:
        """The counts; the 95th percentile is of the last 2,000 requests."""
        recent = sorted(self._recent_s)
        rank = math.ceil(0.95 * len(recent)) - 1
        return {
            "total_requests": self.requests,
            "total_tokens": round(self.tokens),
            "waiting": waiting,
            "avg_wait_s": self._waited_s / self.requests if self.requests else 0.0,
            "p95_wait_s": recent[rank] if recent else 0.0,
            "max_wait_s": self._longest_s,
            "throttled": self.throttled,
            "timeouts": self.timeouts,
            "handed_back": self.handed_back,
        }

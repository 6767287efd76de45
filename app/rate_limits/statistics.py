"""Statistics of the limiter in this process: counts and wait times of requests."""

import math
from collections import Counter, deque
from typing import Any, Literal, TypeAlias

from app.rate_limits.base import LimitRequest

Event: TypeAlias = Literal["throttled", "timeouts", "handed_back"]

_SAMPLES = 2000


class Statistics:
    """Counts of one bucket, or of all buckets.

    Args:
        totals: Other statistics, which also count every event that is counted here, or None.
    """

    def __init__(self, totals: "Statistics | None" = None) -> None:
        self._totals = totals
        self._requests = 0
        self._tokens = 0
        self._events: Counter[Event] = Counter()
        self._waited_s = 0.0
        self._longest_s = 0.0
        self._recent_s: deque[float] = deque(maxlen=_SAMPLES)

    def granted(self, waited_s: float, request: LimitRequest) -> None:
        """Count a request that may be made."""
        self._requests += 1
        self._tokens += request.input_tokens + request.output_tokens
        self._waited_s += waited_s
        self._longest_s = max(self._longest_s, waited_s)
        self._recent_s.append(waited_s)
        if self._totals is not None:
            self._totals.granted(waited_s, request)

    def count(self, event: Event) -> None:
        """Count an event of a request."""
        self._events[event] += 1
        if self._totals is not None:
            self._totals.count(event)

    def as_dict(self, *, waiting: int) -> dict[str, Any]:
        """Return the counts; the 95th percentile covers the last 2,000 requests."""
        recent = sorted(self._recent_s)
        rank = math.ceil(0.95 * len(recent)) - 1
        return {
            "total_requests": self._requests,
            "total_tokens": self._tokens,
            "waiting": waiting,
            "avg_wait_s": self._waited_s / self._requests if self._requests else 0.0,
            "p95_wait_s": recent[rank] if recent else 0.0,
            "max_wait_s": self._longest_s,
            "throttled": self._events["throttled"],
            "timeouts": self._events["timeouts"],
            "handed_back": self._events["handed_back"],
        }

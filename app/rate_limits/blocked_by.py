"""The reason why a bucket's requests wait; the reason later explains why an agent took long."""

import time
from collections.abc import Awaitable

from app.rate_limits.base import Reply
from app.rate_limits.tiers import BucketSpec

#: If the backend takes longer than this to answer, the backend itself is the reason of the wait.
AWAY_S = 0.5
WORDS = {"concurrency": "concurrent_requests", "redis": "without_redis"}


class BlockedBy:
    """Remembers the last reason why the waiters of one bucket in a process have waited."""

    def __init__(self) -> None:
        self._by = ""

    def forget(self) -> None:
        """Forget the reason, because no request waits any more."""
        self._by = ""

    def pause(self) -> None:
        """Note a pause that the provider asked for."""
        self._by = "pause"

    async def heard(self, answer: Awaitable[Reply]) -> Reply:
        """Return the backend's reply, and note the reason why requests wait."""
        asked_s = time.monotonic()
        reply = await answer
        if time.monotonic() - asked_s > AWAY_S:
            self._by = "redis"
        self._by = reply.blocked_by or self._by
        return reply

    def label(self, spec: BucketSpec) -> str:
        """Return the bucket and the reason, such as ``openai/default requests_per_minute``."""
        labels = WORDS | {tier.name: tier.label for tier in spec.tiers}
        return f"{spec.bucket} {labels.get(self._by, self._by)}".rstrip()

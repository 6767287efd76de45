"""What the requests in a bucket wait for, kept for the question why an agent took long."""

import time
from collections.abc import Awaitable

from app.rate_limits.base import Reply
from app.rate_limits.tiers import BucketSpec

#: A backend that takes longer than this to answer is itself what requests have waited for.
AWAY_S = 0.5
WORDS = {"concurrency": "concurrent_requests", "redis": "without_redis"}


class BlockedBy:
    """Remembers what the waiters of one bucket in a process have waited for last."""

    def __init__(self) -> None:
        self._by = ""

    def forget(self) -> None:
        """Forget the reason, because no request waits any more; the next may wait for another."""
        self._by = ""

    def pause(self) -> None:
        """Note a pause that the provider asked for."""
        self._by = "pause"

    async def heard(self, answer: Awaitable[Reply]) -> Reply:
        """Pass the backend's reply through, and note what it says of waiting."""
        asked_s = time.monotonic()
        reply = await answer
        if time.monotonic() - asked_s > AWAY_S:
            self._by = "redis"
        self._by = reply.blocked_by or self._by
        return reply

    def label(self, spec: BucketSpec) -> str:
        """Return the bucket and the limit in the way: ``openai/default requests_per_minute``."""
        labels = WORDS | {tier.name: tier.label for tier in spec.tiers}
        return f"{spec.bucket} {labels.get(self._by, self._by)}".rstrip()

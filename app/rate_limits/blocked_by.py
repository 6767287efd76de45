"""What those who wait in a bucket wait for, told to who asks afterwards why it took long."""

import time
from collections.abc import Awaitable

from app.rate_limits.base import Reply
from app.rate_limits.tiers import BucketSpec

#: An answer that took longer than this is itself what everybody has waited for.
AWAY_S = 0.5
WORDS = {"concurrency": "concurrent_requests", "redis": "without_redis"}


class BlockedBy:
    """Remembers of one bucket what a process's waiters have waited for last."""

    def __init__(self) -> None:
        self._by = ""

    def forget(self) -> None:
        """Nobody waits any more: what comes next may wait for something else."""
        self._by = ""

    def pause(self) -> None:
        """The provider asked for a pause."""
        self._by = "pause"

    async def heard(self, answer: Awaitable[Reply]) -> Reply:
        """What the backend answers, heard on its way to whoever asked."""
        asked_s = time.monotonic()
        reply = await answer
        if time.monotonic() - asked_s > AWAY_S:
            self._by = "redis"
        self._by = reply.blocked_by or self._by
        return reply

    def label(self, spec: BucketSpec) -> str:
        """The bucket and what of it is waited for: ``openai/default requests_per_minute``."""
        labels = WORDS | {tier.name: tier.label for tier in spec.tiers}
        return f"{spec.bucket} {labels.get(self._by, self._by)}".rstrip()

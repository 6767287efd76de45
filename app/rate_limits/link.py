"""A process's connection to the backend; exchanges wait during an outage, which is logged once."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

import structlog

from app.errors import ServiceUnavailable
from app.rate_limits.base import Exchange, LimiterBackend, Reply
from app.rate_limits.clock import BackendClock
from app.rate_limits.tiers import BucketSpec

#: A function that gets a bucket and a number of seconds, and returns how many requests and how many
#: tokens the bucket used in that time.
RecentUse = Callable[[str, float], Awaitable[tuple[int, int]]]
RETRY_S = (0.05, 0.1, 0.2, 0.5)

log = structlog.get_logger(__name__)


class Link:
    """Repeats each exchange until it succeeds, so calls wait while the backend is away.

    Args:
        backend: The backend that holds the buckets.
        process: Unique name of this process.
        recent_use: Returns the use of a bucket, for the time before a flush of the backend. The
            argument is None if this use cannot be found.
    """

    def __init__(self, backend: LimiterBackend, process: str, recent_use: RecentUse | None) -> None:
        self.process = process
        self.clock = BackendClock()
        self.exchanges = 0
        self._backend = backend
        self._recent_use = recent_use
        self._lost = False

    @property
    def rebuilds(self) -> bool:
        """Whether the use before a flush of the backend can be found."""
        return self._recent_use is not None

    async def exchange(self, spec: BucketSpec, message: Exchange) -> Reply:
        """Exchange messages, however long it takes; the backend applies a message only once."""
        tries = 0
        while True:
            sent_s = time.monotonic()
            self.exchanges += 1
            try:
                reply = await self._backend.exchange(spec, message)
            except ServiceUnavailable as error:
                self._say_lost(error)
            else:
                break
            await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
            tries += 1
        self._say_found()
        if tries == 0:  # otherwise the reply may belong to an earlier try
            self.clock.observe(sent_s=sent_s, received_s=time.monotonic(), backend_s=reply.time_s)
        return reply

    async def recent_use(self, spec: BucketSpec, tiers: Iterable[str]) -> dict[str, float]:
        """Return the use in the last period of each of these tiers."""
        assert self._recent_use is not None
        used = {}
        for tier in spec.tiers:
            if tier.name in tiers:
                requests, tokens = await self._recent_use(spec.bucket, tier.period_s)
                used[tier.name] = float(requests if tier.in_requests else tokens)
        return used

    def _say_lost(self, error: ServiceUnavailable) -> None:
        if not self._lost:
            self._lost = True
            log.error("limits_unavailable", error=str(error), effect="limited calls wait")

    def _say_found(self) -> None:
        if self._lost:
            self._lost = False
            log.info("limits_available_again")

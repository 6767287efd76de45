"""A token bucket, which is the simple model behind every limit of this package."""

import asyncio
import math
import time
from collections.abc import Callable

#: Slack for rounding, so that a caller that waits exactly ``time_until`` gets its tokens.
_EPSILON = 1e-9


class TokenBucket:
    """Holds up to ``capacity`` tokens and refills continuously; the bucket starts full.

    Callers take at most ``capacity + refill_per_s * t`` tokens in any interval of t seconds
    (Turner, "New directions in communications", 1986).

    Weakness: callers can take a full bucket and then its refill, together nearly ``2 * capacity``
    in one period. Also, no other process sees the bucket. ``RateLimiter`` also has windows, in
    which no period has more than the limit. ``ClusterLimiter`` shares its buckets with other
    processes.

    Args:
        capacity: Largest number of tokens that the bucket can hold.
        refill_per_s: Tokens that the bucket gains per second.
        clock: Returns the time in seconds, from any origin.

    Raises:
        ValueError: If capacity or refill is not positive.

    Example:
        bucket = TokenBucket(capacity=10, refill_per_s=2)
        await bucket.wait_for_tokens(1, timeout=5.0)
    """

    def __init__(
        self,
        capacity: float,
        refill_per_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (0 < capacity < math.inf and 0 < refill_per_s < math.inf):
            raise ValueError(
                f"a bucket of {capacity!r} tokens with a refill of {refill_per_s!r} per second: "
                "give positive numbers"
            )
        self.capacity = capacity
        self.refill_per_s = refill_per_s
        self._clock = clock
        self._level = float(capacity)
        self._at_s = clock()
        self._turn = asyncio.Lock()

    @property
    def level(self) -> float:
        """Tokens in the bucket now."""
        self.refill()
        return self._level

    def refill(self) -> None:
        """Add the tokens that the bucket has gained since its last refill."""
        now_s = self._clock()
        gain = max(0.0, now_s - self._at_s) * self.refill_per_s
        self._level = min(self.capacity, self._level + gain)
        self._at_s = max(self._at_s, now_s)

    def consume(self, tokens: float) -> bool:
        """Take the tokens if the bucket has that many; otherwise take none and return False.

        Raises:
            ValueError: If ``tokens`` is negative.
        """
        if tokens < 0:
            raise ValueError(f"{tokens!r} tokens cannot be taken: give 0 or more")
        self.refill()
        if tokens - self._level > _EPSILON:
            return False
        self._level = max(0.0, self._level - tokens)
        return True

    def time_until(self, tokens: float) -> float:
        """Return the seconds until the bucket has that many tokens; infinity above ``capacity``."""
        self.refill()
        if tokens > self.capacity:
            return math.inf
        missing = tokens - self._level
        return missing / self.refill_per_s if missing > _EPSILON else 0.0

    async def wait_for_tokens(self, tokens: float, timeout: float | None = None) -> None:  # noqa: ASYNC109 the checklist's name
        """Take the tokens as soon as the bucket has them; callers are served in order of arrival.

        Args:
            tokens: Number of tokens.
            timeout: Longest wait in seconds; None means that the wait has no limit.

        Raises:
            TimeoutError: If the bucket does not have the tokens in time; no token was taken.
            ValueError: If the bucket can never hold that many tokens, or if ``tokens`` is negative.
        """
        if tokens > self.capacity:
            raise ValueError(
                f"{tokens!r} tokens never fit into a bucket of {self.capacity!r}: ask for less"
            )
        async with asyncio.timeout(timeout), self._turn:
            while not self.consume(tokens):  # noqa: ASYNC110  only time fills a bucket
                await asyncio.sleep(self.time_until(tokens))

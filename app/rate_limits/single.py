"""The limiter in its simplest form: one configuration, one process, no Redis."""

from collections import deque
from typing import Any

from app.domain.policies import RateLimitConfig
from app.domain.protocols import TokenCounting
from app.rate_limits.backends.memory import MemoryBackend
from app.rate_limits.base import LimiterBackend, LimitRequest, Permit
from app.rate_limits.limiter import ClusterLimiter

_BUCKET = "default"
#: The caller estimates prompt and answer in one number and reports no usage, so all tokens count.
_COUNTING = TokenCounting(reserves_output=False, counts_cached=True)


class RateLimiter:
    """Enforces limits on requests per minute, hour and day, tokens per minute, requests in flight.

    Weakness: all callers share one bucket and one queue. Also, the estimate of a call counts even
    if the call used more or less. The workers use ``ClusterLimiter``, which has buckets by model
    and takes the real usage and the provider's headers into account.

    Args:
        config: The limits.
        backend: The backend that holds the bucket; None means the memory of this process.

    Example:
        await limiter.acquire(estimated_tokens=1500, timeout=30.0)
        try:
            ...  # the call
        finally:
            limiter.release()
    """

    def __init__(self, config: RateLimitConfig, backend: LimiterBackend | None = None) -> None:
        self.config = config
        self._backend = backend or MemoryBackend()
        self._limiter: ClusterLimiter | None = None
        self._held: deque[Permit] = deque()

    async def acquire(self, estimated_tokens: int = 1000, timeout: float | None = None) -> None:  # noqa: ASYNC109 the documented name
        """Wait until a call may be made.

        Args:
            estimated_tokens: Tokens that the call will probably use, in prompt and answer.
            timeout: Longest wait in seconds; None means that the wait has no limit.

        Raises:
            TimeoutError: If the call has to wait longer; nothing was taken from the limits.
        """
        if self._limiter is None:  # a limiter belongs to the event loop of its first call
            self._limiter = ClusterLimiter(self._backend, lambda *_: (_BUCKET, self.config))
        request = LimitRequest(
            provider="",
            model="",
            counting=_COUNTING,
            run_id="",
            input_tokens=estimated_tokens,
            output_tokens=0,
        )
        self._held.append(await self._limiter.acquire(request, timeout))

    def release(self) -> None:
        """Free the concurrency slot of a call that has ended.

        Raises:
            RuntimeError: If no call is under way.
        """
        if not self._held or self._limiter is None:
            raise RuntimeError("release() without acquire(): every call is released once")
        self._limiter.settle(self._held.popleft(), usage=None)

    def get_statistics(self) -> dict[str, Any]:
        """Return requests, tokens, waiting requests and wait times in seconds."""
        if self._limiter is None:
            return {"total_requests": 0, "total_tokens": 0, "waiting": 0}
        statistics = self._limiter.get_statistics()
        del statistics["buckets"], statistics["exchanges"]
        return statistics

    async def close(self) -> None:
        """Stop the background work of the limiter."""
        if self._limiter is not None:
            await self._limiter.close()

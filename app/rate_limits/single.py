"""The limiter in its simplest form: one configuration, one process, no Redis."""

from collections import deque
from typing import Any

from app.domain.policies import RateLimitConfig
from app.rate_limits.backends.memory import MemoryBackend
from app.rate_limits.base import LimiterBackend, LimitRequest, Permit
from app.rate_limits.limiter import ClusterLimiter

_BUCKET = "default"


class RateLimiter:
    """Limits requests per minute, hour and day, tokens per minute and requests in flight.

    Args:
        config: The limits.
        backend: Where the bucket is; None keeps it in this process.

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
            estimated_tokens: Tokens it will probably use, prompt and answer together.
            timeout: Longest wait in seconds; None waits for ever.

        Raises:
            TimeoutError: If it has to wait longer; nothing was taken.
        """
        if self._limiter is None:  # it belongs to the loop of the first call
            self._limiter = ClusterLimiter(self._backend, lambda *_: (_BUCKET, self.config))
        request = LimitRequest(
            provider="", model="", run_id="", input_tokens=estimated_tokens, output_tokens=0
        )
        self._held.append(await self._limiter.acquire(request, timeout))

    def release(self) -> None:
        """A call has ended: free its place among the concurrent ones.

        Raises:
            RuntimeError: If no call is under way.
        """
        if not self._held or self._limiter is None:
            raise RuntimeError("release() without acquire(): every call is released once")
        self._limiter.settle(self._held.popleft(), usage=None)

    def get_statistics(self) -> dict[str, Any]:
        """Requests, tokens, waiting requests and wait times in seconds."""
        if self._limiter is None:
            return {"total_requests": 0, "total_tokens": 0, "waiting": 0}
        statistics = self._limiter.get_statistics()
        del statistics["buckets"], statistics["exchanges"]
        return statistics

    async def close(self) -> None:
        """Stop its background work."""
        if self._limiter is not None:
            await self._limiter.close()

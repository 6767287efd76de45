"""Reads, for a running worker, the limits that operators store, and the recent use of buckets.

The limits in Postgres decide; a signal only makes a worker read these limits at once. While
Postgres is away, the last known limits stay in force.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.configuration.sections import ProviderLimits
from app.domain.policies import RateLimitConfig
from app.errors import ServiceUnavailable
from app.rate_limits.limiter import ClusterLimiter
from app.rate_limits.stored import limit_table
from app.storage.deferred import wake_deferred_by_limits
from app.storage.group_commit import cause, persist
from app.storage.limits import StoredBlock, read_limits, recent_calls

#: Seconds after which a worker sees a change if the signal was lost.
LOOK_S = 3.0

log = structlog.get_logger(__name__)


class StoredLimits:
    """Finds the bucket and the limits of a model, with the stored limits that were read last.

    Its weakness: workers do not apply a change at the same moment. If a signal is lost, one worker
    applies a change up to 3 s later than another worker. The alternative, reading the limits
    with every call, would cost each call a query.

    Args:
        engine: The process's engine.
        configured: The configured limits by provider.
        providers: Names of all providers.

    Example:
        limits = StoredLimits(engine, settings.rate_limits, settings.provider_names)
        await limits.load()
        bucket, config = limits.resolve("openai", "gpt-4o")
    """

    def __init__(
        self,
        engine: AsyncEngine,
        configured: Mapping[str, ProviderLimits],
        providers: Sequence[str],
    ) -> None:
        self._engine = engine
        self._configured = configured
        self._providers = providers
        self._stored: list[StoredBlock] = []
        self._table = limit_table(configured, (), providers)
        self._look = asyncio.Event()

    def resolve(self, provider: str, model: str) -> tuple[str, RateLimitConfig]:
        """Return the bucket and the limits of a provider's model."""
        return self._table.resolve(provider, model)

    async def load(self) -> None:
        """Read the stored limits before the first call; wait while Postgres is away."""
        self._take(await persist(self._engine, read_limits, name="stored_limits"))

    def look_now(self) -> None:
        """Read the limits at once, because a signal says that the limits were changed."""
        self._look.set()

    async def follow(
        self, limiter: ClusterLimiter, on_change: Callable[[], Awaitable[None]]
    ) -> None:
        """Apply changes of the stored limits to the limiter, until the task is cancelled.

        Args:
            limiter: The process's limiter.
            on_change: This function is called after a change, when agents that wait for a limit may
                be claimed.
        """
        changed = False
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), LOOK_S)
            self._look.clear()
            try:
                async with self._engine.connect() as connection:
                    changed |= self._take(await read_limits(connection))
                if changed:
                    log.info("limits_changed", stored=len(self._stored))
                    await limiter.reconfigure()
                    # Agents are woken only after the change. Under the old limits, the agents
                    # would have to wait again for the same time.
                    await persist(self._engine, wake_deferred_by_limits, name="wake_deferred")
                    await on_change()
                    changed = False
            except (DBAPIError, TimeoutError) as error:
                log.warning("stored_limits_not_read", error=cause(error), retry_in_s=LOOK_S)
            except Exception:
                # A worker that does not follow the limits any more would exceed them.
                log.exception("stored_limits_failed")

    async def recent_use(self, bucket: str, seconds: float) -> tuple[int, int]:
        """Return a bucket's requests and tokens of the last seconds; calls in flight count, too.

        Raises:
            ServiceUnavailable: If Postgres does not answer; the limiter asks again.
        """
        try:
            async with self._engine.connect() as connection:
                calls = await recent_calls(connection, seconds)
        except (DBAPIError, TimeoutError) as error:
            raise ServiceUnavailable(
                f"Postgres did not return the use of {bucket!r}: {cause(error)}"
            ) from error
        own = [line for line in calls if self.resolve(line.provider, line.model)[0] == bucket]
        return sum(line.requests for line in own), sum(line.tokens for line in own)

    def _take(self, stored: list[StoredBlock]) -> bool:
        """Apply stored limits, and return whether they have changed."""
        if stored == self._stored:
            return False
        self._stored = stored
        self._table = limit_table(self._configured, stored, self._providers)
        return True

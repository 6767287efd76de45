"""Signals: short messages about a run, an agent run or the limits, sent to all listeners.

A lost signal only costs time.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.telemetry.logging import of_nobody

CHANNEL = "agentchord:signals"
LIMITS_CHANGED = "limits changed"
RECONNECT_S = 1.0

log = structlog.get_logger(__name__)


class News:
    """Collects the ids about which signals have come since the last look.

    Args:
        watch: Called with an id and a function, which is then called after each signal about the
            id.
        forget: Takes this back.
    """

    def __init__(
        self,
        watch: Callable[[UUID, Callable[[UUID], None]], None],
        forget: Callable[[UUID, Callable[[UUID], None]], None],
    ) -> None:
        self._watch, self._forget = watch, forget
        self._ids: set[UUID] = set()
        self._came = asyncio.Event()

    def add(self, id_: UUID) -> None:
        """Collect signals about an id from now on."""
        self._watch(id_, self._note)

    def remove(self, id_: UUID) -> None:
        """Collect no more signals about an id."""
        self._forget(id_, self._note)
        self._ids.discard(id_)

    async def next(self, timeout_s: float) -> set[UUID]:
        """Wait for a signal; return all ids about which signals have come, or none after a time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._came.wait(), timeout_s)
        self._came.clear()
        found, self._ids = self._ids, set()
        return found

    def wake(self) -> None:
        """End a wait in ``next``, without an id."""
        self._came.set()

    def _note(self, id_: UUID) -> None:
        self._ids.add(id_)
        self._came.set()


class Signals:
    """Sends and receives signals over Redis pub/sub.

    ``finished`` wakes clients that wait for a run. ``stop`` and ``pause`` make workers ask at once
    for the state of their runs. Without these signals, workers would learn the state from the next
    heartbeat. ``money`` wakes an agent run whose hold may fit. The signal ``limits changed`` makes
    workers read the new limits at once.

    Example:
        async with signals.watching(run_id) as changed:
            await asyncio.wait_for(changed.wait(), timeout=5)

    A signal may be lost, so every receiver also looks at Postgres from time to time.

    Args:
        redis: The process's client.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiters: dict[UUID, set[Callable[[UUID], None]]] = defaultdict(set)
        self._listener: asyncio.Task[None] | None = None
        self._on_stop: Callable[[], None] | None = None
        self._on_limits: Callable[[], None] | None = None
        self._closed = False

    async def send(self, run_id: UUID, word: str) -> None:
        """Send a signal to all processes; an unreachable Redis is only logged.

        No error is raised, because receivers also look at Postgres.
        """
        await self._publish(f"{run_id} {word}")

    async def send_limits_changed(self) -> bool:
        """Make all processes read the stored limits; returns whether the signal was sent."""
        return await self._publish(LIMITS_CHANGED)

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when any run has to stop or pause; starts listening."""
        self._on_stop = callback
        self._listen()

    def on_limits(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when limits were changed; starts listening."""
        self._on_limits = callback
        self._listen()

    @contextlib.asynccontextmanager
    async def watching(self, run_id: UUID) -> AsyncIterator[asyncio.Event]:
        """Yield an ``asyncio.Event`` that is set by every signal about the run."""
        event = asyncio.Event()

        def tell(_: UUID) -> None:
            event.set()

        self._watch(run_id, tell)
        try:
            yield event
        finally:
            self._forget(run_id, tell)

    def news(self) -> News:
        """Return an object that collects the signals about many ids, over the same connection."""
        return News(self._watch, self._forget)

    async def close(self) -> None:
        """Stop listening."""
        self._closed = True
        if self._listener is not None:
            self._listener.cancel()
            # A cancellation during connecting may raise a connection error instead.
            await asyncio.wait([self._listener], timeout=2 * RECONNECT_S)

    async def _publish(self, message: str) -> bool:
        try:
            await self._redis.publish(CHANNEL, message)
        except (RedisError, OSError) as error:
            log.warning("signal_not_sent", signal=message, error=str(error))
            return False
        return True

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = asyncio.create_task(
                self._receive(), name="signals", context=of_nobody()
            )

    async def _receive(self) -> None:
        while not self._closed:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    async for message in pubsub.listen():
                        self._deliver(message["data"].decode())
            except (RedisError, OSError) as error:
                if not self._closed:
                    log.warning("signals_lost", error=str(error), retry_in_s=RECONNECT_S)
                    await asyncio.sleep(RECONNECT_S)

    def _watch(self, id_: UUID, tell: Callable[[UUID], None]) -> None:
        self._waiters[id_].add(tell)
        self._listen()

    def _forget(self, id_: UUID, tell: Callable[[UUID], None]) -> None:
        self._waiters[id_].discard(tell)
        if not self._waiters[id_]:
            del self._waiters[id_]

    def _deliver(self, message: str) -> None:
        if message == LIMITS_CHANGED:
            if self._on_limits is not None:
                self._on_limits()
            return
        run, _, word = message.partition(" ")
        if word in ("stop", "pause") and self._on_stop is not None:
            self._on_stop()
        with contextlib.suppress(ValueError):
            id_ = UUID(run)
            for tell in tuple(self._waiters.get(id_, ())):
                tell(id_)

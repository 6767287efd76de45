"""The relay copies the history of all runs from Postgres to the stream, in order, without a gap.

Every worker has a relay, but only one relay in the cluster works: the relay that holds a key in
Redis. The relay reads committed events, so no transaction waits for Redis. No event is dropped when
Redis is away or slow, because the relay continues where the stream ends. If two relays work for a
moment, they do no harm: an entry of the stream has the id of its event, so no event comes twice.
This design is the transactional outbox of Richardson's Microservices Patterns; the copied table is
the history.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from uuid import uuid4

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.events import RunEvent
from app.events.stream import EventStream
from app.storage.event_log import Page, last_id, parse_event, read_all, read_horizon
from app.storage.group_commit import cause

LEADER_KEY = "agentchord:events:relay"
LEADER_MS = 5000
RENEWAL_S = 1.0
#: Seconds until the next look. The first value applies after a look that found new events, and the
#: second value after any other look.
BUSY_S, IDLE_S = 0.2, 0.5
PAGE = 1000

log = structlog.get_logger(__name__)


class Relay:
    """Copies events as long as this process holds the key in Redis.

    Example:
        task = asyncio.create_task(relay.run())

    An event reaches the stream up to half a second after its commit. A client that follows only one
    run reads the history itself (``app.events.following``).

    Args:
        engine: The process's engine.
        redis: The process's client.
        stream: The stream to which the events are copied.
        length: A new stream gets this number of the newest events.
        tell: Called after each batch is written; gets the batch's events of the given types.
        types: The types of events that ``tell`` gets.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        redis: Redis,
        stream: EventStream,
        *,
        length: int,
        tell: Callable[[Sequence[RunEvent]], None],
        types: frozenset[str],
    ) -> None:
        self._engine = engine
        self._redis = redis
        self._stream = stream
        self._length = length
        self._tell = tell
        self._types = types
        self._token = uuid4().hex
        # The last copied id, or None before it is known.
        self._after: int | None = None
        # ``tell`` gets only events with a higher id.
        self._tell_after = 0
        self._horizon = datetime.min.replace(tzinfo=UTC)
        self._busy = self._make = False

    async def run(self) -> None:
        """Copy events until the task is cancelled."""
        try:
            while True:
                try:
                    if await self._leads():
                        await self._copy_for(RENEWAL_S)
                        continue
                    self._after = None
                except (RedisError, DBAPIError, OSError) as error:  # TimeoutError is an OSError
                    log.warning("events_not_copied", error=cause(error), retry_in_s=RENEWAL_S)
                    self._after = None
                except Exception:
                    # A copy that fails does not harm the runs, so it must not end the process.
                    log.exception("relay_failed")
                    self._after = None
                await asyncio.sleep(RENEWAL_S)
        finally:
            await self._resign()

    async def copy(self) -> int:
        """Copy the next page of committed events; returns the number of copied events."""
        if self._after is None:
            self._after = await self._begin()
        async with self._reading() as connection:
            page = await read_all(connection, after=self._after, limit=PAGE, horizon=self._horizon)
        self._horizon, self._busy = page.horizon, page.more or bool(page.ids)
        if not page.ids:
            return 0
        reached = None if self._make else self._after
        if not await self._stream.add(page.ids, page.documents, after=reached):
            log.warning("event_stream_lost", after=self._after)
            self._after = None
            return 0
        self._make = False
        self._after = page.ids[-1]
        self._tell_new(page)
        return len(page.ids)

    def _reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._engine.execution_options(isolation_level="AUTOCOMMIT").connect()

    async def _copy_for(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        while loop.time() < end_s:
            if await self.copy() < PAGE:
                await asyncio.sleep(BUSY_S if self._busy else IDLE_S)

    async def _begin(self) -> int:
        """Find the event after which the copy starts; this is the last event of an existing stream.

        If no stream exists, the copy starts so early that the new stream gets the newest ``length``
        events.
        """
        async with self._reading() as connection:
            newest = await last_id(connection)
            self._horizon = await read_horizon(connection)
        last = await self._stream.last()
        if last is not None and last > newest:
            log.warning("event_stream_of_another_database", last=last, newest=newest)
            await self._stream.remove()
            last = None
        self._make = last is None
        self._tell_after = newest if last is None else last
        return max(newest - self._length, 0) if last is None else last

    def _tell_new(self, page: Page) -> None:
        """Pass on new events, but not events that are copied again because the stream was gone."""
        wanted = [
            document
            for id_, type_, document in zip(page.ids, page.types, page.documents, strict=True)
            if type_ in self._types and id_ > self._tell_after
        ]
        if wanted:
            self._tell([parse_event(document) for document in wanted])

    async def _leads(self) -> bool:
        """Return whether this process copies; if no other process copies, this process begins."""
        if await self._redis.set(LEADER_KEY, self._token, nx=True, px=LEADER_MS):
            # The key was missing. Perhaps Redis was flushed, so the stream may be gone as well.
            self._after = None
            return True
        if await self._redis.get(LEADER_KEY) != self._token.encode():
            return False
        await self._redis.pexpire(LEADER_KEY, LEADER_MS)
        return True

    async def _resign(self) -> None:
        """Release the key, so that another process can copy at once."""
        with contextlib.suppress(RedisError, OSError):
            if await self._redis.get(LEADER_KEY) == self._token.encode():
                await self._redis.delete(LEADER_KEY)

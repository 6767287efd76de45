"""The stream: the newest events of all runs in Redis, for services that follow events live.

The stream is a copy of the history in Postgres, in the same order. An entry has the id of its
event. Therefore a reader of the history can continue in the stream. For the same reason, an event
that is written twice is stored only once.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

STREAM = "agentchord:events"
BEGINS = "agentchord:events:begins"
FIELD = b"event"
BLOCK_MS = 1000
RETRY_S = 1.0
BATCH = 100

log = structlog.get_logger(__name__)

ADD, JOIN = (
    Path(__file__).with_name(name).read_text(encoding="utf-8")
    for name in ("stream.lua", "join.lua")
)

#: An event's id and its JSON.
Entry = tuple[int, bytes]


class EventStream:
    """Writes and reads the stream.

    Example:
        group = Group(redis, "alerts", "alerts-1", after=0, stale_s=60)
        async with contextlib.aclosing(consume(group)) as documents:
            async for document in documents:
                ...

    The stream keeps only the newest events: about ``length`` events. A service that has missed
    older events reads these events from the history. Postgres keeps the history of a run until the
    run is pruned.

    Args:
        redis: The process's client.
        length: Approximate number of events that the stream keeps.
    """

    def __init__(self, redis: Redis, length: int = 10_000) -> None:
        self._redis = redis
        self._length = length
        self._script = redis.register_script(ADD)

    async def last(self) -> int | None:
        """Return the id of the newest event in the stream, or None if there is no event."""
        newest: Any = await self._redis.xrevrange(STREAM, count=1)
        return _number(newest[0][0]) if newest else None

    async def remove(self) -> None:
        """Remove the stream and the groups that read it."""
        await self._redis.delete(STREAM, BEGINS)

    async def add(self, ids: Sequence[int], documents: Sequence[str], *, after: int | None) -> bool:
        """Write events in one command; events that are in the stream already stay as they are.

        Args:
            ids: Ids of the events, ascending.
            documents: The JSON of each event.
            after: Id that the stream must have reached; None makes a stream if there is none.

        Returns:
            Whether the stream has reached ``after``; otherwise nothing was written, because the
            stream would have a gap.
        """
        given: list[str | int] = [self._length, after or 0]
        for id_, document in zip(ids, documents, strict=True):
            given += (id_, document)
        return bool(await self._script(keys=[STREAM], args=given))


class Group:
    """One member of a consumer group.

    If a member does not acknowledge an event in time, another member gets this event.

    The member remembers up to which event the whole group has acknowledged all events. If Redis
    loses its data, the group is made again and begins there. So no event is lost that another
    member had not acknowledged, or that no member had taken. Some events can come twice.

    Args:
        redis: The process's client.
        group: Name of the group; each event goes to one member of the group.
        consumer: Name of this member. After a restart with the same name, the member first gets the
            events that it has not acknowledged.
        after: Id of the event after which a new group begins.
        stale_s: Seconds after which an event without acknowledgement goes to another member.
    """

    def __init__(
        self, redis: Redis, group: str, consumer: str, *, after: int, stale_s: float
    ) -> None:
        self._redis = redis
        self.name = group
        self._consumer = consumer
        #: Id of the newest event for which the group has acknowledged all events up to this event.
        self.after = after
        self._known = False
        self._script = redis.register_script(JOIN)
        # Events that this member has done and that come after ``after``; the first set has the
        # events that Redis does not know about.
        self._untold: set[int] = set()
        self._done: set[int] = set()
        self._stale_ms = int(stale_s * 1000)
        #: Seconds between two looks for events that other members have not acknowledged.
        self.look_s = stale_s / 2

    async def join(self) -> bool:
        """Make the group, unless it exists already; return whether there is a stream to read."""
        given: list[str | int] = [self.name, self.after, int(self._known)]
        return bool(await self._script(keys=[STREAM, BEGINS], args=given))

    async def own(self, after: int) -> list[Entry]:
        """Read events that this member has taken but not acknowledged, beginning after an id."""
        return await self._read(f"{after}-0", count=BATCH, block_ms=None)

    async def new(self) -> list[Entry]:
        """Read an event that no member has taken; waits a moment if there is no such event.

        Only one event is read, because the other members cannot get a taken event before
        ``stale_s`` is over.
        """
        return await self._read(">", count=1, block_ms=BLOCK_MS)

    async def stale(self) -> list[Entry]:
        """Take over an event that another member took long ago and has not acknowledged."""
        answer = await self._redis.xautoclaim(
            STREAM, self.name, self._consumer, self._stale_ms, count=1
        )
        return _entries(answer[1])

    def has_done(self, id_: int) -> bool:
        """Whether this member has done an event that comes again, because the group was lost."""
        return id_ in self._done

    def done(self, id_: int) -> None:
        """Note that an event is done; ``acknowledge`` tells Redis."""
        self._untold.add(id_)
        self._done.add(id_)

    async def acknowledge(self) -> None:
        """Tell Redis which events are done, so that no member gets them again.

        The member learns in the same transaction how far the whole group is.
        """
        pipeline: Any
        async with self._redis.pipeline(transaction=True) as pipeline:
            if self._untold:
                pipeline.xack(STREAM, self.name, *(f"{id_}-0" for id_ in self._untold))
            pipeline.xpending(STREAM, self.name)
            pipeline.xinfo_groups(STREAM)
            *_, pending, groups = await pipeline.execute()
        self._untold.clear()
        self._known = True
        if pending["pending"]:
            self.after = _number(pending["min"]) - 1
        else:
            own = next(each for each in groups if each["name"] == self.name.encode())
            self.after = _number(own["last-delivered-id"])
        self._done = {id_ for id_ in self._done if id_ > self.after}

    async def leave(self) -> None:
        """Acknowledge the finished events, if Redis can be reached."""
        with contextlib.suppress(RedisError, OSError):
            await self.acknowledge()

    async def _read(self, from_: str, *, count: int, block_ms: int | None) -> list[Entry]:
        answer: Any = await self._redis.xreadgroup(
            self.name, self._consumer, {STREAM: from_}, count=count, block=block_ms
        )
        return [entry for _, found in answer or () for entry in _entries(found)]


async def consume(group: Group) -> AsyncGenerator[bytes, None]:
    """Yield the JSON of each event, without an end; each request acknowledges the previous event.

    Each event comes at least once. If a consumer dies or is stopped before it acknowledges an
    event, this consumer or another member gets the event again. If Redis is away, the consumer
    waits. If the stream is gone, the consumer waits until the relay has made the stream again, and
    the group begins after the last event up to which it has acknowledged all events.

    Args:
        group: The member.
    """
    try:
        while True:
            try:
                if not await group.join():
                    await asyncio.sleep(RETRY_S)
                    continue
                async for id_, document in _entries_of(group):
                    if document and not group.has_done(id_):
                        yield document
                    group.done(id_)
            except (RedisError, OSError) as error:
                if isinstance(error, ResponseError) and "NOGROUP" in str(error):
                    log.info("event_group_lost", group=group.name, after=group.after)
                    continue
                log.warning("events_not_read", error=str(error), retry_in_s=RETRY_S)
                await asyncio.sleep(RETRY_S)
    finally:
        await group.leave()


async def _entries_of(group: Group) -> AsyncIterator[Entry]:
    """Yield this member's own events, then stale events of other members and new events."""
    loop = asyncio.get_running_loop()
    behind = 0
    await group.acknowledge()
    while entries := await group.own(behind):
        for entry in entries:
            yield entry
        behind = entries[-1][0]
        await group.acknowledge()
    look_at_s = loop.time()
    while True:
        entries = []
        if loop.time() >= look_at_s:
            entries = await group.stale()
            look_at_s = loop.time() + (0.0 if entries else group.look_s)
        for entry in entries or await group.new():
            yield entry
        await group.acknowledge()


def _entries(found: Sequence[Any]) -> list[Entry]:
    # If the stream has dropped an entry meanwhile, the entry has no fields, or even no id.
    return [(_number(id_), (fields or {}).get(FIELD, b"")) for id_, fields in found if id_]


def _number(id_: bytes) -> int:
    return int(id_.partition(b"-")[0])

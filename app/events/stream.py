"""The stream: the newest events of all runs in Redis, for services that follow them live.

It is a copy of the history in Postgres, in its order: the id of an entry is the event's, so a
reader of the one can go on in the other, and writing an event twice writes it once.
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
FIELD = b"event"
BLOCK_MS = 1000
RETRY_S = 1.0
BATCH = 100

log = structlog.get_logger(__name__)

ADD = Path(__file__).with_name("stream.lua").read_text(encoding="utf-8")

#: Id of an event and its JSON.
Entry = tuple[int, bytes]


class EventStream:
    """Writes and reads the stream.

    Example:
        group = Group(redis, "alerts", "alerts-1", stale_s=60)
        async with contextlib.aclosing(consume(group, after=0)) as documents:
            async for document in documents:
                ...

    It keeps about the newest ``length`` events: a service that was away for longer reads the rest
    from the history in Postgres, which keeps them until runs are pruned.

    Args:
        redis: The process's client.
        length: How many events it keeps, about.
    """

    def __init__(self, redis: Redis, length: int = 10_000) -> None:
        self._redis = redis
        self._length = length
        self._script = redis.register_script(ADD)

    async def last(self) -> int | None:
        """Return the id of the newest event in it, or None if there is none."""
        newest: Any = await self._redis.xrevrange(STREAM, count=1)
        return _number(newest[0][0]) if newest else None

    async def remove(self) -> None:
        """Remove it, and the groups that read it."""
        await self._redis.delete(STREAM)

    async def add(self, ids: Sequence[int], documents: Sequence[str], *, make: bool) -> bool:
        """Write events in one command; existing ones stay as they are.

        Args:
            ids: Ids of the events, ascending.
            documents: Each event as JSON.
            make: Whether to make the stream if there is none.

        Returns:
            Whether there is a stream; if not, nothing was written.
        """
        given: list[str | int] = [self._length, int(make)]
        for id_, document in zip(ids, documents, strict=True):
            given += (id_, document)
        return bool(await self._script(keys=[STREAM], args=given))


class Group:
    """One member of a consumer group; an event that it does not acknowledge goes to another.

    Args:
        redis: The process's client.
        group: Name of the group: each event goes to one of its members.
        consumer: Name of this member; under it a member that comes back gets its own events first.
        stale_s: Seconds after which an event that a member has not acknowledged goes to another.
    """

    def __init__(self, redis: Redis, group: str, consumer: str, *, stale_s: float) -> None:
        self._redis = redis
        self.name = group
        self._consumer = consumer
        self._stale_ms = int(stale_s * 1000)
        #: Seconds between two looks for events that others have left.
        self.look_s = stale_s / 2

    async def join(self, after: int) -> None:
        """Make the group, unless it is there: it begins behind an event."""
        try:
            await self._redis.xgroup_create(STREAM, self.name, id=f"{after}-0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def own(self, after: int) -> list[Entry]:
        """Read events that this member has taken and not acknowledged, behind one of them."""
        return await self._read(f"{after}-0", count=BATCH, block_ms=None)

    async def new(self) -> list[Entry]:
        """Read an event that no member has taken; waits a moment for it.

        One at a time: the others do not get what a member takes until its time is over.
        """
        return await self._read(">", count=1, block_ms=BLOCK_MS)

    async def stale(self) -> list[Entry]:
        """Take over an event that another member has taken long ago."""
        answer = await self._redis.xautoclaim(
            STREAM, self.name, self._consumer, self._stale_ms, count=1
        )
        return _entries(answer[1])

    async def acknowledge(self, ids: Sequence[int]) -> None:
        """Mark events as done: no member gets them again."""
        if ids:
            await self._redis.xack(STREAM, self.name, *(f"{id_}-0" for id_ in ids))

    async def leave(self, done: Sequence[int]) -> None:
        """Acknowledge the events that are done, if Redis can be reached."""
        with contextlib.suppress(RedisError, OSError):
            await self.acknowledge(done)

    async def _read(self, from_: str, *, count: int, block_ms: int | None) -> list[Entry]:
        answer: Any = await self._redis.xreadgroup(
            self.name, self._consumer, {STREAM: from_}, count=count, block=block_ms
        )
        return [entry for _, found in answer or () for entry in _entries(found)]


async def consume(group: Group, *, after: int) -> AsyncGenerator[bytes, None]:
    """Yield the JSON of each event, without an end; asking for the next acknowledges the last.

    At least once: an event whose consumer died, or was stopped, comes again, to it or to another
    member. The consumer waits for a Redis that is away; if the stream is gone, the group is made
    again at the last event of this member.

    Args:
        group: The member.
        after: Id of the event behind which a new group begins.
    """
    done: list[int] = []
    try:
        while True:
            try:
                await group.join(after)
                async for id_, document in _entries_of(group, done):
                    if document:
                        yield document
                    done.append(id_)
                    after = max(after, id_)
            except (RedisError, OSError) as error:
                if isinstance(error, ResponseError) and str(error).startswith("NOGROUP"):
                    log.info("event_group_lost", group=group.name, after=after)
                    continue
                log.warning("events_not_read", error=str(error), retry_in_s=RETRY_S)
                await asyncio.sleep(RETRY_S)
    finally:
        await group.leave(done)


async def _entries_of(group: Group, done: list[int]) -> AsyncIterator[Entry]:
    """Yield this member's own events, then those that others left, and new ones."""
    loop = asyncio.get_running_loop()
    behind = 0
    while entries := await group.own(behind):
        for entry in entries:
            yield entry
        behind = entries[-1][0]
        await group.acknowledge(done)
        done.clear()
    look_at_s = loop.time()
    while True:
        entries = []
        if loop.time() >= look_at_s:
            entries = await group.stale()
            look_at_s = loop.time() + (0.0 if entries else group.look_s)
        for entry in entries or await group.new():
            yield entry
        await group.acknowledge(done)
        done.clear()


def _entries(found: Sequence[Any]) -> list[Entry]:
    # An entry that was trimmed meanwhile has lost its fields, or even its id.
    return [(_number(id_), (fields or {}).get(FIELD, b"")) for id_, fields in found if id_]


def _number(id_: bytes) -> int:
    return int(id_.partition(b"-")[0])

"""The stream of events in Redis: a copy of the history, in order, and groups that read it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from app.domain.events import RunEvent
from app.events.relay import Relay
from app.events.stream import STREAM, EventStream, Group, consume
from app.storage.redis import connect_redis
from tests.support.database_cluster import Cluster, agent, ending
from tests.support.pace import scaled

pytestmark = pytest.mark.anyio


@pytest.fixture
async def redis(redis_url: str, anyio_backend: str) -> AsyncIterator[Redis]:
    client = connect_redis(redis_url)
    yield client
    await client.aclose()


def relay_of(
    cluster: Cluster, redis: Redis, *, length: int = 1000, told: list[RunEvent] | None = None
) -> Relay:
    return Relay(
        cluster.engine,
        redis,
        EventStream(redis, length),
        length=length,
        tell=(told if told is not None else []).extend,
        types=frozenset({"agent_started"}),
    )


async def copied(relay: Relay) -> int:
    """Events that a few rounds copy: one for events settled since the last, one after a loss."""
    return sum([await relay.copy() for _ in range(4)])


async def ids_in(redis: Redis) -> list[int]:
    entries: Any = await redis.xrange(STREAM)
    return [int(id_.partition(b"-")[0]) for id_, _ in entries]


async def history_of(cluster: Cluster) -> list[int]:
    return [row.id for row in await cluster.rows("SELECT id FROM events ORDER BY id")]


async def some_events(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b"))
    for claimed in (await cluster.claim(run_id)).agents:
        await cluster.record(ending(claimed))
    await cluster.advance(run_id, 0)


def member(redis: Redis, name: str, *, after: int = 0, stale_s: float = 60.0) -> Group:
    return Group(redis, "service", name, after=after, stale_s=stale_s)


async def take(group: Group, count: int) -> list[int]:
    """This number of events; all but the last are acknowledged."""
    found: list[int] = []
    async with asyncio.timeout(scaled(10)), aclosing(consume(group)) as events:
        async for document in events:
            found.append(orjson.loads(document)["id"])
            if len(found) == count:
                return found
    return found


async def test_the_relay_copies_the_history_once_and_in_order(
    cluster: Cluster, redis: Redis
) -> None:
    told: list[RunEvent] = []
    await some_events(cluster)
    first, second = relay_of(cluster, redis), relay_of(cluster, redis, told=told)

    assert [await copied(first), await copied(second)] == [7, 0]
    await some_events(cluster)
    assert [await copied(first), await copied(second)] == [7, 7]

    assert await ids_in(redis) == await history_of(cluster)
    assert [event.data["agent"] for event in told] == ["a", "b"]


async def test_a_stream_that_is_gone_is_made_again_from_the_newest_events(
    cluster: Cluster, redis: Redis
) -> None:
    told: list[RunEvent] = []
    relay = relay_of(cluster, redis, length=10, told=told)
    await some_events(cluster)
    await copied(relay)
    told.clear()
    await redis.flushdb()
    await some_events(cluster)

    assert await copied(relay) == 10

    assert await ids_in(redis) == (await history_of(cluster))[-10:]
    assert told == []


async def test_the_stream_of_another_database_is_replaced(cluster: Cluster, redis: Redis) -> None:
    await EventStream(redis).add([1_000_000], ["{}"], after=None)
    await some_events(cluster)

    await copied(relay_of(cluster, redis))

    assert await ids_in(redis) == await history_of(cluster)


async def test_of_a_group_one_member_gets_each_event_and_what_it_leaves_another_one(
    cluster: Cluster, redis: Redis
) -> None:
    await some_events(cluster)
    await copied(relay_of(cluster, redis))
    history = await history_of(cluster)

    first = await take(member(redis, "one"), 3)
    again = await take(member(redis, "one"), 5)
    left = await take(member(redis, "two", stale_s=0.0), 1)

    assert first == history[:3]
    assert again == history[2:]
    assert left == history[-1:]


async def test_members_of_a_group_take_one_event_at_a_time(cluster: Cluster, redis: Redis) -> None:
    await some_events(cluster)
    await copied(relay_of(cluster, redis))
    one, two = member(redis, "one"), member(redis, "two")
    await one.join()

    taken = [(await each.new())[0][0] for each in (one, two, one)]

    assert taken == (await history_of(cluster))[:3]


async def test_a_group_goes_on_where_it_stood_when_its_stream_was_lost(
    cluster: Cluster, redis: Redis
) -> None:
    relay = relay_of(cluster, redis)
    await some_events(cluster)
    await copied(relay)
    found: list[int] = []
    async with asyncio.timeout(scaled(10)), aclosing(consume(member(redis, "one"))) as events:
        async for document in events:
            found.append(orjson.loads(document)["id"])
            if len(found) == 7:
                await redis.flushdb()
                await some_events(cluster)
                assert await copied(relay) == 14
            if len(found) == 14:
                break

    assert found == await history_of(cluster)


async def test_a_new_group_begins_where_it_is_told(cluster: Cluster, redis: Redis) -> None:
    await some_events(cluster)
    await copied(relay_of(cluster, redis))
    history = await history_of(cluster)

    assert await take(member(redis, "one", after=history[3]), 2) == history[4:6]


class Member:
    """A member of the group that takes one event at a time, on the test's command."""

    def __init__(self, redis: Redis, name: str, *, after: int) -> None:
        self._events = consume(member(redis, name, after=after))
        self._next: asyncio.Future[bytes] | None = None
        self.got: list[int] = []

    async def take(self) -> None:
        """Ask for the next event, which confirms the previous one; give up waiting, not asking."""
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._events))
        await asyncio.wait([self._next], timeout=0.05)
        if self._next.done():
            self.got.append(orjson.loads(self._next.result())["id"])
            self._next = None

    async def take_one(self) -> None:
        async with asyncio.timeout(scaled(20)):
            while not self.got:
                await self.take()

    async def die(self) -> None:
        """End without a confirmation of the event that was taken last."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait([self._next])


async def drain(members: list[Member], wanted: set[int]) -> None:
    """Let the members take events until together they have all wanted events."""
    async with asyncio.timeout(scaled(20)):
        while not wanted <= {id_ for each in members for id_ in each.got}:
            for each in members:
                await each.take()


@pytest.mark.parametrize("joins_before_the_flush", [True, False])
async def test_a_group_gets_every_event_that_it_had_not_taken_when_redis_was_flushed(
    cluster: Cluster, redis: Redis, joins_before_the_flush: bool
) -> None:
    await some_events(cluster)
    copying = asyncio.create_task(relay_of(cluster, redis).run())
    old = Member(redis, "old", after=0)
    await old.take_one()
    await some_events(cluster)
    history = await history_of(cluster)
    # The group stands at its first event. A group of the new member alone would begin at the end.
    new = Member(redis, "new", after=history[-1])
    if joins_before_the_flush:
        await new.take_one()

    await redis.flushdb()
    await drain([new, old], set(history))
    copying.cancel()
    for each in (new, old):
        await each.die()


async def test_a_group_that_a_new_member_made_too_late_goes_back_to_where_it_was(
    cluster: Cluster, redis: Redis
) -> None:
    await some_events(cluster)
    relay = relay_of(cluster, redis)
    await copied(relay)
    history = await history_of(cluster)
    old, new = member(redis, "old"), member(redis, "new", after=history[-1])
    await old.join()
    await old.acknowledge()

    await redis.flushdb()
    await some_events(cluster)
    await copied(relay)
    await new.join()
    joined = await old.join()

    assert joined
    assert (await old.new())[0][0] == history[0]
    assert await new.join()
    assert (await new.new())[0][0] == history[1]


async def test_an_event_of_a_member_that_dies_with_redis_comes_to_another_member(
    cluster: Cluster, redis: Redis
) -> None:
    await some_events(cluster)
    copying = asyncio.create_task(relay_of(cluster, redis).run())
    dying, other = (Member(redis, name, after=0) for name in ("dying", "other"))
    await dying.take_one()
    await other.take_one()

    await redis.flushdb()
    await drain([other], {dying.got[-1], *(await history_of(cluster))})
    copying.cancel()
    await other.die()


async def test_a_reader_that_is_first_after_a_flush_leaves_the_stream_to_the_relay(
    cluster: Cluster, redis: Redis
) -> None:
    relay = relay_of(cluster, redis)
    await some_events(cluster)
    await copied(relay)

    await redis.flushdb()
    joined = await member(redis, "one").join()
    # A reader of an earlier version, or another program, may make an empty stream.
    await redis.xgroup_create(STREAM, "theirs", id="0-0", mkstream=True)
    await some_events(cluster)
    await copied(relay)

    assert not joined
    assert await ids_in(redis) == await history_of(cluster)

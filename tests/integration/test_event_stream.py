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


def member(redis: Redis, name: str, stale_s: float = 60.0) -> Group:
    return Group(redis, "service", name, stale_s=stale_s)


async def take(group: Group, count: int, *, after: int = 0) -> list[int]:
    """This number of events; all but the last are acknowledged."""
    found: list[int] = []
    async with asyncio.timeout(10), aclosing(consume(group, after=after)) as events:
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
    await EventStream(redis).add([1_000_000], ["{}"], make=True)
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
    await one.join(0)

    taken = [(await each.new())[0][0] for each in (one, two, one)]

    assert taken == (await history_of(cluster))[:3]


async def test_a_group_goes_on_where_it_stood_when_its_stream_was_lost(
    cluster: Cluster, redis: Redis
) -> None:
    relay = relay_of(cluster, redis)
    await some_events(cluster)
    await copied(relay)
    found: list[int] = []
    async with asyncio.timeout(10), aclosing(consume(member(redis, "one"), after=0)) as events:
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

    assert await take(member(redis, "one"), 2, after=history[3]) == history[4:6]

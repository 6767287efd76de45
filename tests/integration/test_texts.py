"""Live text over a real Redis: followers, lost connections, and a Redis that does not answer."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from redis.asyncio import Redis

from app.events.texts import Feed, Piece, Publisher
from app.storage.redis import connect_redis
from tests.support.pace import at_this_pace, scaled
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio

RUN, OTHER = UUID(int=1), UUID(int=2)
WAIT_S = scaled(10.0)


@pytest.fixture
async def redis(redis_url: str, anyio_backend: str) -> AsyncIterator[Redis]:
    client = connect_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def publisher(redis: Redis) -> AsyncIterator[Publisher]:
    made = Publisher(redis)
    yield made
    await made.close()


@pytest.fixture
async def feed(redis: Redis) -> AsyncIterator[Feed]:
    made = Feed(redis)
    yield made
    await made.close()


async def followers(redis: Redis, run_id: UUID, count: int) -> None:
    """Wait until this number of connections listen to a run."""

    async def listening() -> bool:
        return (await redis.pubsub_numsub(f"agentchord:text:{run_id}"))[0][1] == count

    await wait_until_async(listening, what=f"{count} connections listen")


def say(publisher: Publisher, run_id: UUID, *texts: str) -> None:
    stream = publisher.open(run_id=run_id, agent="a", attempt=1, turn=1)
    for text in texts:
        stream.add(text)


async def heard(inbox: AsyncIterator[Piece]) -> Piece:
    async with asyncio.timeout(WAIT_S):
        return await anext(inbox)


async def pieces(feed: Feed, run_id: UUID) -> AsyncIterator[Piece]:
    async with feed.watching(run_id, asyncio.Event()) as inbox:
        while True:
            await inbox.news.wait()
            inbox.news.clear()
            for piece in inbox.take():
                yield piece


async def test_pieces_that_come_together_are_one_message(
    redis: Redis, publisher: Publisher, feed: Feed
) -> None:
    listening = pieces(feed, RUN)
    first = asyncio.create_task(heard(listening))
    await followers(redis, RUN, 1)

    say(publisher, RUN, "margins ", "fell")

    piece = await first
    assert (piece.text, piece.offset, piece.agent, piece.turn) == ("margins fell", 0, "a", 1)


async def test_each_follower_hears_its_own_run_and_stops_hearing_it(
    redis: Redis, publisher: Publisher, feed: Feed
) -> None:
    news = asyncio.Event()
    async with feed.watching(RUN, asyncio.Event()) as own:
        async with feed.watching(OTHER, news) as other, feed.watching(OTHER, news) as again:
            await followers(redis, OTHER, 1)  # one connection for all followers
            say(publisher, OTHER, "hello")
            async with asyncio.timeout(WAIT_S):
                await news.wait()
            assert [piece.text for piece in other.take()] == ["hello"]
            assert [piece.text for piece in again.take()] == ["hello"]
        await followers(redis, OTHER, 0)
        assert own.take() == []


async def test_a_lost_connection_is_made_anew_with_all_its_runs(
    redis: Redis, publisher: Publisher, feed: Feed
) -> None:
    listening = pieces(feed, RUN)
    first = asyncio.create_task(heard(listening))
    await followers(redis, RUN, 1)

    await redis.client_kill_filter(_type="pubsub")
    await followers(redis, RUN, 1)
    say(publisher, RUN, "still here")

    assert (await first).text == "still here"


async def test_what_is_no_piece_is_left_out(redis: Redis, publisher: Publisher, feed: Feed) -> None:
    listening = pieces(feed, RUN)
    first = asyncio.create_task(heard(listening))
    await followers(redis, RUN, 1)

    for message in ("no json", "[]", '{"text": "of another version"}'):
        await redis.publish(f"agentchord:text:{RUN}", message)
    say(publisher, RUN, "a piece")

    assert (await first).text == "a piece"


async def test_without_redis_text_is_dropped_and_nobody_waits() -> None:
    client = connect_redis("redis://127.0.0.1:1/0")
    publisher, loop = Publisher(client), asyncio.get_running_loop()
    stream = publisher.open(run_id=RUN, agent="a", attempt=1, turn=1)

    stream.add("lost")
    began_s = loop.time()
    await stream.close()

    assert loop.time() - began_s < at_this_pace(0.5)
    await publisher.send()
    assert publisher.dropped_chars > 0
    await publisher.close()
    await client.aclose()

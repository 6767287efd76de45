"""Messages of Celery that AgentChord writes itself: the same that Celery and kombu would write."""

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from app.celery import LANE, LANES
from app.celery import app as celery
from app.scheduler.dispatch import Dispatcher
from app.scheduler.lanes import Lane
from app.scheduler.messages import message_of
from app.storage.progress import LevelPlan
from app.storage.redis import connect_redis
from tests.support.stack import lead_celery_to

pytestmark = pytest.mark.anyio

RUN = UUID(int=7)
#: Fields that differ from message to message; ``reply_to`` names a queue of results, which nobody
#: reads.
OWN = ("id", "root_id", "correlation_id", "delivery_tag", "reply_to")


@pytest.fixture
async def redis(redis_url: str, anyio_backend: str) -> AsyncIterator[Redis]:
    lead_celery_to(redis_url)
    made = connect_redis(redis_url)
    await made.flushdb()
    yield made
    await made.flushdb()
    await made.aclose()


def read(text: bytes) -> dict[str, Any]:
    """A message without the fields that are its own, and with its body as JSON."""
    message: dict[str, Any] = json.loads(text)
    message["body"] = json.loads(b64decode(message["body"]))
    for part in (message["headers"], message["properties"]):
        for name in OWN:
            assert isinstance(part.pop(name, ""), str)
    return message


async def only_list(client: Redis) -> tuple[bytes, list[bytes]]:
    """The only list in Redis, with its key; it is removed."""
    redis: Any = client  # without decoding, all answers are bytes
    (key,) = [key for key in await redis.keys("*") if await redis.type(key) == b"list"]
    texts = await redis.lrange(key, 0, -1)
    await redis.delete(key)
    return key, texts


@pytest.mark.parametrize("priority", range(10))
@pytest.mark.parametrize(
    ("task", "args"),
    [
        (LANE, (str(RUN), 0, "openai", 7)),
        (LANES, ("openai", [(str(RUN), 0, 1), (str(RUN), 1, 50)])),
    ],
)
async def test_a_message_is_the_same_as_celerys(
    redis: Redis, task: str, args: tuple[Any, ...], priority: int
) -> None:
    celery.signature(
        task, args=args, queue="openai", priority=priority, ignore_result=True, immutable=True
    ).apply_async()
    by_celery, (theirs,) = await only_list(redis)

    key, ours = message_of(celery, task, args, queue="openai", priority=priority)

    assert key.encode() == by_celery
    assert read(ours.encode()) == read(theirs)


async def test_every_message_has_ids_of_its_own(redis: Redis) -> None:
    made = [message_of(celery, LANE, (), queue="openai", priority=0)[1] for _ in range(2)]

    first, second = map(json.loads, made)
    assert first["headers"]["id"] == first["headers"]["root_id"]
    assert first["headers"]["id"] != second["headers"]["id"]
    assert first["properties"]["delivery_tag"] != second["properties"]["delivery_tag"]


async def test_levels_of_one_lane_are_sent_with_one_round_trip(redis: Redis) -> None:
    dispatcher = Dispatcher(celery, redis, lane_width=50)
    plans = [
        LevelPlan(
            run_id=UUID(int=number),
            level=0,
            max_parallel_agents=1,
            priority=5,
            agents={"openai": 1},
        )
        for number in range(12)
    ]
    await redis.ping()
    before = (await redis.info("stats"))["total_reads_processed"]

    await dispatcher.send_levels(plans)

    reads = (await redis.info("stats"))["total_reads_processed"] - before - 1
    _, texts = await only_list(redis)
    assert reads == 1
    # The first that was sent is the last of the list, which workers take first.
    assert [read(text)["body"][0][0] for text in reversed(texts)] == [
        str(plan.run_id) for plan in plans
    ]


async def test_a_level_of_several_lanes_is_a_chord(redis: Redis) -> None:
    dispatcher = Dispatcher(celery, redis, lane_width=2)
    plan = LevelPlan(run_id=RUN, level=3, max_parallel_agents=4, priority=5, agents={"openai": 4})

    await dispatcher.send_levels([plan])
    await dispatcher.send_lane(plan, Lane(provider="openai", width=2))

    _, texts = await only_list(redis)
    lanes = [read(text) for text in texts]
    chords = [lane["body"][2]["chord"] for lane in lanes]
    assert [lane["body"][0] for lane in lanes] == [[str(RUN), 3, "openai", 2]] * 3
    assert [bool(body) for body in chords] == [False, True, True]  # the newest is first
    assert chords[1]["args"] == [str(RUN), 3]

"""Requests for admission: a scheduler that listens answers; else a message waits for one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncConnection

from app.celery import app as celery
from app.domain.run_options import RunOptions
from app.domain.workflow import Workflow
from app.events.signals import Signals
from app.scheduler.asks import CHANNEL, Asks
from app.scheduler.dispatch import Dispatcher
from app.scheduler.scheduler import Scheduler
from app.storage import new_runs, runs
from app.storage.progress import LevelPlan
from app.storage.redis import connect_redis
from tests.support.database_cluster import Cluster, agent
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio

WORKFLOW = Workflow(name="one", agents=[agent("a")])


class Noting(Dispatcher):
    """Notes what it would send: there are no workers here."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(celery, redis, lane_width=50)
        self.asked: list[UUID] = []
        self.sent: list[UUID] = []

    async def send_advance(self, run_id: UUID, level: int | None = None) -> None:
        """See ``Dispatcher``."""
        self.asked.append(run_id)

    async def send_levels(self, plans: Sequence[LevelPlan]) -> None:
        """See ``Dispatcher``."""
        self.sent += [plan.run_id for plan in plans]


@pytest.fixture
async def redis(redis_url: str, anyio_backend: str) -> AsyncIterator[Redis]:
    made = connect_redis(redis_url)
    yield made
    await made.aclose()


@pytest.fixture
def dispatcher(redis: Redis) -> Noting:
    return Noting(redis)


@pytest.fixture
def scheduler(cluster: Cluster, redis: Redis, dispatcher: Noting) -> Scheduler:
    return Scheduler(
        cluster.engine,
        dispatcher,
        Signals(redis),
        max_running=1000,
        max_collected_bytes=1000,
        asks=Asks(redis),
    )


async def enqueued(cluster: Cluster) -> UUID:
    async def create(connection: AsyncConnection) -> UUID:
        workflow_id = await runs.store_workflow(connection, WORKFLOW)
        return await new_runs.create_run(connection, WORKFLOW, workflow_id, {}, RunOptions())

    return await cluster.commit(create)


async def listeners(redis: Redis) -> int:
    ((_, number),) = await redis.pubsub_numsub(CHANNEL)
    return int(number)


@asynccontextmanager
async def answering(scheduler: Scheduler, redis: Redis) -> AsyncIterator[None]:
    """A scheduler that listens."""
    task = asyncio.create_task(scheduler.answer_asks())
    await wait_until_async(lambda: listeners(redis), what="the scheduler to listen")
    yield
    task.cancel()
    await asyncio.wait([task])
    await wait_until_async(lambda: nobody(redis), what="the scheduler to listen no more")


async def nobody(redis: Redis) -> bool:
    return await listeners(redis) == 0


async def test_a_listening_scheduler_admits_without_a_message(
    cluster: Cluster, scheduler: Scheduler, dispatcher: Noting, redis: Redis
) -> None:
    async with answering(scheduler, redis):
        run_id = await enqueued(cluster)
        await scheduler.ask_for_admission(run_id)
        await wait_until_async(lambda: has_sent(dispatcher, run_id), what="the admission")

    assert dispatcher.asked == []


async def test_without_a_listener_a_message_waits_for_a_scheduler(
    cluster: Cluster, scheduler: Scheduler, dispatcher: Noting, redis: Redis
) -> None:
    run_id = await enqueued(cluster)
    await scheduler.ask_for_admission(run_id)

    assert dispatcher.asked == [run_id]
    assert dispatcher.sent == []


async def test_a_scheduler_that_begins_to_listen_admits_what_waits(
    cluster: Cluster, scheduler: Scheduler, dispatcher: Noting, redis: Redis
) -> None:
    run_id = await enqueued(cluster)

    async with answering(scheduler, redis):
        await wait_until_async(lambda: has_sent(dispatcher, run_id), what="the admission")


async def test_a_scheduler_that_has_lost_its_connection_listens_again(
    cluster: Cluster, scheduler: Scheduler, dispatcher: Noting, redis: Redis
) -> None:
    async with answering(scheduler, redis):
        await redis.client_kill_filter(_type="pubsub")
        lost = await enqueued(cluster)  # nobody asks for it
        await wait_until_async(lambda: has_sent(dispatcher, lost), what="the admission")
        await wait_until_async(lambda: listeners(redis), what="the scheduler to listen")
        run_id = await enqueued(cluster)
        await scheduler.ask_for_admission(run_id)
        await wait_until_async(lambda: has_sent(dispatcher, run_id), what="the admission")

    assert dispatcher.asked == []


async def test_requests_at_the_same_time_share_admissions(
    cluster: Cluster, scheduler: Scheduler, dispatcher: Noting, redis: Redis
) -> None:
    async with answering(scheduler, redis):
        ids = [await enqueued(cluster) for _ in range(20)]
        await asyncio.gather(*(scheduler.ask_for_admission(id_) for id_ in ids))
        for id_ in ids:
            await wait_until_async(partial(has_sent, dispatcher, id_), what="the admission")

    assert sorted(dispatcher.sent) == sorted(ids)  # each run is sent once


async def has_sent(dispatcher: Noting, run_id: UUID) -> bool:
    return run_id in dispatcher.sent

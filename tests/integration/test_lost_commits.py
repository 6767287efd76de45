"""Steps of control whose commit succeeds and whose connection is lost before that is known."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from redis.asyncio import Redis
from sqlalchemy import Connection, event

from app.celery import app as celery
from app.domain.status import AgentStatus, WorkflowStatus
from app.events.signals import Signals
from app.scheduler.dispatch import Dispatcher
from app.scheduler.scheduler import Scheduler
from tests.support.database_cluster import Cluster, agent
from tests.support.run_control import admit, end_level

pytestmark = pytest.mark.anyio


class NobodyListens(Dispatcher):
    """Sends nothing: there are no workers here."""

    async def send_advance(self, run_id: UUID, level: int | None = None) -> None:
        """Say nothing."""


@pytest.fixture
async def scheduler(
    cluster: Cluster, redis_url: str, anyio_backend: str
) -> AsyncIterator[Scheduler]:
    redis = Redis.from_url(redis_url)
    dispatcher = NobodyListens(celery, redis, lane_width=50)
    yield Scheduler(
        cluster.engine, dispatcher, Signals(redis), max_running=1000, max_collected_bytes=1000
    )
    await redis.aclose()


@contextmanager
def lost_after_commit(cluster: Cluster) -> Iterator[list[str]]:
    """The next commit reaches the database, but its answer does not reach the client."""
    lost: list[str] = []

    def commit(connection: Connection) -> None:
        if not lost:
            lost.append("lost")
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    event.listen(cluster.engine.sync_engine, "commit", commit)
    try:
        yield lost
    finally:
        event.remove(cluster.engine.sync_engine, "commit", commit)


async def test_pause_and_resume_say_that_they_did_it(
    cluster: Cluster, scheduler: Scheduler
) -> None:
    run_id = await cluster.start(agent("a"))

    with lost_after_commit(cluster) as lost:
        paused = await scheduler.pause(run_id)
    paused_twice = await scheduler.pause(run_id)
    with lost_after_commit(cluster) as lost_again:
        resumed = await scheduler.resume(run_id)
    resumed_twice = await scheduler.resume(run_id)

    assert lost
    assert lost_again
    assert (paused, paused_twice, resumed, resumed_twice) == (True, False, True, False)
    told = await cluster.rows("SELECT type FROM events WHERE type IN ('run_paused', 'run_resumed')")
    assert len(told) == 2


async def test_a_cancel_and_a_retry_say_that_they_did_it(
    cluster: Cluster, scheduler: Scheduler
) -> None:
    run_id = await cluster.start(agent("a"))

    with lost_after_commit(cluster) as lost:
        cancelled = await scheduler.stop(run_id, as_=WorkflowStatus.CANCELLED, reason="enough")
    with lost_after_commit(cluster) as lost_again:
        retried = await scheduler.retry_failed(run_id)
    await admit(cluster)
    ended = await end_level(cluster, run_id, 0, a=AgentStatus.COMPLETED)

    assert lost
    assert lost_again
    assert (cancelled, retried, ended.finished) == (True, True, True)
    assert not await scheduler.retry_failed(run_id)

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.contextvars import bound_contextvars, get_contextvars

from app.storage.group_commit import GroupCommit, persist
from tests.support.database_cluster import Cluster
from tests.support.pace import scaled

pytestmark = pytest.mark.anyio


class Numbers:
    """Writes numbers into a table that refuses negative ones, and records the batches."""

    def __init__(self, cluster: Cluster) -> None:
        self.batches: list[list[int]] = []
        self.logged_with: dict[str, object] | None = None
        self.commit: GroupCommit[int, int] = GroupCommit(
            cluster.engine, self.write, name="numbers", key=lambda number: number % 100
        )

    async def write(self, connection: AsyncConnection, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.logged_with = get_contextvars()
        for number in numbers:
            await connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": number})
        return [number * 10 for number in numbers]


@pytest.fixture
async def numbers(cluster: Cluster) -> Numbers:
    async with cluster.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE numbers (n int CHECK (n >= 0))"))
    return Numbers(cluster)


async def stored(cluster: Cluster) -> list[int]:
    return sorted(row.n for row in await cluster.rows("SELECT n FROM numbers"))


async def test_what_arrives_together_shares_a_commit(cluster: Cluster, numbers: Numbers) -> None:
    results = await asyncio.gather(*(numbers.commit.submit(n) for n in range(50)))

    assert results == [n * 10 for n in range(50)]
    assert len(numbers.batches) <= 2
    assert await stored(cluster) == list(range(50))


async def test_items_of_one_key_never_share_a_batch(numbers: Numbers) -> None:
    await asyncio.gather(*(numbers.commit.submit(n) for n in (1, 101, 201)))

    assert all(len({n % 100 for n in batch}) == len(batch) for batch in numbers.batches)


async def test_a_batch_is_not_logged_as_the_business_of_whoever_came_first(
    numbers: Numbers,
) -> None:
    with bound_contextvars(agent="first"):
        await numbers.commit.submit(1)

    assert numbers.logged_with == {}


async def test_one_bad_item_fails_alone(cluster: Cluster, numbers: Numbers) -> None:
    results = await asyncio.gather(
        *(numbers.commit.submit(n) for n in (1, 2, -3, 4)), return_exceptions=True
    )

    assert isinstance(results[2], IntegrityError)
    assert [results[index] for index in (0, 1, 3)] == [10, 20, 40]
    assert await stored(cluster) == [1, 2, 4]


async def test_a_batch_waits_for_others_as_long_as_it_is_told_to(cluster: Cluster) -> None:
    batches: list[list[int]] = []
    waits = asyncio.Event()

    async def write(_: AsyncConnection, numbers: Sequence[int]) -> Sequence[int]:
        batches.append(list(numbers))
        return numbers

    def delay_s(items: int) -> float:
        waits.set()
        return 0.2 if items < 3 else 0.0

    commit = GroupCommit(cluster.engine, write, name="numbers", delay_s=delay_s)
    first = asyncio.create_task(commit.submit(1))
    await waits.wait()
    others = [asyncio.create_task(commit.submit(n)) for n in (2, 3, 4)]
    await asyncio.gather(first, *others)
    await asyncio.gather(*(commit.submit(n) for n in (5, 6, 7)))

    assert batches == [[1, 2, 3, 4], [5, 6, 7]]


async def test_a_cancelled_caller_neither_loses_its_item_nor_disturbs_the_others(
    cluster: Cluster, numbers: Numbers
) -> None:
    tasks = [asyncio.create_task(numbers.commit.submit(n)) for n in range(3)]
    await asyncio.sleep(0)

    tasks[1].cancel()
    await asyncio.wait(tasks)
    await numbers.commit.flush()

    assert tasks[1].cancelled()
    assert await stored(cluster) == [0, 1, 2]


async def test_a_lost_connection_is_waited_out(cluster: Cluster) -> None:
    tries = 0

    async def step(connection: AsyncConnection) -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return tries

    assert await persist(cluster.engine, step, name="test") == 2


async def test_a_value_that_the_driver_refuses_is_not_tried_for_ever(cluster: Cluster) -> None:
    async with asyncio.timeout(scaled(5)):
        with pytest.raises(DataError):
            await persist(
                cluster.engine,
                lambda connection: connection.execute(text("SELECT :it"), {"it": "\0"}),
                name="refused",
            )

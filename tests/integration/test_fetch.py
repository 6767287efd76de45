from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.fetch import fetch
from app.storage.group_commit import is_transient, persist
from tests.support.database_cluster import Cluster

pytestmark = pytest.mark.anyio

MANY = text("SELECT n, CAST(:id AS uuid) AS id, '50%' AS part FROM generate_series(1, :count) AS n")
MAKE = text("CREATE TABLE things (name text PRIMARY KEY)")
ADD = text("INSERT INTO things (name) VALUES (:name)")
COUNT = text("SELECT count(*) AS things FROM things")
END_MYSELF = text("SELECT pg_terminate_backend(pg_backend_pid())")


async def things(cluster: Cluster) -> int:
    async with cluster.engine.begin() as connection:
        [row] = await fetch(connection, COUNT, {})
        return int(row.things)


async def test_rows_have_the_columns_of_the_statement(cluster: Cluster) -> None:
    id_ = uuid4()

    async with cluster.engine.begin() as connection:
        rows = await fetch(connection, MANY, {"id": id_, "count": 2})
        same = (await connection.execute(MANY, {"id": id_, "count": 2})).all()

    assert [(row.n, row.id, row.part) for row in rows] == [(1, id_, "50%"), (2, id_, "50%")]
    assert [tuple(row) for row in rows] == [tuple(row) for row in same]
    assert isinstance(rows[0].id, UUID)


async def test_it_is_part_of_the_transaction_around_it(cluster: Cluster) -> None:
    async with cluster.engine.begin() as connection:
        assert await fetch(connection, MAKE, {}) == []
        assert await fetch(connection, ADD, {"name": "kept"}) == []

    async def add(connection: AsyncConnection) -> None:
        await fetch(connection, ADD, {"name": "lost"})
        await fetch(connection, ADD, {"name": "kept"})

    with pytest.raises(IntegrityError):
        await cluster.commit(add)

    assert await things(cluster) == 1


async def test_errors_are_those_of_sqlalchemy_and_keep_values_to_themselves(
    cluster: Cluster,
) -> None:
    async def error_of(statement: str, value: str) -> DBAPIError:
        with pytest.raises(DBAPIError) as caught:
            await cluster.commit(lambda c: fetch(c, text(statement), {"it": value}))
        assert value not in str(caught.value)
        return caught.value

    refused = await error_of("SELECT CAST(:it AS text)", "secret\0")
    unknown = await error_of("SELECT CAST(:it AS text) FROM nowhere", "secret")

    assert isinstance(refused, DataError)
    assert isinstance(unknown, ProgrammingError)
    assert not is_transient(refused)
    assert not is_transient(unknown)


async def test_a_lost_connection_is_told_as_one_and_replaced(
    cluster: Cluster,
) -> None:
    errors: list[DBAPIError] = []

    async def step(connection: AsyncConnection) -> int:
        try:
            if not errors:
                await fetch(connection, END_MYSELF, {})
            return len(await fetch(connection, MANY, {"id": uuid4(), "count": 3}))
        except DBAPIError as error:
            errors.append(error)
            raise

    assert await persist(cluster.engine, step, name="test") == 3
    assert [is_transient(error) for error in errors] == [True]
    assert errors[0].connection_invalidated

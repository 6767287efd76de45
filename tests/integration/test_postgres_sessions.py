"""Sessions of Postgres: their parameters, their renewal, and servers that cannot serve them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import ConfigurationError, ServiceUnavailable
from app.storage import schema
from app.storage.group_commit import persist
from app.storage.session import create_engine, create_sync_engine
from tests.support.databases import administration
from tests.support.servers import Pooler, free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio

#: The session was left on a server that refuses everything with this state.
LEFT = """
    DO $$ BEGIN
        IF current_setting('test.stranded', true) = 'on' THEN
            RAISE EXCEPTION 'left behind' USING ERRCODE = '{state}';
        END IF;
    END $$
"""
STATES = ("25006", "53100", "57P03", "58030", "53200", "58P01")


@pytest.fixture
def sync_engine(database_url: str) -> Iterator[Engine]:
    engine = create_sync_engine(database_url, application_name="agentchord test", pool_size=1)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("state", STATES)
async def test_a_session_that_was_left_on_a_server_that_refuses_is_renewed(
    database_url: str, state: str
) -> None:
    engine = create_engine(database_url, max_connections=1)
    async with engine.begin() as connection:
        await connection.execute(text("SET SESSION test.stranded = 'on'"))

    async def step(connection: AsyncConnection) -> str:
        await connection.execute(text(LEFT.format(state=state)))
        return "done"

    assert await persist(engine, step, name="step") == "done"
    await engine.dispose()


@pytest.mark.parametrize("state", STATES)
def test_the_heartbeats_session_is_renewed(sync_engine: Engine, state: str) -> None:
    def step(connection: Connection) -> None:
        connection.execute(text(LEFT.format(state=state)))

    with sync_engine.begin() as connection:
        connection.execute(text("SET SESSION test.stranded = 'on'"))
    with pytest.raises(DBAPIError), sync_engine.begin() as connection:
        step(connection)

    with sync_engine.begin() as connection:
        step(connection)


async def test_a_session_that_became_read_only_is_renewed(database_url: str) -> None:
    engine = create_engine(database_url, max_connections=1)
    async with engine.begin() as connection:
        await connection.execute(text("SET SESSION default_transaction_read_only = on"))

    async def step(connection: AsyncConnection) -> None:
        await connection.execute(text("CREATE TABLE written (n int)"))

    await persist(engine, step, name="step")
    await engine.dispose()


def test_an_error_of_a_statement_renews_nothing(sync_engine: Engine) -> None:
    def pid() -> int:
        with sync_engine.begin() as connection:
            return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    before = pid()
    with pytest.raises(DBAPIError), sync_engine.begin() as connection:
        connection.execute(text("SELECT 1 / 0"))

    assert pid() == before


def test_no_session_is_made_on_a_server_that_accepts_no_writes(database_url: str) -> None:
    server = make_url(database_url)
    with administration(server) as connection:
        connection.execute(
            f"ALTER DATABASE {server.database} SET default_transaction_read_only = on".encode()
        )

    with pytest.raises(ServiceUnavailable, match="read-only"):
        schema.require(database_url)

    schema.require(f"{database_url}&target_session_attrs=any")


def parameters_of(database_url: str) -> tuple[str, str]:
    """The folder and the port of the socket."""
    query = make_url(database_url).query
    return str(query["host"]), str(query["port"])


@pytest.mark.parametrize(
    "hosts", ["?host={dead},{live}&port={port},{port}", "?host=127.0.0.1:{free}&host={live}"]
)
async def test_several_hosts_may_be_given(database_url: str, tmp_path: Path, hosts: str) -> None:
    live, port = parameters_of(database_url)
    name = make_url(database_url).database
    written = hosts.format(dead=tmp_path, live=quote(live), port=port, free=free_port())
    url = f"postgresql://agentchord@/{name}{written}"

    schema.require(url)
    engine = create_engine(url)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT current_database()"))).scalar_one() == name
    await engine.dispose()


async def test_the_parameters_of_the_url_hold_in_every_session(database_url: str) -> None:
    options = quote(
        "-c statement_timeout=7s -c search_path=public -c timezone=Asia/Tokyo "
        "-c default_transaction_isolation=serializable"
    )
    url = f"{database_url}&application_name=billing&connect_timeout=3&options={options}"
    question = text("""
        SELECT concat_ws(' | ', current_setting('statement_timeout'),
            current_setting('search_path'), current_setting('lock_timeout'),
            current_setting('timezone'), current_setting('transaction_isolation'),
            current_setting('application_name'))
    """)

    engine = create_engine(url, application_name="agentchord worker 7")
    async with engine.connect() as connection:
        asynchronous = (await connection.execute(question)).scalar_one()
    await engine.dispose()
    with create_sync_engine(url, application_name="agentchord worker 7").connect() as connected:
        synchronous = connected.execute(question).scalar_one()

    expected = "7s | public | 20s | UTC | read committed | agentchord billing worker 7"
    assert (asynchronous, synchronous) == (expected, expected)


@pytest.mark.parametrize(
    ("pooler", "word"),
    [
        ({"drops_settings": True, "own_ids": False}, "drops the settings"),
        ({"drops_settings": False, "own_ids": True}, "shares sessions"),
        ({"drops_settings": True, "own_ids": True}, "drops the settings"),
    ],
)
async def test_a_pooler_is_refused_by_name(
    database_url: str, pooler: dict[str, bool], word: str
) -> None:
    folder, port = parameters_of(database_url)
    name = make_url(database_url).database
    with Pooler(Path(folder, f".s.PGSQL.{port}"), **pooler) as standing:
        url = f"postgresql://agentchord@127.0.0.1:{standing.port}/{name}"
        engine = create_engine(url)

        for refused in (schema.require, schema.upgrade):
            with pytest.raises(ConfigurationError, match=f"such as PgBouncer, which {word}"):
                refused(url)
        with pytest.raises(ConfigurationError, match="connect directly to Postgres"):
            async with engine.connect():
                pass
        await engine.dispose()

    with closing(administration(make_url(database_url))) as connection:
        wait_until(lambda: sessions_of(connection, name) == 0, what="the sessions are closed")


def test_what_passes_everything_on_is_no_pooler(database_url: str) -> None:
    folder, port = parameters_of(database_url)
    name = make_url(database_url).database
    with Pooler(Path(folder, f".s.PGSQL.{port}"), drops_settings=False, own_ids=False) as standing:
        schema.require(f"postgresql://agentchord@127.0.0.1:{standing.port}/{name}")


def sessions_of(connection: psycopg.Connection, name: str | None) -> int:
    question = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
    found = connection.execute(question, [name]).fetchone()
    assert found is not None
    return int(found[0])

"""``sql_query`` reads, and no query changes anything."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, ReadOnlySqlTransaction
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from app.configuration.sections import Database
from app.embedded.postgres import SUPERUSER
from app.errors import ConfigurationError
from app.sandbox.processes import Sandbox
from app.tools.builtin.sql import sql_tools
from tests.support.markdown import ROOT, blocks
from tests.support.pace import scaled
from tests.support.query_tools import make_items, plain, query_tools, read
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio

WRITES = [
    "INSERT INTO items VALUES (9, 'x')",
    "DROP TABLE items",
    "WITH gone AS (DELETE FROM items RETURNING id) SELECT * FROM gone",
    "SELECT 1; DROP TABLE items",
    "SELECT 1; COMMIT; DROP TABLE items",
    "/* SELECT */ DROP TABLE items",
    "-- SELECT\nDROP TABLE items",
    "EXPLAIN ANALYZE DELETE FROM items",
    "SELECT * INTO other FROM items",
    "COMMIT",
    "SET TRANSACTION READ WRITE",
    "PRAGMA query_only = OFF",
    "ATTACH DATABASE 'other.db' AS other",
    "VACUUM",
    "CREATE TABLE other (id int)",
    "TRUNCATE items",
    "COPY items TO '/tmp/items'",
    "",
]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'shop #1.db'}"
    else:
        url = str(request.getfixturevalue("database_url"))
    make_items(url)
    return url


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_query_with_parameters_gives_columns_and_rows(url: str, sandbox: Sandbox) -> None:
    found = await query_tools(url, sandbox).sql_query(
        "SELECT id, name FROM items WHERE id < :below AND name <> :name ORDER BY id;",
        {"below": 3, "name": "item 1' OR 1=1 --", "unused": 1},
    )

    rows = '[[0,"item 0"],[1,"item 1"],[2,"item 2"]]'
    assert found == f'{{"columns":["id","name"],"rows":{rows},"more":false}}'


async def test_a_result_without_rows_has_columns(url: str, sandbox: Sandbox) -> None:
    found = await read(query_tools(url, sandbox), "SELECT id, name AS id FROM items WHERE id < 0")

    assert found == {"columns": ["id", "id"], "rows": [], "more": False}


async def test_only_so_many_rows_are_read(url: str, sandbox: Sandbox) -> None:
    tools = query_tools(url, sandbox, max_rows=2)

    found = await read(tools, "SELECT id FROM items ORDER BY id")

    assert (found["rows"], found["more"]) == ([[0], [1]], True)
    assert (await read(tools, "SELECT id FROM items WHERE id < 2"))["more"] is False


@pytest.mark.parametrize("statement", WRITES)
async def test_nothing_can_be_changed(url: str, statement: str, sandbox: Sandbox) -> None:
    tools = query_tools(url, sandbox)

    with pytest.raises(ValueError, match=r"refuses the query|begin it with|one statement|no rows"):
        await tools.sql_query(statement)

    found = await read(tools, "SELECT count(*), sum(id) FROM items")
    assert found["rows"] == [[300, 44850]]


async def test_a_query_cannot_leave_its_statement(database_url: str, sandbox: Sandbox) -> None:
    tools = query_tools(database_url, sandbox)

    with pytest.raises(ValueError, match="syntax error"):
        await tools.sql_query("SELECT 1) AS a UNION ALL SELECT 2 FROM (SELECT 1")
    with pytest.raises(ValueError, match="NUL"):
        await tools.sql_query("SELECT 1 \0 nonsense")

    assert (await read(tools, "SELECT 1 AS a, ')' AS a -- )"))["rows"] == [[1, ")"]]


async def test_a_plan_can_be_read(url: str, sandbox: Sandbox) -> None:
    tools = query_tools(url, sandbox)
    words = "QUERY PLAN" if url.startswith("sqlite") else "(ANALYZE, COSTS off, FORMAT json)"

    found = await read(tools, f"explain {words} SELECT id FROM items")

    assert "items" in str(found["rows"])


async def test_a_mistake_is_explained(url: str, sandbox: Sandbox) -> None:
    tools = query_tools(url, sandbox)

    with pytest.raises(ValueError, match=r"the database refuses the query: .*nowhere"):
        await tools.sql_query("SELECT * FROM nowhere")
    with pytest.raises(ValueError, match="required for bind parameter 'id'"):
        await tools.sql_query("SELECT * FROM items WHERE id = :id")
    with pytest.raises(ValueError, match="no database 'other': use one of 'shop'"):
        await tools.sql_query("SELECT 1", database="other")


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nowhere.invalid"])
async def test_no_error_of_a_connection_has_the_password(host: str, sandbox: Sandbox) -> None:
    tools = query_tools(f"postgresql://me:hidd%40n@{host}/x?connect_timeout=5", sandbox)

    with pytest.raises(ValueError, match="refuses the query") as caught:
        await tools.sql_query("SELECT 1")

    assert "hidd" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("oracle://me:hidden@db/x", "'oracle' databases are not supported"),
        ("mysql://me:hidden@db/x", "'mysql' databases are not supported, because no test proves"),
        ("mariadb+pymysql://me:hidden@db/x", "'mariadb' databases are not supported"),
        ("postgresql+asyncpg://me:hidden@db/x", r"write postgresql\+psycopg://"),
        ("hidden", "url is not a URL"),
        ("sqlite://", "path of a SQLite file"),
        ("postgresql+nothing://me:hidden@db/x", "nothing"),
    ],
)
def test_a_database_that_cannot_be_guarded_is_refused_at_the_start(
    url: str, problem: str, sandbox: Sandbox
) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        query_tools(url, sandbox)

    assert str(caught.value).startswith("tools.sql.shop: ")
    assert "hidden" not in str(caught.value)


async def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="unable to open"):
        await query_tools(f"sqlite:///{tmp_path / 'gone.db'}", sandbox).sql_query("SELECT 1")

    assert names_in(tmp_path) == []


async def test_a_file_with_a_log_and_with_long_definitions_is_read(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute(f"CREATE TABLE items (id int, photo blob, {'x' * 5000} int)")
        file.execute("CREATE VIRTUAL TABLE words USING fts5(word)")
        file.execute("INSERT INTO items VALUES (1, zeroblob(12000000), 2)")
        file.execute("INSERT INTO words VALUES ('blue')")
        file.commit()
    tools = query_tools(f"sqlite:///{path}", sandbox, max_bytes=1000)

    assert (await read(tools, "SELECT id FROM items"))["rows"] == [[1]]
    found = await read(tools, "SELECT word FROM words WHERE words MATCH 'blue'")
    assert found["rows"] == [["blue"]]


SQLITE_ESCAPES = [
    "SELECT load_extension('x')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT * FROM pragma_query_only",
    "SELECT * FROM pragma_database_list",
    "WITH a AS (SELECT 1) INSERT INTO items SELECT 1, 'x'",
    "WITH a AS (SELECT 1) DELETE FROM sqlite_master",
    "WITH a AS (SELECT 1) UPDATE sqlite_master SET sql = 'x'",
    "EXPLAIN ATTACH 'other.db' AS other",
    "EXPLAIN PRAGMA writable_schema = ON",
    "EXPLAIN CREATE TABLE other (a)",
]


@pytest.mark.parametrize("query", SQLITE_ESCAPES)
async def test_sqlite_does_nothing_but_read(query: str, tmp_path: Path, sandbox: Sandbox) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    make_items(url)
    before = (tmp_path / "shop.db").read_bytes()

    with pytest.raises(ValueError, match=r"not authorized|no such|may not|begin it"):
        await query_tools(url, sandbox).sql_query(query)

    assert names_in(tmp_path) == ["shop.db"]
    assert (tmp_path / "shop.db").read_bytes() == before


SET, FUNCTION, WORD = "must be set before any query", "not allowed in a non-volatile", "begin it"
READ_ONLY, RIGHTS = "in a read-only transaction", "permission denied"
#: Statements, and what stops them: the check of the beginning, the read-only transaction, or the
#: rights of an ordinary user.
POSTGRES_ESCAPES = {
    "SELECT set_config('transaction_read_only', 'off', true)": SET,
    "VALUES (set_config('transaction_read_only', 'off', false))": SET,
    "SELECT query_to_xml('SET TRANSACTION READ WRITE', true, true, '')": FUNCTION,
    "SELECT query_to_xml('DELETE FROM items', true, true, '')": FUNCTION,
    "SELECT query_to_xml('COPY items TO PROGRAM ''id''', true, true, '')": FUNCTION,
    "SELECT query_to_xml('COMMIT', true, true, '')": "invalid query",
    "SELECT set_config('role', 'postgres', false)": RIGHTS,
    "SELECT set_config('session_authorization', 'postgres', false)": RIGHTS,
    "SELECT nextval('numbers')": READ_ONLY,
    "SELECT id FROM items FOR UPDATE": READ_ONLY,
    "SELECT lo_create(0)": READ_ONLY,
    "SELECT lo_from_bytea(0, 'x')": READ_ONLY,
    "SELECT empty_items()": READ_ONLY,
    "EXPLAIN ANALYZE SELECT empty_items()": READ_ONLY,
    # A read-only transaction alone does not stop this.
    "EXPLAIN ANALYZE CREATE TABLE other AS SELECT 1": WORD,
    "EXPLAIN (ANALYZE, COSTS off) CREATE TABLE other AS SELECT 1": WORD,
    "EXPLAIN ANALYZE /* SELECT */ CREATE TABLE other AS SELECT 1": WORD,
    "EXPLAIN ANALYZE -- SELECT\n CREATE TABLE other AS SELECT 1": WORD,
    "SELECT lo_import('/etc/hostname')": RIGHTS,
    "SELECT lo_export(1, '/tmp/x')": RIGHTS,
    "SELECT pg_read_file('/etc/hostname')": RIGHTS,
    "SELECT pg_ls_dir('/')": RIGHTS,
    "SELECT pg_reload_conf()": RIGHTS,
    "SELECT pg_switch_wal()": RIGHTS,
    "SELECT * FROM dblink('dbname=x', 'SELECT 1') AS t(a int)": "does not exist",
    "COPY items TO PROGRAM 'id'": WORD,
    "LISTEN other": WORD,
    "LOCK TABLE items": WORD,
    "DO 'BEGIN END'": WORD,
    "CALL empty_items()": WORD,
    "SET ROLE postgres": WORD,
}


@pytest.fixture
def shop(database_url: str) -> str:
    """A database with a sequence, and with a function that writes."""
    make_items(database_url)
    with psycopg.connect(plain(database_url)) as connection:
        connection.execute("CREATE SEQUENCE numbers")
        connection.execute(
            "CREATE FUNCTION empty_items() RETURNS int LANGUAGE sql "
            "AS 'DELETE FROM items RETURNING id'"
        )
    return database_url


@pytest.mark.parametrize("query", POSTGRES_ESCAPES)
async def test_postgres_does_nothing_but_read(query: str, shop: str, sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match=POSTGRES_ESCAPES[query]):
        await query_tools(shop, sandbox).sql_query(query)

    with psycopg.connect(plain(shop)) as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (300,)
        assert connection.execute("SELECT is_called FROM numbers").fetchone() == (False,)
        objects = connection.execute("SELECT count(*) FROM pg_largeobject_metadata")
        assert objects.fetchone() == (0,)


async def test_what_a_query_does_to_its_session_ends_with_it(shop: str, sandbox: Sandbox) -> None:
    tools = query_tools(shop, sandbox)
    with psycopg.connect(plain(shop), autocommit=True) as connection:
        connection.execute("LISTEN shop")

        await tools.sql_query(
            "SELECT pg_advisory_lock(1), pg_notify('shop', 'of the query'), "
            "set_config('search_path', 'other', false), "
            "set_config('default_transaction_read_only', 'off', false)"
        )

        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
        locks += "(SELECT oid FROM pg_database WHERE datname = current_database())"
        wait_until(lambda: connection.execute(locks.encode()).fetchone() == (0,))
        connection.execute("NOTIFY shop, 'later'")
        assert next(connection.notifies(timeout=scaled(30))).payload == "later"
    assert (await read(tools, "SELECT count(*) FROM items"))["rows"] == [[300]]


async def test_a_superuser_is_refused(shop: str, sandbox: Sandbox) -> None:
    url = make_url(shop).set(username=SUPERUSER).render_as_string(hide_password=False)

    with pytest.raises(ValueError, match="superuser"):
        await query_tools(url, sandbox).sql_query("SELECT pg_read_file('/etc/hostname')")


@pytest.fixture
def reader(shop: str) -> Iterator[str]:
    """URL for the role of docs/tools.md."""
    page = blocks(ROOT / "docs/tools.md")
    (statements,) = (block.text for block in page if "CREATE ROLE" in block.text)
    server = make_url(shop)
    with psycopg.connect(plain(shop)) as connection:
        connection.execute("CREATE SCHEMA reports CREATE TABLE totals (total int)")
    superuser = plain(server.set(username=SUPERUSER).render_as_string(hide_password=False))
    with psycopg.connect(superuser, autocommit=True) as connection:
        try:
            connection.execute(statements.encode())
            yield server.set(username="agents_reader").render_as_string(hide_password=False)
        finally:
            connection.execute("DROP OWNED BY agents_reader")
            connection.execute("DROP ROLE agents_reader")


async def test_the_role_of_the_docs_reads_its_schema_and_nothing_else(
    reader: str, sandbox: Sandbox
) -> None:
    tools = query_tools(reader, sandbox)

    assert (await read(tools, "SELECT * FROM reports.totals"))["rows"] == []
    for query in (
        "SELECT * FROM items",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity",
    ):
        with pytest.raises(ValueError, match="permission denied for"):
            await tools.sql_query(query)
    with psycopg.connect(plain(reader), autocommit=True) as connection:
        with pytest.raises(ReadOnlySqlTransaction):
            connection.execute("CREATE TABLE reports.other (a int)")
        with pytest.raises(InsufficientPrivilege):
            connection.execute("SET temp_file_limit = -1")
        assert connection.execute("SHOW temp_file_limit").fetchone() == ("1GB",)


def test_the_model_is_told_the_names_of_the_databases(sandbox: Sandbox) -> None:
    (tool,) = sql_tools({"shop": Database(url=SecretStr("sqlite:////shop.db"))}, sandbox)

    assert sql_tools({}, sandbox) == ()
    assert (tool.name, tool.idempotent) == ("sql_query", True)
    assert tool.description.endswith("Databases: shop.")

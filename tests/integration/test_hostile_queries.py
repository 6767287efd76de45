"""A hostile query has bounds on time, memory and bytes, and ends with its process or session."""

import asyncio
import json
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest

from app.sandbox.processes import QUERY_PLACES, Sandbox
from app.sandbox.turns import Turn, current_turn
from app.tools.builtin.sql import QueryTools
from app.tools.tool import Tool
from tests.support.cheapness import MAX_LOOP_S, MAX_MEMORY_BYTES, cost_of
from tests.support.pace import scaled
from tests.support.query_tools import make_items, plain, query_tools
from tests.support.sandboxes import sandbox_processes
from tests.support.waiting import wait_until_async

LONG = "hex(zeroblob(499000))"
MILLION = "items AS a, items AS b, items AS c"
INSTR = f"instr({LONG}, substr({LONG}, 1, 400000) || '1')"
ROWS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
NAMES = f'WITH n AS (SELECT 1 AS "{"x" * 60_000}")'
#: No step of this query lets SQLite look at the clock.
ENDLESS = f"SELECT {INSTR} + {INSTR} + {INSTR}"
#: Queries on SQLite that would take time, memory or bytes without a bound.
SQLITE = {
    "endless rows": f"{ROWS} SELECT max(i) FROM n",
    "endless result": f"{ROWS} SELECT i, hex(randomblob(400)) FROM n",
    "instr": f"SELECT {INSTR}",
    "instr again": f"SELECT sum({INSTR}) FROM {MILLION}",
    "like": f"SELECT {LONG} LIKE '%' || substr({LONG}, 1, 40000) || '1'",
    "glob": f"SELECT {LONG} GLOB '*' || substr({LONG}, 1, 40000) || '1'",
    "replace": f"SELECT replace({LONG}, '0', {LONG})",
    "replace again": f"{ROWS} SELECT sum(length(replace({LONG} || i, '00', '0'))) FROM n",
    "printf": f"{ROWS} SELECT sum(length(printf('%*d', 900000, i))) FROM n",
    "zeroblob": "SELECT zeroblob(900000000)",
    "randomblob": "SELECT hex(randomblob(900000000))",
    "group_concat": f"{ROWS} SELECT group_concat({LONG}) FROM n",
    "groups": f"{ROWS} SELECT group_concat(hex(zeroblob(200000))) AS a FROM n GROUP BY i % 5000",
    "json_group_array": f"{ROWS} SELECT json_group_array({LONG}) FROM n",
    "sort": f"{ROWS} SELECT randomblob(900000) AS a FROM n ORDER BY a",
    "distinct": f"{ROWS} SELECT count(DISTINCT randomblob(900000)) FROM n",
    "wide": f"SELECT {', '.join(['hex(zeroblob(400000))'] * 1900)}",
    "recursion": "WITH RECURSIVE n(i, b) AS (SELECT 1, zeroblob(900000) UNION ALL "
    "SELECT i + 1, randomblob(900000) FROM n ORDER BY 1) SELECT max(i), max(b) FROM n",
    "materialized": f"{ROWS}, m AS MATERIALIZED (SELECT randomblob(900000) AS b FROM n) "
    "SELECT count(*) FROM m AS a, m AS b",
    "compound": " UNION ALL ".join(["SELECT 1"] * 490),
    "nested": "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
    "names": f"{NAMES} SELECT * FROM {', '.join(f'n AS n{number}' for number in range(60))}",
    "joins": "SELECT count(*) FROM " + ", ".join(f"items AS a{number}" for number in range(60)),
}
SLEEP = "set_config('statement_timeout', '0', true), i, CASE WHEN i > 20 THEN pg_sleep(300) END"
WIDE = ", ".join(["repeat('x', 900000)"] * 200)
#: Queries on Postgres that take long.
LONG_QUERIES = {
    "sleep": "SELECT pg_sleep(300)",
    "sleep without a timeout": f"SELECT {SLEEP} FROM generate_series(1, 1000) AS i",
    "endless rows": "SELECT max(i) FROM generate_series(1, 1000000000000) AS i",
    "cancelled in vain": "SELECT sleep_on()",
    "flood of notices": "SELECT flood()",
}
#: Queries on Postgres with large results.
LARGE_QUERIES = {
    "plan": "EXPLAIN VERBOSE SELECT repeat('x', 60000000)",
    "plan of many": f"EXPLAIN VERBOSE SELECT {WIDE}",
    "executed plan": "EXPLAIN (ANALYZE, VERBOSE, FORMAT json) SELECT repeat('x', 60000000)",
    "value": "SELECT repeat('x', 60000000)",
    "value that fits into memory": "SELECT repeat('x', 20000000)",
    "values": f"SELECT {WIDE}",
    "bytes": "SELECT decode(repeat('ff', 20000000), 'hex')",
    "array": "SELECT array_agg(i) FROM generate_series(1, 3000000) AS i",
    "array of texts": "SELECT array_fill(repeat('x', 100000), ARRAY[300])",
    "row": "SELECT ROW(repeat('x', 20000000), repeat('x', 20000000))",
    "json": "SELECT to_json(repeat('x', 20000000))",
    "rows": "SELECT repeat('x', 100000) FROM generate_series(1, 10000)",
    "many rows": "SELECT i, 'xxxxxxxxxx' FROM generate_series(1, 1000000) AS i",
    "compressed": "SELECT name FROM compressed",
    "deep": "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
    "long error": "SELECT repeat('9', 20000000)::int",
}
COMPRESSED = "CREATE TABLE compressed AS SELECT repeat('x', 60000000) AS name"
FLOOD = """
    CREATE FUNCTION flood() RETURNS int LANGUAGE plpgsql AS $$
    BEGIN LOOP RAISE NOTICE '%', repeat('x', 1000000); END LOOP; END $$
"""
SLEEP_ON = """
    CREATE FUNCTION sleep_on() RETURNS int LANGUAGE plpgsql AS $$
    BEGIN FOR i IN 1..3 LOOP
        BEGIN PERFORM pg_sleep(1); EXCEPTION WHEN query_canceled THEN NULL; END;
    END LOOP; RETURN 1; END $$
"""
REFUSALS = (
    r"took over . s and was cancelled|over 1,000,000 bytes|too much memory|too big|out of memory"
    r"|too many|stack overflow|memory exhausted|at most 64 tables|too complex|out of range"
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return str(request.getfixturevalue("file_url"))
    url = str(request.getfixturevalue("database_url"))
    make_items(url)
    return url


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    make_items(url)
    return url


def assert_refused_cheaply(tools: QueryTools, query: str) -> None:
    """A query ends in time with an error for the model, and takes little of the worker."""

    async def attack() -> None:
        with pytest.raises(ValueError, match=REFUSALS) as caught:
            await tools.sql_query(query)
        assert len(str(caught.value)) < 500

    cost = cost_of(lambda: asyncio.wait_for(attack(), scaled(60)))

    assert cost.loop_s < MAX_LOOP_S
    assert cost.memory_bytes < MAX_MEMORY_BYTES


@pytest.mark.parametrize("name", SQLITE)
def test_a_query_on_sqlite_has_bounds(name: str, file_url: str, sandbox: Sandbox) -> None:
    tools = query_tools(file_url, sandbox, timeout_s=2, max_rows=100_000)

    assert_refused_cheaply(tools, SQLITE[name])

    assert "item 7" in asyncio.run(tools.sql_query("SELECT name FROM items WHERE id = 7"))


@pytest.mark.parametrize("name", [*LONG_QUERIES, *LARGE_QUERIES])
def test_a_query_on_postgres_has_bounds(name: str, database_url: str, sandbox: Sandbox) -> None:
    timeout_s = 2 if name in LONG_QUERIES else 9
    tools = query_tools(database_url, sandbox, timeout_s=timeout_s, max_rows=100_000)
    with psycopg.connect(plain(database_url)) as connection:
        for statement in (FLOOD, SLEEP_ON, COMPRESSED):
            connection.execute(statement)

    assert_refused_cheaply(tools, (LONG_QUERIES | LARGE_QUERIES)[name])

    assert asyncio.run(no_query_goes_on(database_url))


def test_the_names_of_columns_are_bytes_of_the_result(url: str, sandbox: Sandbox) -> None:
    tools = query_tools(url, sandbox, max_bytes=1000)
    name = "x" * 60

    for rows in (0, 1):
        columns = ", ".join([f'id AS "{name}"'] * 20)
        with pytest.raises(ValueError, match="over 1,000 bytes"):
            asyncio.run(tools.sql_query(f"SELECT {columns} FROM items LIMIT {rows}"))


@pytest.mark.parametrize("rows", range(1, 40))
def test_the_result_never_has_more_bytes_than_the_limit(
    rows: int, file_url: str, sandbox: Sandbox
) -> None:
    query = "SELECT id, name || char(955, 34) AS name FROM items ORDER BY id LIMIT :rows"
    whole = asyncio.run(query_tools(file_url, sandbox).sql_query(query, {"rows": rows}))
    tools = query_tools(file_url, sandbox, max_bytes=1000)

    if len(whole.encode()) <= 1000:
        assert asyncio.run(tools.sql_query(query, {"rows": rows})) == whole
    else:
        with pytest.raises(ValueError, match="over 1,000 bytes"):
            asyncio.run(tools.sql_query(query, {"rows": rows}))


async def no_query_goes_on(url: str) -> bool:
    async with await psycopg.AsyncConnection.connect(plain(url), autocommit=True) as connection:

        async def none_is_left() -> bool:
            found = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()"
            )
            return await found.fetchone() == (0,)

        return await wait_until_async(none_is_left, timeout_s=scaled(60))


@pytest.mark.anyio
async def test_a_query_that_nobody_waits_for_ends(url: str) -> None:
    """A cancelled run and a drain cancel the task of the tool."""
    is_file = url.startswith("sqlite")
    query = ENDLESS if is_file else "SELECT pg_sleep(600)"
    with closing(Sandbox()) as sandbox:
        tools = query_tools(url, sandbox, timeout_s=600)
        others = {process.pid for process in sandbox_processes()}
        task = asyncio.create_task(Tool(tools.sql_query).call(json.dumps({"query": query})))
        await is_running(url, query, others)

        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

        await no_process_is_left(others)
        if not is_file:
            assert await no_query_goes_on(url)
        assert "1" in await query_tools(url, sandbox).sql_query("SELECT 1")


@pytest.mark.anyio
async def test_a_worker_that_closes_ends_its_queries(database_url: str) -> None:
    sandbox = Sandbox()
    others = {process.pid for process in sandbox_processes()}
    tools = query_tools(database_url, sandbox, timeout_s=600)
    task = asyncio.create_task(tools.sql_query("SELECT pg_sleep(600)"))
    await is_running(database_url, "SELECT pg_sleep(600)", others)

    sandbox.close()

    with pytest.raises(ValueError, match="the query took"):
        await task
    await no_process_is_left(others)
    assert await no_query_goes_on(database_url)


async def is_running(url: str, query: str, others: set[int]) -> None:
    """Wait until a query runs: a process computes, or the server knows the query."""

    async def runs() -> bool:
        if url.startswith("sqlite"):
            own = [process for process in sandbox_processes() if process.pid not in others]
            return any(process.cpu_times().user > 1 for process in own)
        connection = await psycopg.AsyncConnection.connect(plain(url))
        async with connection:
            found = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE query = %s AND state = 'active'",
                [query],
            )
            return await found.fetchone() == (1,)

    await wait_until_async(runs, timeout_s=scaled(60))


async def no_process_is_left(others: set[int]) -> None:
    async def none_is_left() -> bool:
        return {process.pid for process in sandbox_processes()} <= others

    await wait_until_async(none_is_left, timeout_s=scaled(30))


@pytest.mark.anyio
async def test_queries_of_one_run_do_not_hold_up_another_run(
    file_url: str, sandbox: Sandbox
) -> None:
    slow = query_tools(file_url, sandbox, timeout_s=600)
    current_turn.set(Turn("one", "run"))
    tasks = [asyncio.create_task(slow.sql_query(ENDLESS)) for _ in range(2 * QUERY_PLACES)]
    await asyncio.sleep(0)

    current_turn.set(Turn("other", "run"))
    found = await asyncio.wait_for(slow.sql_query("SELECT 1 AS a"), scaled(120))

    assert '"rows":[[1]]' in found
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

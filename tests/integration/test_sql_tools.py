"""``sql_query`` reads; no query changes anything or takes longer than the limit."""

import resource
import sqlite3
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from app.configuration.sections import Database
from app.errors import ConfigurationError
from app.tools.builtin.sql import QueryTools, Rows, sql_tools
from tests.support.waiting import wait_until

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


def make(url: str) -> None:
    """A table of 300 items."""
    values = [(number, f"item {number}") for number in range(300)]
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
            file.execute("CREATE TABLE items (id int, name text)")
            file.executemany("INSERT INTO items VALUES (?, ?)", values)
        file.close()
        return
    with psycopg.connect(plain(url)) as connection:
        connection.execute("CREATE TABLE items (id int, name text)")
        connection.cursor().executemany("INSERT INTO items VALUES (%s, %s)", values)


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'shop #1.db'}"
    else:
        url = str(request.getfixturevalue("database_url"))
    make(url)
    return url


def tools(url: str, **limits: Any) -> QueryTools:
    return QueryTools({"shop": Database(url=SecretStr(url), **limits)})


def test_a_query_with_parameters_gives_columns_and_rows(url: str) -> None:
    found = tools(url).sql_query(
        "SELECT id, name FROM items WHERE id < :below AND name <> :name ORDER BY id;",
        {"below": 3, "name": "item 1' OR 1=1 --"},
    )

    assert found == Rows(
        columns=["id", "name"], rows=[[0, "item 0"], [1, "item 1"], [2, "item 2"]], more=False
    )


def test_only_so_many_rows_are_read(url: str) -> None:
    found = tools(url, max_rows=2).sql_query("SELECT id FROM items ORDER BY id", database="shop")

    assert (found["rows"], found["more"]) == ([[0], [1]], True)


@pytest.mark.parametrize("statement", WRITES)
def test_nothing_can_be_changed(url: str, statement: str) -> None:
    reader = tools(url)

    with pytest.raises(ValueError, match=r"refuses the query|begin it with|one statement|no rows"):
        reader.sql_query(statement)

    assert reader.sql_query("SELECT count(*) FROM items")["rows"] == [[300]]
    assert reader.sql_query("SELECT sum(id) FROM items")["rows"] == [[44850]]


def test_a_query_that_takes_too_long_is_stopped(url: str) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"

    with pytest.raises(ValueError, match=r"took over 0\.1 s and was cancelled \(timeout\)"):
        tools(url, timeout_s=0.1).sql_query(endless)


def test_a_query_that_switches_off_its_own_timeout_is_cancelled_from_outside(
    database_url: str,
) -> None:
    query = """
        SELECT set_config('statement_timeout', '0', true), i,
            CASE WHEN i > 20 THEN pg_sleep(60) END
        FROM generate_series(1, 1000) AS i
    """
    started_s = time.monotonic()

    with pytest.raises(ValueError, match="was cancelled"):
        tools(database_url, timeout_s=0.2).sql_query(query)

    assert time.monotonic() - started_s < 30
    with psycopg.connect(plain(database_url)) as connection:
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(60)%%'"
        wait_until(
            lambda: connection.execute(sleeping + " AND pid <> pg_backend_pid()").fetchone() == (0,)
        )


LARGE = {
    "sqlite": "SELECT hex(zeroblob(:size)) FROM items",
    "postgresql": "SELECT repeat('x', :size) FROM items",
}


@pytest.mark.parametrize("size", [100_000, 60_000_000])
def test_a_result_is_stopped_at_a_number_of_bytes(url: str, size: int) -> None:
    reader = tools(url, max_rows=100, timeout_s=100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(ValueError, match=r"over 1,000,000 bytes|too big"):
        reader.sql_query(LARGE[url.partition(":")[0].partition("+")[0]], {"size": size})

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000


def test_a_query_cannot_leave_the_brackets_around_it(database_url: str) -> None:
    escape = "SELECT 1) AS a UNION ALL SELECT length(repeat('x', 9)) FROM (SELECT 1"

    with pytest.raises(ValueError, match="syntax error"):
        tools(database_url).sql_query(escape)

    assert tools(database_url).sql_query("SELECT 1 AS a, ')' AS a -- )")["rows"] == [[1, ")"]]


def test_values_without_a_json_form_become_texts(url: str) -> None:
    if url.startswith("sqlite"):
        query = "SELECT x'ff00', NULL, 1.5"
        expected: list[Any] = ["_wA=", None, 1.5]
    else:
        query = "SELECT DATE '2026-11-21', 1.10, '{\"a\": [1]}'::jsonb, NULL, int4range(1, 3)"
        expected = ["2026-11-21", "1.10", {"a": [1]}, None, "[1, 3)"]

    assert tools(url).sql_query(query)["rows"] == [expected]


def test_a_mistake_is_explained_without_the_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"the database refuses the query: .*nowhere"):
        tools(url).sql_query("SELECT * FROM nowhere")
    with pytest.raises(ValueError, match="required for bind parameter 'id'"):
        tools(url).sql_query("SELECT * FROM items WHERE id = :id")
    with pytest.raises(ValueError, match="no database 'other': use one of 'shop'"):
        tools(url).sql_query("SELECT 1", database="other")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("oracle://me:hidden@db/x", "'oracle' databases cannot be kept read-only"),
        ("hidden", "url is not a URL"),
        ("sqlite://", "path of a SQLite file"),
        ("postgresql+nothing://me:hidden@db/x", "nothing"),
    ],
)
def test_a_database_that_cannot_be_guarded_is_refused_at_the_start(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        tools(url)

    assert str(caught.value).startswith("tools.sql.shop: ")
    assert "hidden" not in str(caught.value)


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unable to open"):
        tools(f"sqlite:///{tmp_path / 'gone.db'}").sql_query("SELECT 1")

    assert list(tmp_path.iterdir()) == []


def test_the_model_is_told_the_names_of_the_databases() -> None:
    (tool,) = sql_tools({"shop": Database(url=SecretStr("sqlite:////shop.db"))})

    assert sql_tools({}) == ()
    assert (tool.name, tool.idempotent) == ("sql_query", True)
    assert tool.description.endswith("Databases: shop.")

"""Each value of a database is JSON in the result of ``sql_query``."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from app.sandbox.processes import Sandbox
from tests.support.databases import administration
from tests.support.query_tools import make_items, query_tools, read

pytestmark = pytest.mark.anyio

SQLITE_VALUES: list[tuple[str, list[Any]]] = [
    ("SELECT x'ff00', NULL, 1.5, 9223372036854775807", ["_wA=", None, 1.5, 2**63 - 1]),
    ("SELECT 9e999, -9e999, 9e999 - 9e999", ["Infinity", "-Infinity", None]),
    ("SELECT CAST(x'61ff' AS text), char(0, 34, 955)", ["a\ufffd", '\0"\u03bb']),
    ("""SELECT value FROM json_each('["a"]')""", ["a"]),
    ("SELECT name FROM pragma_table_info('items') LIMIT 1", ["id"]),
]
POSTGRES_VALUES: list[tuple[str, list[Any]]] = [
    (
        """SELECT DATE '2026-11-21', 1.10, '{"a": [1]}'::jsonb, NULL, int4range(1, 3), true""",
        ["2026-11-21", "1.10", {"a": [1]}, None, "[1, 3)", True],
    ),
    (
        "SELECT 'NaN'::float8, '-Infinity'::float4, 'NaN'::numeric, 'inf'::numeric, 1e-7::float8",
        ["NaN", "-Infinity", "NaN", "Infinity", 1e-7],
    ),
    ("SELECT 9223372036854775807, 1e40::numeric", [2**63 - 1, "1" + "0" * 40]),
    (
        """SELECT 'infinity'::date, make_timestamp(20000, 1, 1, 1, 2, 3), '0044-03-15 BC'::date,
        '-1 year 25 hours'::interval, '24h'::interval::time""",
        ["infinity", "20000-01-01 01:02:03", "0044-03-15 BC", "-1 years +25:00:00", "00:00:00"],
    ),
    (
        r"""SELECT '\xff00'::bytea, ARRAY[1, NULL], ARRAY['infinity'::date], ('a', 1), E'\t"'""",
        ["_wA=", [1, None], ["infinity"], ["a", "1"], '\t"'],
    ),
    ("""SELECT '{"n": 1234567890123456789012345}'::json""", [{"n": 1234567890123456789012345}]),
]


@pytest.mark.parametrize(("query", "expected"), SQLITE_VALUES)
async def test_each_value_of_sqlite_is_json(
    query: str, expected: list[Any], tmp_path: Path, sandbox: Sandbox
) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    make_items(url)

    found = await query_tools(url, sandbox).sql_query(query)

    assert strictly(found)["rows"] == [expected]


@pytest.mark.parametrize(("query", "expected"), POSTGRES_VALUES)
async def test_each_value_of_postgres_is_json(
    query: str, expected: list[Any], database_url: str, sandbox: Sandbox
) -> None:
    found = await query_tools(database_url, sandbox).sql_query(query)

    assert strictly(found)["rows"] == [expected]


def strictly(text: str) -> Any:
    """Read JSON, in which there is no NaN."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


async def test_json_of_any_depth_and_size_stays_json(database_url: str, sandbox: Sandbox) -> None:
    deep = "(repeat('[', 5000) || repeat(']', 5000))"

    found = await query_tools(database_url, sandbox).sql_query(
        f"SELECT {deep}::json AS a, '[1e999]'::json AS b, {deep}::jsonb AS c"
    )

    nested = "[" * 5000 + "]" * 5000
    row = f"[{nested},[1e999],{nested}]"
    assert found == f'{{"columns":["a","b","c"],"rows":[{row}],"more":false}}'


async def test_a_database_of_another_encoding_gives_unicode(
    database_url: str, sandbox: Sandbox
) -> None:
    server = make_url(database_url)
    name = f"{server.database}_latin1"
    options = f"OWNER {server.username} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
    with administration(server) as connection:
        connection.execute(f"CREATE DATABASE {name} {options}".encode())
        try:
            address = server.set(database=name).render_as_string(hide_password=False)
            tools = query_tools(address, sandbox)
            found = await read(tools, "SELECT chr(233), json_build_array(chr(233))")
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    assert found["rows"] == [["\xe9", ["\xe9"]]]

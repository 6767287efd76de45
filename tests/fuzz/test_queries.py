"""Queries of ``sql_query``, which a model writes."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sandbox.processes import Sandbox
from app.tools.builtin.sql import QueryTools
from tests.support.cheapness import assert_cheap
from tests.support.pace import scaled
from tests.support.query_tools import make_items, query_tools

MAX_BYTES = 20_000
#: A query takes at most this long, so that ten thousand queries take hours and not days.
TIMEOUT_S = 0.3

sizes = st.sampled_from([0, 1, 7, 1000, 60_000, 900_000])
atoms = st.one_of(
    st.sampled_from(["id", "name", "1", "NULL", "9e999", "x'ff00'", "'%_%'", ":a", ":b", "n.i"]),
    st.builds(lambda size: f"hex(zeroblob({size}))", sizes),
    st.builds(lambda size: f"randomblob({size})", sizes),
)


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    templates = st.sampled_from(
        [
            *("A || B", "A LIKE B", "A GLOB B", "instr(A, B)", "replace(A, '0', B)", "A IN (B, 1)"),
            *("printf('%*d', 99999, A)", "printf(B, A)", "group_concat(A, B)", "sum(A)", "max(A)"),
            *("json_group_array(A)", "json(A)", "CAST(A AS text)", "quote(A)", "-A", "(A)"),
            *("(SELECT A UNION SELECT B)", "EXISTS (SELECT A FROM items)", "count(DISTINCT A)"),
            *("CASE WHEN A THEN B END", "zeroblob(A)", "load_extension(A)", "char(A, 0, 55296)"),
        ]
    )
    return st.builds(
        lambda text, a, b: text.replace("A", a).replace("B", b), templates, inner, inner
    )


values = st.recursive(atoms, combined, max_leaves=6)
tables = st.lists(
    st.sampled_from(
        ["items", "n", "sqlite_master", "pragma_table_info('items')", "json_each('[1]')"]
    ),
    min_size=1,
    max_size=4,
).map(lambda names: ", ".join(f"{name} AS t{number}" for number, name in enumerate(names)))
queries = st.builds(
    lambda start, value, copies, name, table, end: (
        f"{start} SELECT {', '.join([f'{value} AS {name}'] * copies)} FROM {table} {end}"
    ),
    st.sampled_from(
        [
            *("", "EXPLAIN", "EXPLAIN QUERY PLAN", "WITH n AS (SELECT 1 AS i)"),
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)",
            "WITH RECURSIVE n(i) AS (SELECT 'x' UNION SELECT i || i FROM n)",
        ]
    ),
    values,
    st.sampled_from([1, 2, 90]),
    st.sampled_from(["a", f'"{"n" * 900}"']),
    tables,
    st.sampled_from(["", "LIMIT 3", "ORDER BY 1", "GROUP BY 1", "WHERE name LIKE '%1%'"]),
)
texts = queries | st.text(alphabet="SELECTselect ()'\"*,;:%_-/0189\0\ud7ff\n", max_size=200).map(
    lambda text: f"SELECT {text}"
)
parameters = st.fixed_dictionaries(
    {},
    optional={
        "a": st.sampled_from([0, 1, 2**63, 1.5, "%" * 500, "x" * 100_000, True, None]),
        "b": st.text(max_size=5),
    },
)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Iterator[QueryTools]:
    url = f"sqlite:///{tmp_path_factory.mktemp('shop') / 'shop.db'}"
    make_items(url)
    yield query_tools(url, sandbox, timeout_s=TIMEOUT_S, max_bytes=MAX_BYTES)
    with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
        assert file.execute("SELECT count(*), sum(id) FROM items").fetchone() == (300, 44850)
    file.close()


@given(texts, parameters)
def test_a_query_is_cheap(tools: QueryTools, query: str, given_: dict[str, Any]) -> None:
    async def attack() -> None:
        found = await asyncio.wait_for(answer(tools, query, given_), scaled(60))
        json.loads(found, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert len(found.encode()) <= MAX_BYTES
        assert "or too much memory" not in found, "the process has crashed"

    assert_cheap(attack)


async def answer(tools: QueryTools, query: str, given_: dict[str, Any]) -> str:
    """Return the result of a query, or the reason of its refusal as a JSON text."""
    try:
        return await tools.sql_query(query, given_)
    except ValueError as refused:
        return json.dumps(str(refused))

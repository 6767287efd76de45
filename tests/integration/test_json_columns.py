"""JSON comes back from Postgres as it was written, however it is read."""

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.storage.fetch import fetch
from app.storage.session import dumps
from tests.support.database_cluster import Cluster
from tests.support.json_documents import NOTABLE_DOUBLES, NOTABLE_INTEGERS, json_values, same

pytestmark = pytest.mark.anyio

# The batch is unpacked, as the statements of app.storage do, and each value goes through a column.
STORE = text("""
    WITH stored AS (
        INSERT INTO recorded_events (type, data)
        SELECT 'test', jsonb_build_object('value', value)
        FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(value jsonb) RETURNING id, data
    ) SELECT data -> 'value' AS value FROM stored ORDER BY id
""")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(json_values, min_size=10, max_size=40))
@example([*NOTABLE_INTEGERS, *NOTABLE_DOUBLES])
async def test_a_stored_value_comes_back_unchanged(cluster: Cluster, values: list[Any]) -> None:
    rows = {"rows": dumps([{"value": value} for value in values])}

    async with cluster.engine.begin() as connection:
        by_driver = [row.value for row in await fetch(connection, STORE, rows)]
        by_sqlalchemy = [row.value for row in await connection.execute(STORE, rows)]

    assert same(by_driver, values)
    assert same(by_sqlalchemy, values)

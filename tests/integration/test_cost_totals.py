"""The daily totals, which a trigger keeps: equal to the ledger after every kind of booking."""

import asyncio
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError

from tests.support.database_cluster import Cluster
from tests.support.ledgers import DIFFERENT_TOTALS
from tests.support.pace import scaled

pytestmark = pytest.mark.anyio

BOOK: TextClause = text("""
    INSERT INTO cost_entries (call_id, run_id, agent_run_id, attempt, tenant, workflow_id, workflow,
        version, agent, module, provider, model, kind, corrects, outcome, input_tokens,
        cached_tokens, output_tokens, budget_ids, cost_usd, saved_usd, created_at)
    SELECT gen_random_uuid(), :id, :id, 1, :tenant, :id, :workflow, :version, 'a', :module,
        'openai', :model, :kind, :corrects, :outcome, :tokens, :tokens / 2, 7, '{}', :cost_usd, 0.5,
        CAST('2026-03-01T12:00:00Z' AS timestamptz) + make_interval(hours => :hour)
""")
ANY_ID = UUID(int=7)
LINES = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from([None, "blue", "green"]),
        "workflow": st.sampled_from(["billing", "w" * 5000]),
        "version": st.sampled_from([None, 1, 2]),
        "module": st.sampled_from(["HR", "Finance"]),
        "model": st.sampled_from(["gpt-4o-mini", "gpt-5.2"]),
        "kind": st.sampled_from(["actual", "estimated", "unconfirmed", "correction", "cached"]),
        "corrects": st.sampled_from([None, "unconfirmed", "estimated"]),
        "outcome": st.sampled_from(["ok", "ServerFailure"]),
        "tokens": st.integers(-(10**6), 10**6),
        "cost_usd": st.decimals(-100, 100, places=10),
        "hour": st.integers(-48, 48),
    }
)


def line(**changed: Any) -> dict[str, Any]:
    usual = {
        "tenant": None,
        "workflow": "billing",
        "version": 1,
        "module": "HR",
        "model": "gpt-4o-mini",
        "kind": "actual",
        "corrects": None,
        "outcome": "ok",
        "tokens": 100,
        "cost_usd": Decimal("0.25"),
        "hour": 0,
    }
    return usual | changed


async def book(cluster: Cluster, *lines: dict[str, Any]) -> None:
    async with cluster.engine.begin() as connection:
        for given_line in lines:
            await connection.execute(BOOK, given_line | {"id": ANY_ID})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(batches=st.lists(st.lists(LINES, max_size=4), max_size=4))
async def test_the_totals_are_the_sums_of_the_ledger(
    batches: list[list[dict[str, Any]]], cluster: Cluster
) -> None:
    for lines in batches:
        await book(cluster, *lines)

    assert await cluster.rows(DIFFERENT_TOTALS) == []


async def test_writers_at_the_same_time_take_shards_of_their_own_and_wait_for_nobody(
    cluster: Cluster,
) -> None:
    async with cluster.engine.begin() as slow:
        await slow.execute(BOOK, line() | {"id": ANY_ID})

        async with asyncio.timeout(scaled(10)):
            await asyncio.gather(*(book(cluster, line(), line(module="Finance")) for _ in range(8)))

    shards = await cluster.rows("SELECT DISTINCT shard FROM cost_totals")
    assert len(shards) > 1
    assert await cluster.rows("SELECT sum(calls), sum(cost_usd) FROM costs_daily") == [
        (17, Decimal("4.25"))
    ]
    assert await cluster.rows(DIFFERENT_TOTALS) == []


async def test_what_is_rolled_back_is_in_no_total(cluster: Cluster) -> None:
    await book(cluster, line())

    with pytest.raises(DBAPIError):
        await book(cluster, line(), line(kind="gift"))

    assert await cluster.rows("SELECT calls FROM costs_daily") == [(1,)]


async def test_a_correction_takes_the_call_of_its_guess_back(cluster: Cluster) -> None:
    await book(
        cluster,
        line(kind="unconfirmed", outcome="unknown", cost_usd=Decimal(3)),
        line(cost_usd=Decimal(1)),
        line(kind="correction", corrects="unconfirmed", outcome="unknown", cost_usd=Decimal(-3)),
        line(kind="correction", cost_usd=Decimal("0.5")),
    )

    ((calls, cost, wasted, unconfirmed),) = await cluster.rows(
        "SELECT sum(calls), sum(cost_usd), sum(wasted_usd), sum(unconfirmed_usd) FROM costs_daily"
    )

    assert (calls, cost, wasted, unconfirmed) == (1, Decimal("1.5"), 0, 0)

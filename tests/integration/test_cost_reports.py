from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import text

from app.costs.dimensions import DIMENSIONS
from app.costs.reports import ReportFilter, costs_by, report, total_costs
from app.domain.usage import Usage
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request
from tests.support.markdown import ROOT, marked

pytestmark = pytest.mark.anyio

VIEWS = {
    *(f"costs_by_{name}" for name in ("day", "workflow", "version", "module", "provider", "model")),
    *("costs_by_tenant", "costs_by_kind", "costs_by_agent", "costs_by_run", "costs_daily"),
    *("cost_lines", "cost_waste", "cost_cache_savings", "budget_burndown", "token_estimates"),
    *("run_tree", "cost_lines_whole", "costs_by_run_whole", "costs_by_workflow_whole"),
}
WITHOUT_MEASURES = {
    *("cost_waste", "cost_cache_savings", "budget_burndown", "token_estimates", "run_tree"),
}
MEASURES = [
    *("calls", "prompt_tokens", "cached_tokens", "cache_write_tokens", "output_tokens"),
    *("reasoning_tokens", "cost_usd", "wasted_usd", "unconfirmed_usd", "saved_usd"),
]
TOMORROW = datetime.now(UTC) + timedelta(days=1)


async def run_with_calls(cluster: Cluster) -> UUID:
    """A run of two agents: the first called twice, one of these calls failed."""
    run_id = await cluster.start(agent("a", module="HR"), agent("b", module="Finance"))
    claim = await cluster.claim(run_id)
    first, second = claim.agents
    holds = [hold_request(first), hold_request(first), hold_request(second)]
    for hold in holds:
        await cluster.hold(hold)
    usage = Usage(input_tokens=100, cached_tokens=20, output_tokens=7)
    calls = [
        call(first, holds[0], "0.25", outcome="ServerFailure", kind="unconfirmed", module="HR"),
        call(first, holds[1], "0.1", usage=usage, module="HR", saved_usd=Decimal("0.006")),
    ]
    await cluster.record(
        ending(first, calls=calls),
        ending(second, calls=[call(second, holds[2], "0.02", usage=usage, module="Finance")]),
    )
    return run_id


@pytest.mark.parametrize("by", DIMENSIONS)
async def test_every_report_adds_up_to_the_total(by: str, cluster: Cluster) -> None:
    run_id = await run_with_calls(cluster)
    await run_with_calls(cluster)

    lines = await cluster.commit(lambda c: costs_by(c, (by,)))
    of_run = await cluster.commit(lambda c: costs_by(c, (by,), ReportFilter(run_id=run_id)))
    total = await cluster.commit(total_costs)

    assert total.calls == sum(line.calls for line in lines) == 6
    assert total.cost_usd == sum(line.cost_usd for line in lines) == Decimal("0.74")
    assert sum(line.cost_usd for line in of_run) == Decimal("0.37")
    assert [line.cost_usd for line in lines] == sorted((x.cost_usd for x in lines), reverse=True)


async def test_a_report_tells_tokens_waste_and_what_is_not_sure(cluster: Cluster) -> None:
    run_id = await run_with_calls(cluster)

    hr, finance = await cluster.commit(
        lambda c: costs_by(c, ("module",), ReportFilter(run_id=run_id))
    )

    assert (hr.key, hr.calls, hr.input_tokens, hr.cached_tokens) == ("HR", 2, 120, 20)
    assert (hr.output_tokens, hr.cost_usd) == (7, Decimal("0.35"))
    assert (hr.wasted_usd, hr.unconfirmed_usd) == (Decimal("0.25"), Decimal("0.25"))
    assert finance.key == "Finance"
    assert finance.wasted_usd == finance.unconfirmed_usd == Decimal(0)


async def test_a_report_may_begin_at_a_time(cluster: Cluster) -> None:
    await run_with_calls(cluster)

    lines = await cluster.commit(lambda c: costs_by(c, ("day",), ReportFilter(since=TOMORROW)))
    total = await cluster.commit(lambda c: total_costs(c, ReportFilter(since=TOMORROW)))

    assert lines == []
    assert (total.calls, total.cost_usd) == (0, Decimal(0))


@pytest.mark.parametrize("by", [name for name, each in DIMENSIONS.items() if each.in_days])
async def test_a_report_from_the_daily_totals_is_the_report_from_the_lines(
    by: str, cluster: Cluster
) -> None:
    await run_with_calls(cluster)
    await cluster.commit(
        lambda c: c.execute(
            text("""
                INSERT INTO cost_entries (call_id, run_id, agent_run_id, attempt, tenant,
                    workflow_id, workflow, version, agent, module, provider, model, kind, outcome,
                    input_tokens, budget_ids, cost_usd, created_at)
                SELECT gen_random_uuid(), run_id, agent_run_id, attempt, 'blue', workflow_id,
                    workflow, 3, agent, module, provider, model, kind, outcome, 11, '{}', cost_usd,
                    CAST('2026-03-01T00:00:00Z' AS timestamptz) + make_interval(hours => h)
                FROM cost_entries, generate_series(0, 95, 5) AS h
            """)
        )
    )

    starts = ["2026-02-28T23:59:59Z", "2026-03-02T00:00:00Z", "2026-03-02T10:00:00Z"]
    for start in (None, *map(datetime.fromisoformat, starts), TOMORROW):
        only = ReportFilter(since=start)
        found = await cluster.commit(partial(costs_by, by=(by,), only=only))
        statement, values = report((by,), only, totals=False)
        scanned = await cluster.rows(statement.text, **values)
        total = await cluster.commit(partial(total_costs, only=only))

        assert [(list(x.keys), x.calls, x.cost_usd, x.wasted_usd) for x in found] == [
            (row.keys, row.calls, row.cost_usd, row.wasted_usd) for row in scanned
        ]
        assert total.cost_usd == sum(row.cost_usd for row in scanned)


async def test_the_views_and_their_columns_are_stable_and_documented(cluster: Cluster) -> None:
    rows = await cluster.rows("""
        SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position) AS columns
        FROM information_schema.columns JOIN information_schema.views USING (table_name)
        WHERE views.table_schema = 'public' GROUP BY table_name
    """)
    columns = {row.table_name: row.columns for row in rows}
    page = (ROOT / "docs" / "costs.md").read_text(encoding="utf-8")
    queries = " ".join(block.text for block in marked("sql", "run"))

    assert columns.keys() == VIEWS
    assert [name for name in VIEWS if f"`{name}`" not in page or name not in queries] == []
    for name in VIEWS - WITHOUT_MEASURES:
        assert columns[name][-len(MEASURES) :] == MEASURES, name
    assert columns["costs_by_model"][:2] == ["provider", "model"]
    for name in ("costs_by_run", "costs_by_run_whole"):
        assert columns[name][:4] == ["run_id", "tenant", "workflow", "version"]
    assert columns["run_tree"] == ["outer_run_id", "run_id", "part_of", "depth"]
    assert columns["cost_lines_whole"][3:] == columns["cost_lines"]
    assert columns["cost_waste"][-5:] == ["cause", "outcome", "calls", "tokens", "wasted_usd"]
    assert columns["cost_cache_savings"][-2:] == ["cached_percent", "saved_usd"]
    assert columns["budget_burndown"][5:] == [
        *("hour", "cost_usd", "spent_usd", "left_usd", "limit_usd")
    ]


async def test_a_budget_burns_down_to_what_is_left_of_it(cluster: Cluster) -> None:
    run_id = await run_with_calls(cluster)

    rows = await cluster.rows("SELECT * FROM budget_burndown ORDER BY hour")

    ((spent, limit),) = await cluster.rows("SELECT spent_usd, limit_usd FROM budgets")
    assert {row.budget_id for row in rows} == {run_id}
    assert sum(row.cost_usd for row in rows) == rows[-1].spent_usd == spent
    assert rows[-1].left_usd == limit - spent


async def test_the_savings_of_caches_are_told_by_model_and_day(cluster: Cluster) -> None:
    await run_with_calls(cluster)

    (row,) = await cluster.rows("SELECT * FROM cost_cache_savings")

    assert (row.prompt_tokens, row.cached_tokens, row.cached_percent) == (240, 40, Decimal("16.67"))
    assert row.saved_usd == Decimal("0.006")

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.costs.budgets import BudgetForecast
from app.costs.dimensions import DIMENSIONS
from app.costs.reports import ReportFilter, costs_by, report, total_costs
from app.domain.run_filter import RunFilter
from app.domain.status import AgentStatus
from app.domain.usage import Usage
from app.storage.session import dumps
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request
from tests.support.markdown import ROOT, marked
from tests.support.nesting import CHECK, claim_check, inner_of, nested, start, sub_run

pytestmark = pytest.mark.anyio

VIEWS = {
    *(f"costs_by_{name}" for name in ("day", "workflow", "version", "module", "provider", "model")),
    *("costs_by_tenant", "costs_by_kind", "costs_by_agent", "costs_by_run", "costs_daily"),
    *("cost_lines", "cost_waste", "cost_cache_savings", "budget_burndown", "token_estimates"),
    *("run_tree", "cost_lines_whole", "costs_by_run_whole", "costs_by_workflow_whole"),
    *("run_labels", "costs_by_label", "agents_by_day", "costs_per_output"),
    *("costs_per_completed_run", "budget_forecast"),
}
WITHOUT_MEASURES = {
    *("cost_waste", "cost_cache_savings", "budget_burndown", "token_estimates", "run_tree"),
    *("run_labels", "budget_forecast"),
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
    for since in (None, *map(datetime.fromisoformat, starts), TOMORROW):
        only = ReportFilter(since=since)
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
    assert columns["run_labels"] == ["run_id", "outer_run_id", "key", "value"]
    assert columns["agents_by_day"][:9] == [
        *("day", "workflow", "agent", "runs", "completed", "failed", "skipped", "cancelled"),
        "median_s",
    ]
    assert columns["costs_per_output"][:5] == [
        *("workflow", "agent", "outputs", "inside_usd", "usd_per_output")
    ]
    assert columns["costs_per_completed_run"][:3] == [
        *("workflow", "completed", "usd_per_completed_run")
    ]
    assert columns["budget_forecast"] == [field.name for field in fields(BudgetForecast)]
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


# A run with an inner run, or a run alone, for each line; the calls of a random ledger belong to
# these runs or to none.
ADD_ENTRIES = """
    INSERT INTO cost_entries (call_id, run_id, agent_run_id, attempt, tenant, workflow_id, workflow,
        version, agent, module, provider, model, kind, outcome, input_tokens, budget_ids, cost_usd,
        created_at)
    SELECT gen_random_uuid(), run_id, gen_random_uuid(), 1, tenant, run_id, workflow, version,
        agent, module, provider, model, kind, outcome, 11, '{}', cost_usd, created_at
    FROM jsonb_to_recordset(CAST(:entries AS jsonb)) AS e(run_id uuid, tenant text, workflow text,
        version int, agent text, module text, provider text, model text, kind text, outcome text,
        cost_usd numeric, created_at timestamptz)
    RETURNING id
"""
OF_ENTRY: dict[str, Callable[[dict[str, Any]], str]] = {
    "agent": lambda e: e["agent"],
    "module": lambda e: e["module"],
    "model": lambda e: f"{e['provider']}/{e['model']}",
    "provider": lambda e: e["provider"],
    "workflow": lambda e: e["workflow"],
    "outer-workflow": lambda e: e["outer"]["workflow"],
    "version": lambda e: f"{e['workflow']} v{e['version']}",
    "tenant": lambda e: e["tenant"] or "-",
    "kind": lambda e: e["kind"],
    "run": lambda e: e["outer"]["id"],
    "day": lambda e: e["created_at"][:10],
    "label:team": lambda e: e["outer"]["labels"].get("team", "-"),
    "label:batch": lambda e: e["outer"]["labels"].get("batch", "-"),
}


async def random_ledger(cluster: Cluster, chance: random.Random) -> list[dict[str, Any]]:
    """Random calls of outer runs, of their inner runs, and of no run."""
    runs: list[dict[str, Any]] = []
    for _ in range(6):
        drawn = {"team": chance.choice(["a", "b", None]), "batch": chance.choice(["1", None])}
        labels = {key: value for key, value in drawn.items() if value is not None}
        tenant = chance.choice(("acme", "blue", None))
        outer_id = await cluster.start(CHECK, name="outer", tenant=tenant, own_labels=labels)
        await start(cluster, sub_run(await claim_check(cluster, outer_id)))
        outer = {"id": str(outer_id), "workflow": "outer", "labels": labels, "tenant": tenant}
        inner = {"id": str(await inner_of(cluster, outer_id)), "workflow": "inner"}
        runs += [outer | {"outer": outer}, outer | inner | {"outer": outer}]
    entries = [draw_entry(chance, runs) for _ in range(200)]
    stored = [{key: entry[key] for key in entry if key != "outer"} for entry in entries]
    await cluster.rows(ADD_ENTRIES, entries=dumps(stored))
    return entries


def draw_entry(chance: random.Random, runs: list[dict[str, Any]]) -> dict[str, Any]:
    alone: dict[str, Any] = {
        "id": str(UUID(int=chance.getrandbits(128))),
        "workflow": "alone",
        "labels": {},
    }
    alone |= {"tenant": chance.choice(["acme", None]), "outer": alone}
    run = alone if chance.random() < 0.1 else chance.choice(runs)
    at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=chance.randrange(72))
    return {
        "run_id": run["id"],
        "outer": run["outer"],
        "tenant": run["tenant"],
        "workflow": run["workflow"],
        "version": 1,
        "created_at": at.isoformat(),
        "agent": chance.choice(("x", "y")),
        "module": chance.choice(("HR", "Finance")),
        "provider": chance.choice(("openai", "anthropic")),
        "model": chance.choice(("m1", "m2")),
        "kind": chance.choice(("actual", "estimated")),
        "outcome": chance.choice(("ok", "ServerFailure")),
        "cost_usd": f"0.{chance.randrange(1, 1000):03}",
    }


def draw_filter(chance: random.Random, entries: list[dict[str, Any]]) -> ReportFilter:
    labels = {key: value for key in ("team", "batch") if (value := chance.choice((1, 2, None)))}
    since = datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(hours=chance.randrange(60))
    return ReportFilter(
        run_id=chance.choice((None, None, UUID(chance.choice(entries)["outer"]["id"]))),
        since=chance.choice((None, since)),
        outer_workflow=chance.choice((None, None, "outer", "alone", "inner")),
        runs=RunFilter(
            tenant=chance.choice((None, "acme", "blue")),
            workflow=chance.choice((None, None, "inner", "outer")),
            labels={key: None if value == 1 else "a" for key, value in labels.items()},
        ),
    )


def is_counted(entry: dict[str, Any], only: ReportFilter) -> bool:
    labels = entry["outer"]["labels"]
    return (
        only.run_id in (None, UUID(entry["outer"]["id"]))
        and (only.since is None or datetime.fromisoformat(entry["created_at"]) >= only.since)
        and only.outer_workflow in (None, entry["outer"]["workflow"])
        and only.runs.tenant in (None, entry["tenant"])
        and only.runs.workflow in (None, entry["workflow"])
        and all(
            key in labels and value in (None, labels[key])
            for key, value in only.runs.labels.items()
        )
    )


def key_of(entry: dict[str, Any], name: str, only: ReportFilter) -> str:
    if name == "run" and only.run_id is not None:
        return str(entry["run_id"])  # each run inside has a line of its own
    return OF_ENTRY[name](entry)


@pytest.mark.parametrize("seed_number", range(4))
async def test_a_report_by_any_dimensions_of_any_calls_is_the_sum_of_the_ledger(
    cluster: Cluster, seed_number: int
) -> None:
    chance = random.Random(seed_number)
    entries = await random_ledger(cluster, chance)
    names = list(OF_ENTRY)

    for _ in range(60):
        by = chance.sample(names, chance.randrange(4))
        only = draw_filter(chance, entries)
        lines = await cluster.commit(partial(costs_by, by=by, only=only))
        total = await cluster.commit(partial(total_costs, only=only))

        expected: dict[tuple[str, ...], Decimal] = defaultdict(Decimal)
        for entry in entries:
            if is_counted(entry, only):
                keys = tuple(key_of(entry, name, only) for name in by)
                expected[keys] += Decimal(entry["cost_usd"])
        if not by:
            expected[()] += 0  # a report without dimensions always has a line
        found = {line.keys: line.cost_usd for line in lines}
        assert found == expected, (by, only)
        assert len(found) == len(lines)
        assert total.cost_usd == sum(expected.values())


async def test_the_costs_of_a_label_contain_the_inner_runs(cluster: Cluster) -> None:
    entries = await random_ledger(cluster, random.Random(9))

    rows = await cluster.rows("SELECT key, value, cost_usd FROM costs_by_label")

    expected: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for entry, key in product(entries, ("team", "batch")):
        if value := entry["outer"]["labels"].get(key):
            expected[key, value] += Decimal(entry["cost_usd"])
    assert {(row.key, row.value): row.cost_usd for row in rows} == expected


async def test_the_view_of_agents_by_day_has_every_agent_run_and_every_call(
    cluster: Cluster,
) -> None:
    for _ in range(3):
        await run_with_calls(cluster)
    failing = await cluster.start(agent("a"), agent("b", "a"))
    (a,) = (await cluster.claim(failing)).agents
    await cluster.record(ending(a, AgentStatus.FAILED, error="no", error_class="BadRequest"))
    await cluster.advance(failing, 0)

    rows = await cluster.rows("SELECT * FROM agents_by_day ORDER BY agent")

    a_row, b_row = rows
    assert a_row.day == b_row.day == datetime.now(UTC).date()
    assert (a_row.runs, a_row.completed, a_row.failed, a_row.cancelled) == (4, 3, 1, 0)
    assert (b_row.runs, b_row.completed, b_row.failed, b_row.cancelled) == (4, 3, 0, 1)
    assert (a_row.cost_usd, a_row.calls) == (Decimal("1.05"), 6)
    assert (b_row.prompt_tokens, b_row.output_tokens) == (360, 21)
    ((median,),) = await cluster.rows("""
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at
            - started_at)::float8) FROM agent_runs WHERE name = 'a' AND status = 'completed'
    """)
    assert a_row.median_s == pytest.approx(median)


async def test_the_cost_of_an_output_contains_failures_and_inner_runs(cluster: Cluster) -> None:
    outer, inner = await nested(cluster)
    for name in ("x", "y"):
        (claimed,) = (await cluster.claim(inner, level=int(name == "y"))).agents
        tries = [hold_request(claimed), hold_request(claimed)]
        calls = [
            call(claimed, tries[0], "0.1", workflow="inner", outcome="ServerFailure"),
            call(claimed, tries[1], "0.2", workflow="inner"),
        ]
        calls = [replace(each, budget_ids=(inner, outer)) for each in calls]
        await cluster.record(ending(claimed, calls=calls))
        await cluster.advance(inner, int(name == "y"))
    await cluster.advance(outer, 0)

    outputs = await cluster.rows("SELECT * FROM costs_per_output ORDER BY workflow, agent")
    runs = await cluster.rows("SELECT * FROM costs_per_completed_run ORDER BY workflow")

    assert [(row.agent, row.outputs, row.cost_usd, row.usd_per_output) for row in outputs] == [
        ("x", 1, Decimal("0.3"), Decimal("0.3")),
        ("y", 1, Decimal("0.3"), Decimal("0.3")),
        ("check", 1, 0, Decimal("0.6")),
    ]
    assert outputs[2].inside_usd == Decimal("0.6")
    assert [(row.completed, row.cost_usd, row.usd_per_completed_run) for row in runs] == [
        (1, Decimal("0.6"), Decimal("0.6"))
    ]

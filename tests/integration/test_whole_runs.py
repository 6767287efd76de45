"""Whole runs in Postgres: booked from outside, and large."""

import time
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.costs.reports import costs_by
from app.costs.tracking import Spending, book_spending
from app.domain.usage import Usage
from app.monitoring.cluster import read_cluster
from app.monitoring.explain import Live, explain_waits
from app.monitoring.explain_cost import explain_money, explain_time
from app.monitoring.explain_outcomes import explain_outcomes
from app.monitoring.findings import Reason
from app.monitoring.run_history import read_history
from app.monitoring.status import system_totals
from app.monitoring.timeline import timeline_of
from app.monitoring.whole_run import grouped_incomplete, read_whole_run
from app.telemetry import metrics
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request
from tests.support.names import named_in
from tests.support.nesting import nested
from tests.support.run_control import read

pytestmark = pytest.mark.anyio

ELEMENTS = 1000
# A run whose list has many elements, each with an inner run of two agents. In every tenth inner run
# the second agent has failed. The first agents have two calls each, of which one failed.
LARGE = """
    WITH list AS (
        UPDATE agent_runs SET status = 'completed', item_count = :elements, attempt = 1,
            started_at = now(), finished_at = now()
        WHERE run_id = :run_id RETURNING *
    ), elements AS (
        INSERT INTO agent_runs (id, run_id, name, position, level, module, provider, model,
            priority, dependencies, reads, accept_missing_inputs, limit_usd, parent_id, item_index,
            status, attempt, started_at, finished_at, error_class)
        SELECT gen_random_uuid(), run_id, name || '[' || n || ']', position, level, module,
            'scheduler', '', priority, '{}', '{}', false, 1, id, n, 'completed', 1, now(), now(),
            CASE WHEN n % 10 = 0 THEN 'SubWorkflowPartial' END
        FROM list CROSS JOIN generate_series(0, :elements - 1) n RETURNING *
    ), inner_runs AS (
        INSERT INTO runs (id, workflow_id, status, input, priority, level_count,
            max_parallel_agents, allow_partial_completion, timeout_s, parent_agent_run_id,
            ancestors, started_at, finished_at)
        SELECT gen_random_uuid(), r.workflow_id,
            CASE WHEN e.item_index % 10 = 0 THEN 'partially_completed' ELSE 'completed' END, '{}',
            5, 2, 10, true, 60, e.id, ARRAY[r.id], now(), now()
        FROM elements e JOIN runs r ON r.id = e.run_id RETURNING *
    ), booked AS (
        INSERT INTO budgets (id, scope, subject, limit_usd, spent_usd)
        SELECT id, 'run', id::text, 1, 0.002 FROM inner_runs
    ), agents AS (
        INSERT INTO agent_runs (id, run_id, name, position, level, module, provider, model,
            priority, dependencies, reads, accept_missing_inputs, limit_usd, status, attempt, error,
            error_class, started_at, finished_at)
        SELECT gen_random_uuid(), i.id, names.name, names.level, names.level, 'General', 'openai',
            'gpt-4o', 5, '{}', '{}', false, 1,
            CASE WHEN names.level = 1 AND i.status <> 'completed' THEN 'failed'
                ELSE 'completed' END, 2, 'no', 'BadRequest', now(), now()
        FROM inner_runs i CROSS JOIN (VALUES ('read', 0), ('judge', 1)) names(name, level)
        RETURNING *
    ), tried AS (
        INSERT INTO attempts (agent_run_id, number, worker, outcome, started_at, finished_at)
        SELECT id, n, 'w', CASE n WHEN 1 THEN 'failed' ELSE 'completed' END,
            now() + make_interval(secs => n), now() + make_interval(secs => n + 1)
        FROM agents CROSS JOIN generate_series(1, 2) n
    )
    INSERT INTO cost_entries (call_id, run_id, agent_run_id, attempt, workflow_id, workflow, agent,
        module, provider, model, kind, outcome, budget_ids, cost_usd, seconds, created_at)
    SELECT gen_random_uuid(), run_id, id, n, run_id, 'inner', name, module, provider, model,
        'actual', CASE n WHEN 1 THEN 'ServerFailure' ELSE 'ok' END, '{}', 0.0005, 0.5,
        now() + make_interval(secs => n + 1)
    FROM agents CROSS JOIN generate_series(1, 2) n
    RETURNING 1
"""


async def large_run(cluster: Cluster) -> UUID:
    run_id = await cluster.start(agent("handled"))
    await cluster.rows(LARGE, run_id=run_id, elements=ELEMENTS)
    await cluster.rows(
        "UPDATE runs SET status = 'partially_completed', finished_at = now() + interval '1 minute'"
        " WHERE id = :id RETURNING id",
        id=run_id,
    )
    return run_id


async def test_a_run_with_a_thousand_inner_runs_is_told_at_little_cost(cluster: Cluster) -> None:
    run_id = await large_run(cluster)

    # CPU seconds of this process: measured are 0.03 s for the status, 0.3 s for the explanation.
    began_s = time.process_time()
    whole = await cluster.commit(partial(read_whole_run, run_id=run_id))
    groups = {group.names: group for group in grouped_incomplete(whole.incomplete)}
    status_s = time.process_time() - began_s
    history = await cluster.commit(partial(read_history, run_id=run_id))
    found = [
        *explain_waits(history, Live()),
        *explain_outcomes(history),
        *explain_time(history, timeline_of(history)),
        *explain_money(history),
    ]
    explain_s = time.process_time() - began_s - status_s

    assert status_s < 0.5
    assert explain_s < 3
    assert [len(group.paths) for group in groups.values()] == [1, 100, 100]
    failed = next(each for each in found if each.reason is Reason.FAILED)
    every_tenth = {f"handled[{n}]/judge" for n in range(0, ELEMENTS, 10)}
    assert set(failed.agents) == named_in(failed.subject) == every_tenth
    assert f"has spent $2.00 of $100.00 in {4 * ELEMENTS:,} calls" in " ".join(
        e.text for e in found
    )


async def test_a_view_of_one_run_reads_only_the_lines_of_this_run(cluster: Cluster) -> None:
    run_id = await large_run(cluster)
    other, inner = await nested(cluster)
    (x,) = (await cluster.claim(inner)).agents
    hold = hold_request(x, "0.2")
    await cluster.hold(hold)
    await cluster.record(ending(x, calls=[call(x, hold, "0.1")]))
    for table in ("cost_entries", "runs", "agent_runs"):
        await cluster.commit(partial(analyze, table=table))

    plan = await cluster.rows(
        "EXPLAIN (ANALYZE, BUFFERS OFF, FORMAT JSON)"
        " SELECT * FROM costs_by_run_whole WHERE run_id = :id",
        id=other,
    )
    (whole,) = await cluster.rows("SELECT * FROM costs_by_run_whole WHERE run_id = :id", id=other)
    (large,) = await cluster.rows("SELECT * FROM costs_by_run_whole WHERE run_id = :id", id=run_id)

    assert sum(rows_read(plan[0][0][0]["Plan"])) < 20
    assert (whole.cost_usd, whole.calls) == (Decimal("0.1"), 1)
    assert (large.cost_usd, large.calls) == (Decimal(2), 4 * ELEMENTS)


async def analyze(connection: AsyncConnection, table: str) -> None:
    await connection.execute(text(f"ANALYZE {table}"))


def rows_read(node: dict[str, Any]) -> Iterator[float]:
    """The rows that each scan of a plan has read, with the rows that it has dropped."""
    for child in node.get("Plans", ()):
        yield from rows_read(child)
    if "Relation Name" in node:
        dropped = node.get("Rows Removed by Filter", 0)
        yield (node["Actual Rows"] + dropped) * node["Actual Loops"]


async def test_a_call_that_a_program_books_on_an_inner_run_counts_for_the_outer_run(
    cluster: Cluster,
) -> None:
    outer, inner = await nested(cluster)
    spending = Spending(
        agent_id="other",
        agent_name="other",
        owner=inner,
        provider="openai",
        model="gpt-4o",
        usage=Usage(input_tokens=10),
        cost_usd=Decimal("0.25"),
        price_version="test",
        metadata={},
    )

    await cluster.commit(partial(book_spending, spending=spending))

    spent = [(await read(cluster, id_)).spent_usd for id_ in (outer, inner)]
    by_run = await cluster.commit(lambda c: costs_by(c, ("run",)))
    by_outer = await cluster.commit(lambda c: costs_by(c, ("outer-workflow",)))
    history = await cluster.commit(partial(read_history, run_id=outer))
    assert spent == [Decimal("0.25")] * 2
    assert [(line.key, line.cost_usd) for line in by_run] == [(str(outer), Decimal("0.25"))]
    assert [(line.key, line.cost_usd) for line in by_outer] == [("test", Decimal("0.25"))]
    assert [(one.agent, one.name, one.cost_usd) for one in history.calls] == [
        ("check", "check/other", Decimal("0.25"))
    ]


async def test_the_usual_cost_of_an_agent_includes_its_sub_workflow(cluster: Cluster) -> None:
    for number in range(4):
        outer, inner = await nested(cluster)
        (x,) = (await cluster.claim(inner)).agents
        hold = hold_request(x)
        await cluster.hold(hold)
        await cluster.record(ending(x, calls=[call(x, hold, f"0.0{number + 1}")]))
        await cluster.rows(
            "UPDATE runs SET status = 'completed', finished_at = now() WHERE id = :id RETURNING id",
            id=outer,
        )

    usual = (await cluster.commit(partial(read_history, run_id=outer))).usual_usd

    assert usual == {"check": Decimal("0.02")}


async def test_the_runs_of_sub_workflows_are_counted_apart(cluster: Cluster) -> None:
    _, inner = await nested(cluster)
    await cluster.rows(
        "UPDATE runs SET status = 'failed', finished_at = now() WHERE id = :id RETURNING id",
        id=inner,
    )

    samples = await cluster.commit(read_cluster)
    totals = await cluster.commit(system_totals)

    counts = {
        metric: {labels[0]: value for each, labels, value in samples if each is metric and value}
        for metric in (
            *(metrics.RUNS, metrics.INNER_RUNS, metrics.RUNS_ENDED, metrics.INNER_RUNS_ENDED),
        )
    }
    assert counts[metrics.RUNS] == {"running": 1}
    assert counts[metrics.INNER_RUNS] == {"failed": 1}
    assert counts[metrics.RUNS_ENDED] == {}
    assert counts[metrics.INNER_RUNS_ENDED] == {"failed": 1}
    assert (totals.workflows["started"], totals.workflows["failed"]) == (1, 0)

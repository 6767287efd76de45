"""One truth about the money and the failures of a run, with everything inside the run."""

import json
import random
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app import Run, enqueue
from app.client.process import transaction
from app.costs.dimensions import DIMENSIONS
from app.domain.counts import counted
from app.monitoring.cluster import read_cluster
from app.monitoring.findings import INCOMPLETE
from app.monitoring.wording import money
from app.telemetry import metrics
from tests.support.commands import printed
from tests.support.names import named_in
from tests.support.pace import scaled
from tests.support.random_workflows import INPUT, draw_workflow
from tests.support.stack import Stack

WAIT_S = scaled(120.0)
# Seeds of workflows with lists of sub-workflows, in which agents fail, are skipped or cancelled.
SEEDS = (0, 5, 8, 10, 16, 17, 20, 21)
VIEWS = """
    SELECT table_name FROM information_schema.columns JOIN information_schema.views
    USING (table_name) WHERE views.table_schema = 'public' AND column_name = 'cost_usd'
"""
# A call has a row for each of its budgets in budget_burndown, and for each label in costs_by_label.
SEVERAL_ROWS = {"budget_burndown", "costs_by_label"}
LABELS = {"team": "claims", "batch": "2026-11"}
DIMENSIONS_TOGETHER = ("tenant,model", "label:team,workflow", "outer-workflow,agent,day")


class Ledger:
    """The truth about a run, computed in another way: the ledger, and a walk through the tables."""

    def __init__(self, stack: Stack, run_id: str) -> None:
        self._stack = stack
        self.runs = stack.sql(
            "SELECT id, status, parent_agent_run_id FROM runs"
            " WHERE id = %s OR %s::uuid = ANY(ancestors)",
            run_id,
            run_id,
        )
        entries = stack.sql(
            "SELECT kind, corrects, cost_usd FROM cost_entries WHERE run_id = ANY(%s)",
            [run["id"] for run in self.runs],
        )
        self.usd: Decimal = sum((entry["cost_usd"] for entry in entries), Decimal(0))
        self.calls = sum(
            1 if e["kind"] != "correction" else -1 if e["corrects"] else 0 for e in entries
        )
        self.has_entries = bool(entries)
        self.incomplete: dict[str, str] = {}
        self._walk(next(run for run in self.runs if str(run["id"]) == run_id), "")

    def rows(self) -> list[tuple[Decimal, int]]:
        """The rows of a view that has one row for each run with calls."""
        return [(self.usd, self.calls)] if self.has_entries else []

    def _walk(self, run: Mapping[str, Any], prefix: str) -> None:
        agents = self._stack.sql("SELECT * FROM agent_runs WHERE run_id = %s", run["id"])
        inner = {each["parent_agent_run_id"]: each for each in self.runs}
        for agent in agents:
            inside = inner.get(agent["id"])
            if inside is not None:
                self._walk(inside, f"{prefix}{agent['name']}/")
            if agent["status"] != "completed":
                self.incomplete[prefix + agent["name"]] = agent["status"]
            elif inside is not None and inside["status"] == "partially_completed":
                self.incomplete[prefix + agent["name"]] = "partial"
        for agent in agents:
            items = [
                f"{prefix}{each['name']}" for each in agents if each["parent_id"] == agent["id"]
            ]
            if agent["status"] == "completed" and any(
                self.incomplete.get(name, "skipped") != "skipped" for name in items
            ):
                self.incomplete[prefix + agent["name"]] = "partial"


def ended(seed: int) -> Run:
    labels = LABELS | {"seed": str(seed)}
    run = enqueue(draw_workflow(random.Random(seed)), INPUT, labels=labels)
    run.wait(timeout=WAIT_S)
    return run


@pytest.mark.parametrize("seed_number", SEEDS)
def test_all_views_of_a_run_agree_with_the_ledger_and_name_what_is_incomplete(
    stack: Stack, tmp_path: Path, seed_number: int
) -> None:
    run = ended(seed_number)
    truth = Ledger(stack, run.id)

    check_commands(run, truth)
    check_report(run, truth, tmp_path / "run.html")
    check_views(stack, run, truth)
    check_exporter(stack)
    check_budgets(stack, run, truth)


def check_commands(run: Run, truth: Ledger) -> None:
    status = json.loads(printed("status", run.id, "--json"))
    assert Decimal(status["spent_usd"]) == run.cost == truth.usd
    assert {each["path"]: each["outcome"] for each in status["incomplete"]} == truth.incomplete
    assert named_in(printed("status", run.id)) >= truth.incomplete.keys()
    assert {each.path: each.outcome for each in run.incomplete()} == truth.incomplete

    explained = json.loads(printed("explain", run.id, "--json"))["findings"]
    told = [each for each in explained if each["reason"] in INCOMPLETE]
    assert sorted(name for each in told for name in each["agents"]) == sorted(truth.incomplete)
    spent = f"has spent {money(truth.usd)} of "
    texts = [each["text"] for each in explained if each["text"].startswith(spent)]
    assert len(texts) == truth.has_entries
    assert all(f" in {counted(truth.calls, 'call')}" in text for text in texts)
    assert named_in(printed("explain", run.id)) >= truth.incomplete.keys()
    for path in list(truth.incomplete)[:3]:
        assert f"agent {path} of run {run.id}" in printed("explain", run.id, path)

    of_label = ("--label", f"seed={run.labels['seed']}", "--label", "team")
    found = json.loads(printed("runs", *of_label, "--json"))
    assert [each["run_id"] for each in found] == [run.id]
    asked: list[tuple[str, ...]] = [
        (run.id, "--by", by) for by in (*DIMENSIONS, *DIMENSIONS_TOGETHER)
    ]
    asked += [(*of_label, "--by", by) for by in ("run", *DIMENSIONS_TOGETHER)]
    for by in asked:
        costs = json.loads(printed("costs", *by, "--json"))
        assert Decimal(costs["total"]["cost_usd"]) == truth.usd, by
        assert costs["total"]["calls"] == truth.calls, by
        assert sum(Decimal(line["cost_usd"]) for line in costs["lines"]) == truth.usd, by
    by_run = json.loads(printed("costs", "--by", "run", "--json"))
    lines = [line for line in by_run["lines"] if line["key"] == run.id]
    assert [(Decimal(line["cost_usd"]), line["calls"]) for line in lines] == truth.rows()


def check_report(run: Run, truth: Ledger, file: Path) -> None:
    printed("report", run.id, "-o", str(file))
    page = file.read_text(encoding="utf-8")
    assert (f"<b>${truth.usd:.6f}</b>" if truth.usd else "<b>$0.00</b>") in page
    assert f"<b>{truth.calls:,}</b><span>call" in page
    failures = page.partition("<h2>Failures</h2>")[2].partition("</section>")[0]
    assert named_in(failures) >= truth.incomplete.keys()


def check_views(stack: Stack, run: Run, truth: Ledger) -> None:
    (ledger,) = stack.sql("SELECT sum(cost_usd) AS usd FROM cost_entries")
    for name in {row["table_name"] for row in stack.sql(VIEWS)} - SEVERAL_ROWS:
        (view,) = stack.sql(f"SELECT sum(cost_usd) AS usd FROM {name}")
        assert view["usd"] == ledger["usd"], name
    whole = stack.sql("SELECT * FROM costs_by_run_whole WHERE run_id = %s", run.id)
    assert [(row["cost_usd"], row["calls"]) for row in whole] == truth.rows()
    assert {row["workflow"] for row in whole} <= {"outer"}
    lines = stack.sql("SELECT * FROM cost_lines_whole WHERE outer_run_id = %s", run.id)
    assert sum(line["cost_usd"] for line in lines) == truth.usd
    labels = stack.sql("SELECT * FROM costs_by_label WHERE value = %s", run.labels["seed"])
    assert [(row["cost_usd"], row["calls"]) for row in labels] == truth.rows()
    inside = stack.sql("SELECT run_id FROM run_tree WHERE outer_run_id = %s", run.id)
    assert {row["run_id"] for row in inside} == {each["id"] for each in truth.runs}


def check_exporter(stack: Stack) -> None:
    samples = transaction(read_cluster)
    (ledger,) = stack.sql("SELECT sum(cost_usd) AS usd FROM cost_entries")
    exported = sum(value for metric, _, value in samples if metric is metrics.LEDGER_COST)
    assert exported == pytest.approx(float(ledger["usd"]))
    for metric, is_inner in ((metrics.RUNS, False), (metrics.INNER_RUNS, True)):
        rows = stack.sql(
            "SELECT status, count(*) AS runs FROM runs"
            " WHERE (parent_agent_run_id IS NOT NULL) = %s GROUP BY status",
            is_inner,
        )
        counts = {labels[0]: value for each, labels, value in samples if each is metric and value}
        assert counts == {row["status"]: row["runs"] for row in rows}


def check_budgets(stack: Stack, run: Run, truth: Ledger) -> None:
    (budget,) = stack.sql("SELECT spent_usd FROM budgets WHERE id = %s", run.id)
    (burndown,) = stack.sql(
        "SELECT sum(cost_usd) AS usd FROM budget_burndown WHERE budget_id = %s", run.id
    )
    assert budget["spent_usd"] == truth.usd
    assert (burndown["usd"] or 0) == truth.usd

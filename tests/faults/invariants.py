"""Invariants of a case once all its runs have ended.

Each check reads the cluster's Postgres and the simulator, and covers all runs at once.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app import Workflow
from app.domain.prompt import render
from app.simulator.facts import digest_of
from tests.faults.cluster import Cluster
from tests.faults.database import BROKEN_BUDGETS
from tests.faults.scenario import AT_ONCE, BURST, JITTER, PER_MINUTE
from tests.support.ledgers import DIFFERENT_TOTALS, assert_ledgers_agree

Row = Mapping[str, Any]
MINUTE_S = 60.0
#: In one statement, because a worker that was stopped may book at any moment.
BOOKED = """
    SELECT b.id, b.spent_usd, b.held_usd, b.limit_usd, (
        SELECT coalesce(sum(cost_usd), 0) FROM cost_entries e WHERE e.run_id = b.id
    ) AS booked_usd
    FROM budgets b WHERE b.id = ANY(%s::uuid[])
"""
#: Allowed states of runs and agents if a worst case has used up their budget.
ENDED = {"completed", "partially_completed", "failed"}
UNDONE = {"completed", "budget_exceeded", "cancelled"}


@dataclass(frozen=True, kw_only=True)
class Account:
    """All data of a case's runs.

    Attributes:
        workflows: By run id.
        runs: Their rows.
        agents: Rows of agent_runs.
        attempts: Rows of attempts.
        entries: Rows of cost_entries.
        served: Records of the simulator.
    """

    workflows: Mapping[str, Workflow]
    runs: Sequence[Row]
    agents: Sequence[Row]
    attempts: Sequence[Row]
    entries: Sequence[Row]
    served: Sequence[Row]


def account_of(cluster: Cluster) -> Account:
    """Read it all."""
    ids = [run.id for run in cluster.runs]
    of_runs = "WHERE run_id = ANY(%s::uuid[])"
    return Account(
        workflows={run.id: workflow for run, workflow in cluster.enqueued},
        runs=cluster.sql("SELECT * FROM runs WHERE id = ANY(%s::uuid[])", ids),
        agents=cluster.sql(f"SELECT * FROM agent_runs {of_runs}", ids),
        attempts=cluster.sql(
            "SELECT t.*, a.name, a.run_id FROM attempts t JOIN agent_runs a"
            f" ON a.id = t.agent_run_id {of_runs}",
            ids,
        ),
        entries=cluster.sql(f"SELECT * FROM cost_entries {of_runs}", ids),
        served=cluster.stack.simulator.ledger(),
    )


def assert_one_outcome_each(account: Account) -> None:
    """Every run is over; every agent has one accepted outcome, and no attempt is open."""
    poor = {agent["run_id"] for agent in account.agents if agent["status"] == "budget_exceeded"}
    for run in account.runs:
        # Only the run with a tight budget may leave agents undone.
        allowed = ENDED if run["id"] in poor else {"completed"}
        assert run["status"] in allowed, f"a run came to {run['status']!r}: {run['error']}"
    accepted: dict[Any, list[Row]] = defaultdict(list)
    for attempt in account.attempts:
        if attempt["outcome"] == "completed":
            accepted[attempt["agent_run_id"]].append(attempt)
        assert attempt["outcome"] != "running", f"an attempt of {attempt['name']} is open"
    for agent in account.agents:
        allowed = UNDONE if agent["run_id"] in poor else {"completed"}
        assert agent["status"] in allowed, (
            f"{agent['name']} came to {agent['status']}: {agent['error']}"
        )
        expected = int(agent["status"] == "completed")
        found = accepted[agent["id"]]
        assert len(found) == expected, f"{agent['name']} has {len(found)} accepted outcomes"
        other = [attempt for attempt in found if attempt["number"] != agent["attempt"]]
        assert other == [], f"{agent['name']}: the outcome of an old attempt was accepted"


def assert_only_accepted_results_were_read(account: Account) -> None:
    """Every result is its own attempt's answer, and every prompt quotes accepted results only.

    The simulator signs each answer with the request's id, so no two are alike: a prompt that quotes
    another answer than the accepted one has another hash.
    """
    answered = {entry["request_id"]: entry for entry in account.entries if entry["request_id"]}
    outputs: dict[tuple[str, str], Any] = {}
    for agent in account.agents:
        if agent["status"] == "completed":
            outputs[str(agent["run_id"]), agent["name"]] = agent["output"]
            entry = answered[agent["output"].split()[0]]
            assert (entry["agent_run_id"], entry["attempt"]) == (agent["id"], agent["attempt"])
            assert (entry["kind"], entry["outcome"]) == ("actual", "ok")
    known: set[str] = set()
    for run_id, workflow in account.workflows.items():
        of_run = {name: output for (run, name), output in outputs.items() if run == run_id}
        for node in workflow.agents:
            if all(need in of_run for need in node.dependencies):
                known.add(digest_of(render(node.prompt_template, of_run)))
    foreign = [r["prompt"] for r in account.served if r["prompt_hash"] not in known]
    assert foreign == [], "prompts that quote something else than accepted results"


def assert_money_is_right(
    cluster: Cluster, account: Account, broken: Sequence[Row], *, closes_calls: bool
) -> None:
    """The ledger equals the simulator's except for estimates, and no budget was ever exceeded."""
    assert_ledgers_agree(account.entries, account.served, cut=closes_calls)
    assert cluster.sql(DIFFERENT_TOTALS) == []
    assert list(broken) == [], "a budget was overspent"
    assert cluster.sql(BROKEN_BUDGETS) == []
    for budget in cluster.sql(BOOKED, list(account.workflows)):
        assert budget["spent_usd"] == budget["booked_usd"], f"not what is booked: {budget}"
        assert budget["held_usd"] == 0, f"money is held for nothing: {budget}"
        assert budget["spent_usd"] <= budget["limit_usd"], f"overspent: {budget}"


def assert_limits_were_kept(account: Account, *, permits: int) -> None:
    """No provider got more requests than its limits and these permits allow."""
    for provider in ("openai", "anthropic"):
        records = [record for record in account.served if record["provider"] == provider]
        excess = excess_of(record["arrived_s"] for record in records)
        assert excess <= permits + JITTER, f"{provider}: {excess:.1f} requests beyond its rate"
        most = most_at_once(records)
        assert most <= AT_ONCE + permits, f"{provider}: {most} requests at once"


def excess_of(arrivals_s: Iterable[float]) -> float:
    """Most requests by which arrivals exceeded a bucket of PER_MINUTE and BURST."""
    level, at_s, worst = float(BURST), 0.0, 0.0
    for arrival_s in sorted(arrivals_s):
        level = min(BURST, level + (arrival_s - at_s) * PER_MINUTE / MINUTE_S) - 1
        at_s, worst = arrival_s, max(worst, -level)
    return worst


def most_at_once(records: Sequence[Row]) -> int:
    """Most requests that were being answered at any moment."""
    changes = [(record["arrived_s"], 1) for record in records]
    changes += [(record["arrived_s"] + record["seconds"], -1) for record in records]
    most = level = 0
    for _, change in sorted(changes):
        level += change
        most = max(most, level)
    return most

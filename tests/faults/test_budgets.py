"""A worker dies between a request and its record: the possible cost is booked, once."""

import os
import signal
from collections.abc import Iterator

import pytest

from app import Agent, Run, Workflow, enqueue
from tests.faults.fleet import Fleet, run_fleet
from tests.faults.test_workers import finished, pid_of
from tests.support.ledgers import assert_ledgers_agree
from tests.support.pace import scaled
from tests.support.stack import CONFIGURATION, client_of
from tests.support.waiting import wait_until

LATENCY_S = 2.0
# Other tests check how long a lease outlives its worker.
CONFIGURED = CONFIGURATION.replace(
    "engine:\n", "engine:\n  lease_s: 3\n  heartbeat_s: 1\n  watchdog_s: 1\n"
)


def workflow(cost_budget: float) -> Workflow:
    """One agent whose call has a known size."""
    caller = Agent(
        name="caller",
        prompt_template="[[sim:output_tokens=20]] Say something.",
        llm_config={"model": "gpt-4o-mini", "max_tokens": 20},
    )
    return Workflow(name="killed", agents=[caller], cost_budget=cost_budget)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("budgets")
    with run_fleet(folder, ("openai",), ("openai",), configuration=CONFIGURED) as fleet:
        yield fleet


@pytest.fixture
def two_workers(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Two workers, the scheduler's, and this process as their client."""
    fleet.staff()
    with client_of(fleet.stack, monkeypatch):
        yield fleet


def killed_while_calling(fleet: Fleet, cost_budget: float) -> Run:
    """A run that has ended, after one of two workers was killed with its call under way."""
    stack = fleet.stack
    stack.simulator.configure(latency_s=LATENCY_S)
    run = enqueue(workflow(cost_budget))
    wait_until(lambda: stack.simulator.summary()["in_flight"], timeout_s=scaled(30))
    (holder,) = stack.sql("SELECT worker FROM agent_runs WHERE status = 'running'")
    os.kill(pid_of(holder["worker"]), signal.SIGKILL)
    finished(stack, run.id, timeout_s=scaled(60))
    return run


def test_the_call_of_a_killed_worker_is_booked_once_at_its_worst_case(two_workers: Fleet) -> None:
    run = killed_while_calling(two_workers, 1.0)

    stack = two_workers.stack
    entries = stack.sql("SELECT * FROM cost_entries WHERE run_id = %s ORDER BY id", run.id)
    assert [entry["kind"] for entry in entries] == ["unconfirmed", "actual"]
    unconfirmed, actual = entries
    assert unconfirmed["call_id"] != actual["call_id"]
    assert unconfirmed["cost_usd"] >= actual["cost_usd"]
    (budget,) = stack.sql("SELECT * FROM budgets WHERE id = %s", run.id)
    assert budget["spent_usd"] == unconfirmed["cost_usd"] + actual["cost_usd"]
    assert budget["held_usd"] == budget["overdrawn_usd"] == 0
    assert statuses(two_workers, run) == ["completed"]
    assert_ledgers_agree(entries, stack.simulator.ledger())


def test_a_budget_that_a_lost_call_used_up_is_not_exceeded_by_the_next_attempt(
    two_workers: Fleet,
) -> None:
    run = killed_while_calling(two_workers, 0.00004)

    stack = two_workers.stack
    (entry,) = stack.sql("SELECT kind, cost_usd FROM cost_entries WHERE run_id = %s", run.id)
    (budget,) = stack.sql("SELECT * FROM budgets WHERE id = %s", run.id)
    assert entry["kind"] == "unconfirmed"
    assert budget["spent_usd"] == entry["cost_usd"] <= budget["limit_usd"]
    assert 2 * entry["cost_usd"] > budget["limit_usd"]
    assert budget["held_usd"] == budget["overdrawn_usd"] == 0
    assert statuses(two_workers, run) == ["budget_exceeded"]
    assert len(stack.simulator.ledger()) == 1


def statuses(fleet: Fleet, run: Run) -> list[str]:
    rows = fleet.stack.sql("SELECT status FROM agent_runs WHERE run_id = %s", run.id)
    return [row["status"] for row in rows]

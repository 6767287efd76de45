"""A worker dies between a request and its record: what it may have cost is booked, once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app import Agent, Workflow
from tests.faults.test_workers import finished, pid_of
from tests.ledgers import assert_ledgers_agree
from tests.stack import Stack, run_stack
from tests.waiting import wait_until

LATENCY_S = 2.0
ENQUEUE = """
import sys
from decimal import Decimal
from app import enqueue
from tests.faults.test_budgets import workflow
print(enqueue(workflow(float(sys.argv[1]))).id)
"""


def workflow(cost_budget: float) -> Workflow:
    """One agent whose call has a known size."""
    caller = Agent(
        name="caller",
        prompt_template="[[sim:output_tokens=20]] Say something.",
        llm_config={"model": "gpt-4o-mini", "max_tokens": 20},
    )
    return Workflow(name="killed", agents=[caller], cost_budget=cost_budget)


@contextmanager
def killed_while_calling(folder: Path, cost_budget: float) -> Iterator[Stack]:
    """A stack of two workers, of which one was killed with a call out; the run has ended."""
    with (
        run_stack(folder, "scheduler") as stack,
        stack.worker("openai"),
        stack.worker("openai"),
    ):
        stack.simulator.configure(latency_s=LATENCY_S)
        program = stack.python("-c", ENQUEUE, str(cost_budget))
        assert program.returncode == 0, program.stderr
        wait_until(lambda: stack.simulator.summary()["in_flight"], timeout_s=30)
        (holder,) = stack.sql("SELECT worker FROM agent_runs WHERE status = 'running'")
        os.kill(pid_of(holder["worker"]), signal.SIGKILL)
        finished(stack, timeout_s=60)
        yield stack


def test_the_call_of_a_killed_worker_is_booked_once_at_its_worst_case(tmp_path: Path) -> None:
    with killed_while_calling(tmp_path, 1.0) as stack:
        entries = stack.sql("SELECT * FROM cost_entries ORDER BY id")

        assert [entry["kind"] for entry in entries] == ["unconfirmed", "actual"]
        unconfirmed, actual = entries
        assert unconfirmed["call_id"] != actual["call_id"]
        assert unconfirmed["cost_usd"] >= actual["cost_usd"]
        (budget,) = stack.sql("SELECT * FROM budgets")
        assert budget["spent_usd"] == unconfirmed["cost_usd"] + actual["cost_usd"]
        assert budget["held_usd"] == budget["overdrawn_usd"] == 0
        assert stack.sql("SELECT status FROM agent_runs") == [{"status": "completed"}]
        assert_ledgers_agree(entries, stack.simulator.ledger())


def test_a_budget_that_a_lost_call_used_up_is_not_exceeded_by_the_next_attempt(
    tmp_path: Path,
) -> None:
    with killed_while_calling(tmp_path, 0.00004) as stack:
        (entry,) = stack.sql("SELECT kind, cost_usd FROM cost_entries")
        (budget,) = stack.sql("SELECT * FROM budgets")

        assert entry["kind"] == "unconfirmed"
        assert budget["spent_usd"] == entry["cost_usd"] <= budget["limit_usd"]
        assert 2 * entry["cost_usd"] > budget["limit_usd"]
        assert budget["held_usd"] == budget["overdrawn_usd"] == 0
        assert stack.sql("SELECT status FROM agent_runs") == [{"status": "budget_exceeded"}]
        assert len(stack.simulator.ledger()) == 1

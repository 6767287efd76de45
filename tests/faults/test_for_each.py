"""A worker that is killed in the middle of a long list, beside sub-workflows for each element."""

import os
import signal
from pathlib import Path

import pytest

from tests.faults.test_workers import in_progress, pid_of
from tests.support.ledgers import assert_ledgers_agree
from tests.support.pace import scaled
from tests.support.stack import run_stack
from tests.support.waiting import wait_until

# Short leases, for a short test.
CONFIGURATION = """\
rate_limits:
  anthropic:
    default: {concurrent_requests: 500}
engine: {lease_s: 6, heartbeat_s: 2, watchdog_s: 1, drain_grace_s: 1}
"""
ITEMS = 250
INNER = 10
ENQUEUE = f"""
from app import Agent, Workflow, enqueue

model = {{"model": "claude-haiku-4-5", "max_tokens": 20}}
short = "[[sim:output_tokens=15]]"
inner = Workflow(name="inner", agents=[
    Agent(name="a", prompt_template="{{item}}" + short, llm_config=model),
    Agent(name="b", prompt_template="{{a}}" + short, llm_config=model, dependencies=["a"]),
])
workflow = Workflow(name="long list", max_parallel_agents=400, agents=[
    Agent(name="each", prompt_template="{{item}}", llm_config=model, for_each="numbers"),
    Agent(name="sub", kind="workflow", config={{"workflow": inner}}, for_each="few"),
    Agent(name="last", prompt_template="go", llm_config=model, dependencies=["each", "sub"]),
])
numbers = list(range({ITEMS}))
print(enqueue(workflow, {{"numbers": numbers, "few": numbers[:{INNER}]}}).id)
"""


@pytest.mark.timeout(120)
def test_a_worker_killed_with_200_items_in_flight_costs_no_item_and_no_dollar(
    tmp_path: Path,
) -> None:
    # Its scheduler dies with it: lanes, lists and inner runs are found by the next worker.
    with run_stack(tmp_path, configuration=CONFIGURATION) as stack:
        stack.simulator.configure(latency_s=3.0)
        program = stack.python("-c", ENQUEUE)
        run_id = program.stdout.strip()
        assert run_id, program.stderr
        wait_until(lambda: len(in_progress(stack)) >= 200, timeout_s=scaled(30))

        os.kill(pid_of(in_progress(stack)[0]["worker"]), signal.SIGKILL)
        stack.simulator.configure(latency_s=0.1)
        with stack.worker():
            wait_until(
                lambda: stack.sql(
                    "SELECT 1 FROM runs WHERE id = %s AND finished_at IS NOT NULL", run_id
                ),
                timeout_s=scaled(60),
            )

        assert stack.sql("SELECT DISTINCT status FROM runs") == [{"status": "completed"}]
        assert stack.sql("SELECT name FROM agent_runs WHERE status <> 'completed'") == []
        (counted,) = stack.sql(
            "SELECT count(*) AS items, count(DISTINCT (parent_id, item_index))"
            " AS different FROM agent_runs WHERE parent_id IS NOT NULL"
        )
        assert counted == {"items": ITEMS + INNER, "different": ITEMS + INNER}
        (inner,) = stack.sql("SELECT count(*) AS runs FROM runs WHERE ancestors <> '{}'")
        assert inner["runs"] == INNER
        accepted = stack.sql(
            "SELECT agent_run_id FROM attempts WHERE outcome = 'completed'"
            " GROUP BY agent_run_id HAVING count(*) <> 1"
        )
        assert accepted == []
        entries = stack.sql("SELECT * FROM cost_entries")
        assert_ledgers_agree(entries, stack.simulator.ledger())
        (budget,) = stack.sql("SELECT * FROM budgets WHERE id = %s", run_id)
        assert budget["spent_usd"] == sum(entry["cost_usd"] for entry in entries)
        assert budget["held_usd"] == budget["overdrawn_usd"] == 0

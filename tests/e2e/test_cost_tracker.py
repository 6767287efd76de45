"""CostTracker against the whole cluster, from a program of its own."""

import json
from pathlib import Path

import pytest

from tests.support.stack import run_stack

PROGRAM = """
import json
from app import Agent, CostTracker, OrchestrationEngine, Workflow, enqueue

def one(name, **rules):
    agent = Agent(name="one", module="Finance", prompt_template="[[sim:output_tokens=20]] Go.",
        llm_config={"model": "gpt-4o-mini", "max_tokens": 20}, cost_limit=0.5)
    return Workflow(name=name, agents=[agent], cost_budget=1.0, **rules)

run = enqueue(one("tracked"), tenant="acme")
run.wait(30)
agent_id = run.results["one"].agent_id
tracker = CostTracker()
before = run.cost
price = tracker.calculate_cost("gpt-4o-mini", 1000, 500)
checks = [tracker.check_workflow_budget(run.id), tracker.check_agent_budget(agent_id)]

cost = tracker.record_cost(agent_id, "one", run.id, "gpt-4o-mini", 1000, 500, {"note": "a test"})
booked = float(run.cost - before)
checks += [tracker.check_workflow_budget(run.id), tracker.check_agent_budget(agent_id)]

tracker.record_cost(agent_id, "one", run.id, "gpt-4o-mini", 4_000_000, 0)
checks += [tracker.check_workflow_budget(run.id), tracker.check_agent_budget(agent_id)]
tracker.record_cost("somebody", "else", run.id, "gpt-4o-mini", 4_000_000, 0)
checks += [tracker.check_workflow_budget(run.id)]

statistics = tracker.get_statistics()
print(json.dumps([price, cost, booked, checks, statistics]))
"""


def test_a_tracker_prices_books_and_checks_on_the_cluster(tmp_path: Path) -> None:
    with run_stack(tmp_path) as stack:
        for words in ("all --limit 10 --period day", "module Finance --limit 1", "tenant acme"):
            limit = () if "--limit" in words else ("--limit", "5")
            done = stack.command("budgets", "set", *words.split(), *limit)
            assert done.returncode == 0, done.stderr

        program = stack.python("-c", PROGRAM)

        assert program.returncode == 0, program.stderr
        price, cost, booked, checks, statistics = json.loads(program.stdout.splitlines()[-1])
        assert price == cost == pytest.approx(booked) == 0.00045
        # Within; within; the agent's 0.5 is used up, but not the run's 1; the run's is, too.
        assert checks == [True, True, True, True, True, False, False]
        spent = {
            (row["scope"], row["subject"]): row["spent_usd"]
            for row in stack.sql("SELECT scope, subject, spent_usd FROM budgets")
        }
        (ledger,) = stack.sql("SELECT sum(cost_usd) AS usd FROM cost_entries")
        assert spent["all", ""] == spent["tenant", "acme"] == ledger["usd"]
        assert statistics["total_cost"] == pytest.approx(float(ledger["usd"]))
        assert statistics["total_calls"] == 4
        assert statistics["by_workflow"] == {"tracked": pytest.approx(float(ledger["usd"]))}
        assert [budget["scope"] for budget in statistics["budgets"]] == ["all", "tenant", "module"]
        (finance,) = stack.sql("SELECT overdrawn_usd FROM budgets WHERE scope = 'module'")
        assert finance["overdrawn_usd"] == 0  # the other module's spending is not Finance's

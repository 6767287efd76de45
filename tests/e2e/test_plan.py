"""A plan beside the real run: calls, and the time under the limits."""

import json
from pathlib import Path

from app.workflow_files.loader import load
from tests.support.stack import run_stack

LIMITED = """\
rate_limits:
  openai:
    default: {requests_per_minute: 600, burst: 1}
"""
AGENTS = 31


def test_a_run_takes_at_least_as_long_as_planned_and_not_much_longer(tmp_path: Path) -> None:
    file = tmp_path / "w.json"
    config = {"model": "gpt-4o-mini", "max_tokens": 20}
    agents = [
        {"name": f"a{n}", "prompt_template": f"go {n}", "llm_config": config} for n in range(AGENTS)
    ]
    workflow = {"name": "limited", "agents": agents, "max_parallel_agents": AGENTS}
    file.write_text(json.dumps(workflow))
    assert len(load(file).workflow.agents) == AGENTS

    with run_stack(tmp_path, "openai", "scheduler", configuration=LIMITED) as stack:
        told = stack.command("plan", str(file), "--json")
        before = stack.simulator.summary()["requests"]
        done = stack.command("run", str(file), "--follow", "--json")
        served = stack.simulator.ledger()

    plan = json.loads(told.stdout)
    arrived_s = [record["arrived_s"] for record in served]
    assert before == 0
    assert json.loads(done.stdout)["status"] == "completed"
    assert len(served) == plan["calls"]["expected"] == AGENTS
    share = (max(arrived_s) - min(arrived_s)) / plan["time"]["at_least_s"]
    assert 0.95 <= share < 3

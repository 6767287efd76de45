"""Providers of the configuration on a whole stack: queues, limits, prices, breakers, fallbacks."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app import Agent, Workflow, WorkflowStatus, enqueue
from app.client.process import process
from app.client.run import Run
from app.simulator import SimulatorProcess, run_in_process
from tests.support.ledgers import assert_ledgers_agree
from tests.support.pace import scaled
from tests.support.stack import ALL_QUEUES, Stack, client_of, run_stack
from tests.support.waiting import wait_until

PROTOCOLS = {"vllm": "openai", "gateway": "anthropic"}
CONFIGURATION = """\
providers:
  vllm:
    protocol: openai
    base_url: {openai}
    models: ["sim-*"]
  gateway:
    protocol: anthropic
    base_url: {anthropic}
    api_key_env: TEAM_KEY
    headers: {{X-Team: "${{TEAM_NAME}}"}}
rate_limits:
  vllm:
    default: {{concurrent_requests: 20}}
costs: {{default_input_cost: 0.001, default_output_cost: 0.002}}
circuit_breaker: {{window_s: 20, min_failures: 3, open_s: 30, max_open_s: 30}}
retry: {{strategy: constant_delay, base_delay: 0.05, jitter: false}}
"""


@dataclass
class Served:
    """A stack, and the simulator that its configured providers use."""

    stack: Stack
    simulator: SimulatorProcess


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("providers")
    with pytest.MonkeyPatch.context() as patch, run_in_process() as simulator:
        text = CONFIGURATION.format(
            openai=simulator.openai_base_url, anthropic=simulator.anthropic_base_url
        )
        variables = {"TEAM_KEY": "sk-of-the-team", "TEAM_NAME": "erp"}
        queues = (*ALL_QUEUES, *PROTOCOLS)
        with (
            run_stack(folder, *queues, configuration=text, **variables) as stack,
            client_of(stack, patch),
        ):
            yield Served(stack, simulator)
            entries = stack.sql("SELECT * FROM cost_entries WHERE provider IN ('vllm', 'gateway')")
            as_spoken = [entry | {"provider": PROTOCOLS[entry["provider"]]} for entry in entries]
            assert_ledgers_agree(as_spoken, simulator.ledger())


def finished(name: str, *agents: Agent) -> Run:
    run = enqueue(Workflow(name=name, agents=agents))
    run.wait(timeout=scaled(30))
    return run


def agent(name: str, model: str, provider: str | None = None, **fields: Any) -> Agent:
    config = {"model": model, "max_tokens": 50} | ({"provider": provider} if provider else {})
    return Agent(name=name, prompt_template="go", llm_config=config, **fields)


def cli(served: Served, *arguments: str) -> Any:
    done = served.stack.command(*arguments, "--json")
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def circuits() -> list[str]:
    found = process().loop.run(process().client.live_state.circuits())
    return [circuit["state"] for circuit in found]


def called(served: Served, run: Run) -> list[tuple[str, str]]:
    rows = served.stack.sql(
        "SELECT provider, model FROM cost_entries WHERE run_id = %s ORDER BY id", run.id
    )
    return [(row["provider"], row["model"]) for row in rows]


def test_agents_are_served_by_the_providers_of_the_configuration(served: Served) -> None:
    run = finished(
        "providers",
        agent("by_model", "sim-large"),
        agent("by_name", "sim-small", "gateway", dependencies=["by_model"]),
        agent("built_in", "gpt-4o-mini", dependencies=["by_name"]),
    )

    assert run.status is WorkflowStatus.COMPLETED
    assert called(served, run) == [
        ("vllm", "sim-large"),
        ("gateway", "sim-small"),
        ("openai", "gpt-4o-mini"),
    ]


def test_the_command_line_knows_them(served: Served) -> None:
    findings = {check["name"]: check for check in cli(served, "doctor")}
    limits = {bucket["bucket"]: bucket["limits"] for bucket in cli(served, "limits")}

    assert findings["vllm key"]["finding"].startswith("not needed, served at http://127.0.0.1")
    assert findings["gateway key"]["finding"].startswith("present")
    assert findings["gateway server"]["level"] == "ok"
    assert findings["workers"]["finding"] == "every queue is served"
    assert limits["vllm/default"]["concurrent_requests"]["value"] == 20
    assert "gateway/default" in limits


def test_an_open_circuit_leads_to_the_fallback_without_waiting(served: Served) -> None:
    served.simulator.configure(
        faults=[{"kind": "status", "status": 500, "provider": "openai", "model": "sim-down"}]
    )
    broken = [agent(f"b{n}", "sim-down", max_retries=0) for n in range(4)]
    finished("breaking", *broken)
    wait_until(lambda: "open" in circuits(), what="the circuit is open")
    before = len(served.simulator.ledger())

    fallback = [{"model": "sim-small", "provider": "gateway"}]
    run = finished("around", *(agent(f"a{n}", "sim-down", fallbacks=fallback) for n in range(5)))

    assert run.status is WorkflowStatus.COMPLETED
    assert called(served, run) == [("gateway", "sim-small")] * 5
    assert len(served.simulator.ledger()) == before + 5
    errors = [e.data["error_class"] for e in run.events() if e.type == "agent_fallback"]
    assert errors == ["CircuitOpen"] * 5

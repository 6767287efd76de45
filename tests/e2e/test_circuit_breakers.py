"""A provider that is down: its circuit opens for the whole cluster, and closes when it is back."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import Agent, Workflow, WorkflowStatus, enqueue
from tests.support.ledgers import assert_ledgers_agree
from tests.support.pace import scaled
from tests.support.stack import CONFIGURATION, Stack, client_of, run_stack
from tests.support.waiting import wait_until

POLICY = {"window_s": 10, "min_failures": 5, "open_s": 0.5, "max_open_s": 1}
RETRY = {"strategy": "constant_delay", "base_delay": 0.05, "jitter": False}
DOWN = [{"kind": "status", "status": 500, "provider": "openai"}]


@pytest.fixture
def outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """Two workers, and a provider that fails every call."""
    configuration = (
        CONFIGURATION + f"circuit_breaker: {json.dumps(POLICY)}\nretry: {json.dumps(RETRY)}\n"
    )
    with (
        run_stack(tmp_path, configuration=configuration) as stack,
        stack.worker("openai", "anthropic"),
        client_of(stack, monkeypatch),
    ):
        stack.simulator.configure(faults=DOWN)
        yield stack
        assert_ledgers_agree(stack.sql("SELECT * FROM cost_entries"), stack.simulator.ledger())


def workflow(agents: int, model: str = "gpt-4o-mini", max_retries: int = 3) -> Workflow:
    return Workflow(
        name=f"{agents} of {model}",
        agents=[
            Agent(
                name=f"a{n}",
                prompt_template="go",
                llm_config={"model": model},
                max_retries=max_retries,
            )
            for n in range(agents)
        ],
        max_parallel_agents=agents,
    )


def requests(stack: Stack) -> int:
    return len(stack.simulator.ledger())


def test_a_circuit_opens_spares_the_provider_and_closes_again(outage: Stack) -> None:
    run = enqueue(workflow(8, max_retries=9))
    wait_until(lambda: "circuit_open" in types_of(outage), what="somebody waits at the circuit")
    before, started_s = requests(outage), time.monotonic()

    # Agents that start now wait from the beginning, and hold no money and no permit meanwhile.
    other = enqueue(workflow(20))
    wait_until(lambda: running(outage) == 28, what="everybody waits")
    wait_until(lambda: outage.sql("SELECT count(*) AS n FROM holds")[0]["n"] <= 1)
    shown = outage.command("limits", "--json")

    # Only probes are sent, one after the other; a call may have been under way when it opened.
    tries = (time.monotonic() - started_s) / POLICY["open_s"]
    assert requests(outage) - before <= 4 + tries
    (circuit,) = next(
        bucket["circuits"]
        for bucket in json.loads(shown.stdout)
        if bucket["bucket"] == "openai/default"
    )
    assert (circuit["model"], circuit["state"]) in {
        ("gpt-4o-mini", "open"),
        ("gpt-4o-mini", "half_open"),
    }
    table = outage.command("limits")
    assert "openai/gpt-4o-mini" in table.stdout

    outage.simulator.configure(faults=[])

    assert run.wait(scaled(30)) is WorkflowStatus.COMPLETED
    assert other.wait(scaled(30)) is WorkflowStatus.COMPLETED
    assert "circuit_closed" in types_of(outage)
    assert outage.sql("SELECT 1 FROM holds") == []


def test_other_models_and_refusals_are_not_held_back(outage: Stack) -> None:
    outage.simulator.configure(
        faults=[*DOWN, {"kind": "status", "status": 429, "provider": "anthropic"}]
    )
    limited = enqueue(workflow(10, "claude-haiku-4-5", max_retries=1))

    assert limited.wait(scaled(30)) is WorkflowStatus.FAILED
    assert {result.status for result in limited.results.values()} == {"rate_limited"}
    assert "circuit_open" not in types_of(outage)


def types_of(stack: Stack) -> set[str]:
    return {row["type"] for row in stack.sql("SELECT DISTINCT type FROM events")}


def running(stack: Stack) -> int:
    (row,) = stack.sql("SELECT count(*) AS n FROM agent_runs WHERE status = 'running'")
    return int(row["n"])

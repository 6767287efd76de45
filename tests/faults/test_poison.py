"""Agents that end their worker, answer too much, or take too long; and the callback."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from app import Agent, Run, Workflow, WorkflowStatus, enqueue
from tests.support.ledgers import assert_ledgers_agree
from tests.support.pace import scaled
from tests.support.stack import CONFIGURATION, Stack, Worker, client_of, run_stack
from tests.support.waiting import wait_until

MAX_RECOVERIES = 2
ENGINE = f"""\
  lease_s: 2
  heartbeat_s: 0.5
  watchdog_s: 0.5
  max_recoveries: {MAX_RECOVERIES}
  max_output_bytes: 2000
on_failure: poison:note
"""
MODULE = """\
import json
import os
import signal

from app import tool


@tool(idempotent=True)
def die() -> str:
    "Ends the worker."
    os.kill(os.getpid(), signal.SIGKILL)


def note(agent, result):
    line = {{"agent": agent.name, "status": result.status, **result.metadata}}
    with open({told!r}, "a") as file:
        file.write(json.dumps(line) + "\\n")
    raise RuntimeError("nobody answers the pager")
"""


@pytest.fixture(scope="module")
def poisoned_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose worker for providers is started by the test."""
    folder = tmp_path_factory.mktemp("poison")
    module = MODULE.format(told=str(folder / "told"))
    (folder / "poison.py").write_text(module, encoding="utf-8")
    configuration = CONFIGURATION.replace("imports: [", "imports: [poison, ")
    with run_stack(folder, "scheduler", configuration=configuration + ENGINE) as stack:
        yield stack


@pytest.fixture
def stack(poisoned_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """The same with a reset simulator and folder; at the end the ledgers must agree."""
    (poisoned_stack.folder / "told").unlink(missing_ok=True)
    poisoned_stack.simulator.reset()
    (before,) = poisoned_stack.sql("SELECT coalesce(max(id), 0) AS id FROM cost_entries")
    with client_of(poisoned_stack, monkeypatch):
        yield poisoned_stack
        entries = poisoned_stack.sql("SELECT * FROM cost_entries WHERE id > %s", before["id"])
        assert_ledgers_agree(entries, poisoned_stack.simulator.ledger())
        assert poisoned_stack.sql("SELECT call_id FROM holds") == []


def told(stack: Stack) -> list[dict[str, Any]]:
    file = stack.folder / "told"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def agent(name: str, prompt: str = "go", **fields: Any) -> Agent:
    return Agent(name=name, prompt_template=prompt, llm_config={"model": "gpt-4o-mini"}, **fields)


def finish_with_new_workers(stack: Stack, run: Run) -> int:
    """Start a worker whenever none runs, until the run has ended; return how many died."""
    deaths = 0
    while not run.status.is_final:
        with stack.worker("openai", "anthropic") as worker:
            end = partial(_has_ended, run, worker)
            wait_until(end, timeout_s=scaled(40), what="the worker has died, or the run has ended")
            deaths += worker.process.poll() is not None
    return deaths


def _has_ended(run: Run, worker: Worker) -> bool:
    return worker.process.poll() is not None or run.status.is_final


def test_an_agent_that_kills_its_worker_every_time_is_quarantined_alone(stack: Stack) -> None:
    poisoned = agent("poisoned", "[[sim:tool_turns=1]] go", tools=["die"], max_retries=9)
    neighbours = [agent(f"neighbour_{n}", "[[sim:latency=1]] go") for n in range(4)]
    after = agent("after", dependencies=["poisoned"])
    run = enqueue(Workflow(name="poison", agents=[poisoned, *neighbours, after]))

    deaths = finish_with_new_workers(stack, run)

    assert deaths == MAX_RECOVERIES + 1
    assert run.status is WorkflowStatus.PARTIALLY_COMPLETED
    results = run.results
    assert "quarantined" in str(results["poisoned"].error)
    assert results["poisoned"].metadata["error_class"] == "RecoveriesExhausted"
    assert results["poisoned"].retry_count == 0
    assert results["after"].error == "upstream failed: poisoned"
    assert all(results[each.name].is_success() for each in neighbours)
    wait_until(lambda: told(stack), what="somebody is told")
    (notice,) = told(stack)
    assert (notice["agent"], notice["status"]) == ("poisoned", "failed")
    assert (notice["run_id"], notice["attempts"]) == (run.id, deaths)


def test_a_result_that_is_too_large_fails_its_agent_and_keeps_the_cost(stack: Stack) -> None:
    large = agent("large", "[[sim:output_tokens=3000]] go")
    refused = agent("refused", "[[sim:status=400]] go")
    flaky = agent("flaky", "[[sim:status=500,times=1]] go")
    small = [agent("small"), agent("smaller")]

    with stack.worker("openai", "anthropic"):
        run = enqueue(Workflow(name="sizes", agents=[large, refused, flaky, *small]))

        assert run.wait(scaled(30)) is WorkflowStatus.PARTIALLY_COMPLETED
        wait_until(lambda: len(told(stack)) == 2, what="two failures are told")

    result = run.results["large"]
    assert "the limit is 2,000: lower its max_tokens or raise engine.max_output_bytes" in str(
        result.error
    )
    assert (result.output, result.retry_count) == (None, 0)
    (entry,) = stack.sql(
        "SELECT kind, outcome, cost_usd FROM cost_entries WHERE run_id = %s AND agent = 'large'",
        run.id,
    )
    assert (entry["kind"], entry["outcome"]) == ("actual", "ok")
    assert float(entry["cost_usd"]) == result.cost > 0
    # The callback raises each time, which has no effect; it is called once for each.
    classes = {line["agent"]: line["error_class"] for line in told(stack)}
    assert classes == {"large": "ResultTooLarge", "refused": "BadRequest"}


def test_an_agents_timeout_is_retried_and_a_runs_timeout_ends_it(stack: Stack) -> None:
    slow = agent("slow", "[[sim:latency=2,times=1]] go", timeout=0.5)
    stuck = agent("stuck", "[[sim:hang]] go", timeout=60, priority=9)
    waiting = agent("waiting", dependencies=["stuck"])

    with stack.worker("openai", "anthropic"):
        timed = enqueue(Workflow(name="timeout", agents=[slow]))
        overdue = enqueue(Workflow(name="overdue", agents=[stuck, waiting], timeout=2))

        assert timed.wait(scaled(30)) is WorkflowStatus.COMPLETED
        assert overdue.wait(scaled(30)) is WorkflowStatus.FAILED

    assert timed.results["slow"].retry_count == 1
    (first,) = stack.sql(
        "SELECT t.error_class FROM attempts t JOIN agent_runs a ON a.id = t.agent_run_id"
        " WHERE a.run_id = %s AND t.outcome = 'failed'",
        timed.id,
    )
    assert first["error_class"] == "AgentTimeout"
    assert overdue.error == "the run's timeout of 2 s is over"
    assert {result.status for result in overdue.results.values()} == {"cancelled"}

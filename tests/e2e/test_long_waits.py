"""Agents with a long wait are handed back, and continue when the wait is over."""

import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from app import Agent, RetryPolicy, RetryStrategy, Run, Workflow, WorkflowStatus, enqueue
from app.celery import app as celery
from tests.support.ledgers import assert_ledgers_agree
from tests.support.pace import at_this_pace, scaled
from tests.support.stack import CONFIGURATION, Stack, client_of, run_stack
from tests.support.waiting import wait_until

SCARCE = "gpt-4.1-nano"
DAILY = 4
CIRCUIT = {"window_s": 10, "min_failures": 3, "open_s": 3, "max_open_s": 3}
CONFIGURED = (
    CONFIGURATION.replace(
        "openai:\n", f"openai:\n    models: {{{SCARCE}: {{requests_per_day: {DAILY}}}}}\n"
    )
    .replace("long_wait_s: 60", "long_wait_s: 1")
    .replace("engine:\n", "engine:\n  watchdog_s: 2\n")
)
PROMPT_S = 1.5


@pytest.fixture(scope="module")
def waiting_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One worker whose long_wait_s is a second."""
    configuration = CONFIGURED + f"circuit_breaker: {json.dumps(CIRCUIT)}\n"
    folder = tmp_path_factory.mktemp("long_waits")
    with run_stack(folder, configuration=configuration) as stack:
        yield stack


@pytest.fixture
def waits(waiting_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    waiting_stack.simulator.reset()
    (before,) = waiting_stack.sql("SELECT coalesce(max(id), 0) AS id FROM cost_entries")
    with client_of(waiting_stack, monkeypatch):
        yield waiting_stack
    entries = waiting_stack.sql("SELECT * FROM cost_entries WHERE id > %s", before["id"])
    assert_ledgers_agree(entries, waiting_stack.simulator.ledger())


def agents(count: int, model: str, prompt: str = "go", **fields: Any) -> list[Agent]:
    name, config = model.replace(".", "_"), {"model": model, "max_tokens": 20}
    return [
        Agent(name=f"{name}-{n}", prompt_template=prompt, llm_config=config, **fields)
        for n in range(count)
    ]


def given_back(stack: Stack, run: Run) -> list[dict[str, Any]]:
    """Agents of a run that wait without a lease."""
    return stack.sql(
        "SELECT id, name, waits_for, ready_at, attempt, retries, recoveries FROM agent_runs"
        " WHERE run_id = %s AND status = 'pending' AND waits_for IS NOT NULL ORDER BY name",
        run.id,
    )


def test_a_used_up_day_takes_no_places_and_ends_when_its_limit_is_lifted(waits: Stack) -> None:
    scarce = agents(2 * DAILY, SCARCE, priority=9)
    others = agents(6, "claude-haiku-4-5", priority=1)
    run = enqueue(Workflow(name="a scarce day", agents=[*scarce, *others], max_parallel_agents=4))

    wait_until(lambda: completed(waits, run) == DAILY + 6, what="all others have their turn")
    waiting = wait_until(lambda: given_back(waits, run), what="the rest is given back")
    holds = waits.sql("SELECT 1 FROM holds")

    assert [row["name"] for row in waiting] == [agent.name for agent in scarce[DAILY:]]
    assert {row["waits_for"] for row in waiting} == {f"openai/{SCARCE} requests_per_day"}
    assert {(row["attempt"], row["retries"], row["recoveries"]) for row in waiting} == {(1, 0, 0)}
    assert holds == []
    told = waits.sql("SELECT data FROM events WHERE run_id = %s AND type = 'agent_waiting'", run.id)
    assert len(told) == DAILY
    assert all(row["data"]["waits_for"] and row["data"]["ready_in_s"] > 3000 for row in told)

    page = waits.command("status", run.id).stdout
    assert page.count("waiting for") == DAILY

    came_after_s = comes_back_after_s(waits, waiting[0]["id"])
    waits.sql(
        "INSERT INTO rate_limits (provider, model, limits) VALUES ('openai', %s, %s)",
        SCARCE,
        '{"requests_per_day": null}',
    )

    assert came_after_s < at_this_pace(PROMPT_S)
    assert run.wait(scaled(10)) is WorkflowStatus.COMPLETED
    waits.sql("DELETE FROM rate_limits")


def comes_back_after_s(stack: Stack, agent_run_id: UUID) -> float:
    """Seconds from the time at which an agent may be claimed to its next attempt."""
    (due,) = stack.sql(
        "UPDATE agent_runs SET ready_at = clock_timestamp() + interval '3 s' WHERE id = %s"
        " RETURNING ready_at, attempt",
        agent_run_id,
    )
    (came,) = wait_until(
        lambda: stack.sql(
            "SELECT started_at FROM attempts WHERE agent_run_id = %s AND number = %s"
            " AND outcome = 'handed_back'",
            agent_run_id,
            due["attempt"] + 1,
        )
    )
    return float((came["started_at"] - due["ready_at"]).total_seconds())


def completed(stack: Stack, run: Run) -> int:
    (row,) = stack.sql(
        "SELECT count(*) AS n FROM agent_runs WHERE run_id = %s AND status = 'completed'", run.id
    )
    return int(row["n"])


def test_an_open_circuit_takes_no_places(waits: Stack) -> None:
    waits.simulator.configure(faults=[{"kind": "status", "status": 500, "provider": "openai"}])
    at_once = RetryPolicy(max_retries=20, strategy=RetryStrategy.IMMEDIATE)
    run = enqueue(Workflow(name="an outage", agents=agents(6, "gpt-4o-mini", retry_policy=at_once)))

    wait_until(lambda: len(given_back(waits, run)) == len(run.results), timeout_s=scaled(20))
    waiting = given_back(waits, run)
    waits.simulator.configure(faults=[])
    back_s = time.monotonic()

    assert {row["waits_for"] for row in waiting} == {"openai/gpt-4o-mini circuit"}
    assert run.wait(scaled(15)) is WorkflowStatus.COMPLETED
    assert time.monotonic() - back_s < CIRCUIT["open_s"] + at_this_pace(3)
    rows = waits.sql("SELECT retries, recoveries FROM agent_runs WHERE run_id = %s", run.id)
    assert {row["recoveries"] for row in rows} == {0}
    assert max(row["retries"] for row in rows) <= 5


def test_who_waits_for_money_takes_no_place_and_comes_back_when_it_is_free(waits: Stack) -> None:
    waits.simulator.configure(latency_s=0.5)
    first = enqueue(Workflow(name="one", agents=agents(1, "gpt-4o-mini")))
    (hold,) = wait_until(lambda: waits.sql("SELECT amount_usd FROM holds"))
    first.wait(scaled(10))
    waits.simulator.configure(latency_s=2.5)
    budget = float(hold["amount_usd"] + first.cost)
    run = enqueue(Workflow(name="short", agents=agents(2, "gpt-4o-mini"), cost_budget=budget))

    (waiting,) = wait_until(lambda: given_back(waits, run), what="one of them is given back")
    places = waits.sql("SELECT 1 FROM agent_runs WHERE run_id = %s AND status = 'running'", run.id)
    wait_until(lambda: completed(waits, run) == 1)
    free_s = time.monotonic()
    wait_until(lambda: waits.simulator.summary()["in_flight"], what="the other one calls")

    assert waiting["waits_for"] == f"money of the budget of run {run.id}"
    assert len(places) == 1
    assert time.monotonic() - free_s < at_this_pace(PROMPT_S)
    assert run.wait(scaled(15)) is WorkflowStatus.COMPLETED


def test_a_lane_that_waits_for_a_backoff_leaves_a_paused_run_at_once(waits: Stack) -> None:
    slow = RetryPolicy(strategy=RetryStrategy.CONSTANT_DELAY, base_delay=9, jitter=False)
    prompt = "[[sim:status=503,times=1]]"
    run = enqueue(Workflow(name="a backoff", agents=agents(1, "gpt-4o", prompt, retry_policy=slow)))
    wait_until(
        lambda: waits.sql("SELECT 1 FROM agent_runs WHERE run_id = %s AND retries = 1", run.id)
    )
    before = lanes_of(run)

    assert run.pause()
    paused_s = time.monotonic()
    wait_until(lambda: not lanes_of(run), what="the lane has left")
    left_s = time.monotonic() - paused_s
    run.resume()

    assert before == 1
    assert left_s < 7  # of the 9 that its backoff takes; asking Celery takes half a second
    assert run.wait(9 + scaled(15)) is WorkflowStatus.COMPLETED


def lanes_of(run: Run) -> int:
    """Lanes of a run that workers are running, according to Celery."""
    active = wait_until(
        lambda: celery.control.inspect(timeout=0.5).active() or {}, what="the workers answer"
    )
    return sum(task["args"][0] == run.id for tasks in active.values() for task in tasks)

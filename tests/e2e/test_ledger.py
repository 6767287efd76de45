"""Calls of every kind; after each, the ledger equals the simulator's to the last digit."""

import json
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from app import Agent, RetryPolicy, RetryStrategy, Run, Workflow, enqueue
from app.examples.tools import check_total
from tests.support.ledgers import dollars_of
from tests.support.pace import scaled
from tests.support.stack import Stack

AT_ONCE = RetryPolicy(strategy=RetryStrategy.IMMEDIATE)
MODELS = ("gpt-4o-mini", "gpt-6.1-terra", "claude-haiku-4-5", "claude-sonnet-5")
WAIT_S = scaled(30.0)
#: Some 1,500 tokens, so that there is something to cache.
LONG = "The terms and conditions of this contract apply to both of its parties. " * 85


def agent(name: str, model: str, prompt: str, **fields: Any) -> Agent:
    return Agent(
        name=name,
        module="Legal",
        prompt_template=prompt,
        llm_config={"model": model, "max_tokens": 400},
        retry_policy=AT_ONCE,
        **fields,
    )


def run_to_end(*agents: Agent, name: str = "ledger") -> Run:
    run = enqueue(Workflow(name=name, agents=agents))
    run.wait(timeout=WAIT_S)
    return run


def entries_of(stack: Stack, run: Run) -> list[dict[str, Any]]:
    return stack.sql("SELECT * FROM cost_entries WHERE run_id = %s ORDER BY id", run.id)


@pytest.mark.parametrize("model", MODELS)
def test_cached_written_and_reasoning_tokens_are_booked_at_their_own_prices(
    stack: Stack, model: str
) -> None:
    parts = "cached_tokens=700,cache_write_tokens=300,output_tokens=90,reasoning_tokens=40"

    run = run_to_end(agent("reader", model, f"{LONG} [[sim:{parts}]]"))

    assert run.status == "completed"
    (entry,) = entries_of(stack, run)
    (served,) = stack.simulator.ledger()
    assert (entry["cached_tokens"], entry["cache_write_tokens"]) == (700, 300)
    # The simulated Anthropic counts thinking as output, without a number of its own.
    told = 40 if entry["provider"] == "openai" else 0
    assert (entry["output_tokens"], entry["reasoning_tokens"]) == (served["output_tokens"], told)
    assert entry["cost_usd"] == dollars_of(served)
    uncached = served | {"cached_tokens": 0, "cache_write_tokens": 0}
    assert entry["saved_usd"] == dollars_of(uncached) - entry["cost_usd"]
    assert sum(value for value in entry["usage"].values() if isinstance(value, int)) > 1000


@pytest.mark.parametrize("model", MODELS)
def test_every_turn_of_a_tool_loop_has_its_own_entry(stack: Stack, model: str) -> None:
    prompt = f"{LONG} Use check_total. [[sim:tool_turns=3,cached_tokens=500,cache_write_tokens=9]]"

    run = run_to_end(agent("checker", model, prompt, tools=[check_total]))

    assert run.status == "completed"
    entries = entries_of(stack, run)
    assert [entry["kind"] for entry in entries] == ["actual"] * 4
    assert {entry["cached_tokens"] for entry in entries} == {500}
    assert run.cost == sum(entry["cost_usd"] for entry in entries)


def test_retries_429s_and_cached_tokens_of_both_providers_in_one_run(stack: Stack) -> None:
    faults = {
        "busy": "[[sim:status=429,times=2]]",
        "broken": "[[sim:status=500,times=1]][[sim:status=503,times=2]]",
        "refused": "[[sim:status=400]]",
        "dropped": "[[sim:drop,times=1]]",
        "garbled": "[[sim:garbage,times=1]]",
    }
    cached = "[[sim:cached_tokens=1000,cache_write_tokens=77,output_tokens=33]]"
    agents = [
        agent(f"{name}_{model.partition('-')[0]}", model, f"{LONG} {name} {model} {fault} {cached}")
        for name, fault in faults.items()
        for model in ("gpt-6.1-terra", "claude-haiku-4-5")
    ]

    run = run_to_end(*agents)

    kinds = Counter((entry["kind"], entry["outcome"] == "ok") for entry in entries_of(stack, run))
    statuses = Counter(result.status.value for result in run.results.values())
    assert statuses == {"completed": 8, "failed": 2}
    assert kinds == {("actual", True): 8, ("actual", False): 10, ("unconfirmed", False): 4}


def test_a_result_that_was_not_used_is_waste_beside_failed_and_unconfirmed_calls(
    stack: Stack,
) -> None:
    run = run_to_end(
        agent("talker", "gpt-4o-mini", "check_total", tools=[check_total], max_turns=1),
        agent("failing", "claude-haiku-4-5", "[[sim:status=500,times=1]]"),
        agent("dropped", "claude-haiku-4-5", "[[sim:drop,times=1]] drop"),
        name="wasteful",
    )

    waste = stack.sql(
        """
        SELECT agent, cause, sum(calls)::int AS calls, sum(wasted_usd) AS wasted_usd
        FROM cost_waste WHERE workflow = 'wasteful' GROUP BY agent, cause ORDER BY agent
        """
    )

    entries = entries_of(stack, run)
    talked = [entry["cost_usd"] for entry in entries if entry["agent"] == "talker"]
    lost = [entry["cost_usd"] for entry in entries if entry["kind"] == "unconfirmed"]
    assert waste == [
        {"agent": "dropped", "cause": "unconfirmed", "calls": 1, "wasted_usd": sum(lost)},
        {"agent": "failing", "cause": "failed", "calls": 1, "wasted_usd": Decimal(0)},
        {"agent": "talker", "cause": "retried", "calls": len(talked), "wasted_usd": sum(talked)},
    ]


@pytest.mark.parametrize("is_inside", [False, True])
def test_a_run_is_priced_again_from_the_command_line(stack: Stack, is_inside: bool) -> None:
    reader = agent("reader", "gpt-4o-mini", "dear [[sim:output_tokens=100]]")
    inner = Workflow(name="inner", agents=[reader])
    sub = Agent(name="sub", kind="workflow", config={"workflow": inner})
    run = run_to_end(sub if is_inside else reader)
    before = run.cost
    dearer = json.dumps({"model_prices": {"gpt-4o-mini": [{"input": 0.3, "output": 1.2}]}})

    def reprice(*words: str) -> Any:
        command = ("costs", "reprice", run.id, "--json", *words)
        done = stack.command(*command, AGENTCHORD_COSTS=dearer)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    told, done, again = reprice("--dry-run"), reprice(), reprice()

    (change,) = done["changes"]
    assert (told["booked"], told["changes"]) == (False, done["changes"])
    assert (change["calls"], change["difference_usd"]) == (1, f"{before:f}")
    assert again["changes"] == []
    assert Run(run.id).cost == 2 * before

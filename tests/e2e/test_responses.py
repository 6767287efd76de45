"""Agents on OpenAI's Responses API; after each test the ledger equals the simulator's."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from app import Agent, RetryPolicy, RetryStrategy, Run, Workflow, enqueue
from app.examples import basic, erp
from app.examples.tools import check_total
from tests.support.ledgers import dollars_of
from tests.support.pace import at_this_pace, scaled
from tests.support.stack import Stack

LIMITED = "gpt-5.4-mini"
MODEL, CLAUDE = "gpt-6.1-terra", "claude-haiku-4-5"
RESPONSES, CHAT, MESSAGES = "/v1/responses", "/v1/chat/completions", "/v1/messages"
AT_ONCE = RetryPolicy(strategy=RetryStrategy.IMMEDIATE)
WAIT_S = scaled(30.0)
SCHEMA = {
    "type": "object",
    "properties": {"correct": {"type": "boolean"}, "total": {"type": "number"}},
    "required": ["correct", "total"],
}
TOOLS: dict[str, Any] = {"tools": [check_total], "retry_policy": AT_ONCE}


def agent(name: str, prompt: str, **fields: Any) -> Agent:
    config = {"model": MODEL, "max_tokens": 400, **fields.pop("llm_config", {})}
    return Agent(name=name, prompt_template=prompt, llm_config=config, **fields)


def run_to_end(workflow: Workflow, given: dict[str, Any] | None = None) -> Run:
    run = enqueue(workflow, given)
    run.wait(timeout=WAIT_S)
    return run


def on_responses(workflow: Workflow, **config: Any) -> Workflow:
    """The same workflow, with every agent on the Responses API."""
    agents = [
        replace(each, llm_config={"model": MODEL, "max_tokens": 700, **config})
        for each in workflow.agents
    ]
    return replace(workflow, agents=agents)


def paths(stack: Stack) -> list[str]:
    return [record["endpoint"] for record in stack.simulator.ledger()]


def entries_of(stack: Stack, run: Run) -> list[dict[str, Any]]:
    return stack.sql("SELECT * FROM cost_entries WHERE run_id = %s ORDER BY id", run.id)


@pytest.fixture
def one_an_hour(stack: Stack) -> Iterator[Stack]:
    """The stack, with one request an hour for the model ``LIMITED``."""
    words = ("limits", "set", "openai", "--model", LIMITED, "requests_per_hour=1")
    done = stack.command(*words)
    assert done.returncode == 0, done.stderr
    yield stack
    stack.sql("DELETE FROM rate_limits")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_erp_example_runs_on_the_responses_api(stack: Stack, stream: bool) -> None:
    run = run_to_end(on_responses(erp.workflow(), api="responses", stream=stream), erp.INPUT)

    assert run.status == "completed"
    assert set(paths(stack)) == {RESPONSES}
    served = stack.simulator.ledger()
    assert len(served) == len(erp.workflow().agents)
    assert {record["streamed"] for record in served} == {stream}
    assert run.cost == sum(map(dollars_of, served))
    assert isinstance(json.loads(run.outputs["resume_parser"]), dict)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_example_with_a_tool_goes_to_the_responses_api_by_its_model(
    stack: Stack, stream: bool
) -> None:
    run = run_to_end(on_responses(basic.workflow(), stream=stream), basic.INPUT)

    assert run.status == "completed"
    assert paths(stack) == [CHAT, RESPONSES, RESPONSES, CHAT]
    types = [event.type for event in run.events()]
    assert types.index("tool_started") < types.index("tool_finished")
    assert run.cost == sum(map(dollars_of, stack.simulator.ledger()))


def test_turns_of_tools_reasoning_and_schemas_are_booked_to_the_last_digit(stack: Stack) -> None:
    parts = "tool_turns=3,reasoning_tokens=40,cached_tokens=50,cache_write_tokens=9"
    prompt = f"{'Terms and conditions. ' * 40} Use check_total. [[sim:{parts}]]"

    run = run_to_end(
        Workflow(
            name="turns",
            agents=[
                agent("whole", prompt, output_schema=SCHEMA, **TOOLS),
                agent("streamed", prompt, llm_config={"stream": True}, **TOOLS),
            ],
        )
    )

    entries = entries_of(stack, run)
    assert run.status == "completed"
    assert run.outputs["whole"].keys() == {"correct", "total"}
    assert len(entries) == 8
    assert {entry["kind"] for entry in entries} == {"actual"}
    assert {entry["reasoning_tokens"] for entry in entries} == {40}
    assert {entry["cached_tokens"] for entry in entries} == {50}


def test_a_later_attempt_goes_on_with_the_sealed_reasoning_of_an_earlier_one(
    stack: Stack,
) -> None:
    stack.simulator.configure(faults=[{"kind": "status", "status": 500, "every": 2}])

    run = run_to_end(Workflow(name="again", agents=[agent("a", "Use check_total.", **TOOLS)]))

    assert run.status == "completed"
    assert run.results["a"].retry_count == 1
    assert [entry["outcome"] for entry in entries_of(stack, run)] == ["ok", "ServerFailure", "ok"]
    assert [event.type for event in run.events()].count("tool_started") == 1


@pytest.mark.parametrize(
    ("model", "fallback", "called"),
    [
        (MODEL, CLAUDE, [RESPONSES, RESPONSES, MESSAGES]),
        (CLAUDE, MODEL, [MESSAGES, MESSAGES, RESPONSES]),
        (MODEL, "gpt-4o-mini", [RESPONSES, RESPONSES, CHAT]),
        ("gpt-4o-mini", MODEL, [CHAT, CHAT, RESPONSES]),
    ],
)
def test_a_conversation_with_tools_goes_on_with_a_fallback_of_another_form(
    stack: Stack, model: str, fallback: str, called: list[str]
) -> None:
    fault = {"kind": "status", "status": 529, "model": model, "every": 2}
    stack.simulator.configure(faults=[fault])

    run = run_to_end(
        Workflow(
            name="elsewhere",
            agents=[
                agent(
                    "a",
                    "Use check_total.",
                    llm_config={"model": model},
                    fallbacks=[{"model": fallback}],
                    **TOOLS,
                )
            ],
        )
    )

    assert run.status == "completed"
    assert paths(stack) == called
    assert [entry["outcome"] for entry in entries_of(stack, run)] == ["ok", "Overloaded", "ok"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_response_that_has_failed_costs_its_own_usage(stack: Stack, stream: bool) -> None:
    failing = "Fail once. [[sim:error_in_200,times=1]]"

    run = run_to_end(
        Workflow(
            name="failed",
            agents=[
                agent(
                    "a",
                    failing,
                    llm_config={"api": "responses", "stream": stream},
                    retry_policy=AT_ONCE,
                )
            ],
        )
    )

    assert run.status == "completed"
    failed, answered = entries_of(stack, run)
    served = stack.simulator.ledger()[0]
    assert (failed["kind"], failed["outcome"]) == ("actual", "ServerFailure")
    assert failed["cost_usd"] == dollars_of(served) > 0
    assert (answered["kind"], answered["outcome"]) == ("actual", "ok")


def test_a_tier_without_capacity_pauses_nobody_and_counts_against_no_limit(
    one_an_hour: Stack,
) -> None:
    stack = one_an_hour
    full = "[[sim:status=429,code=resource_unavailable,retry_after=60]] flex"
    flexible = agent(
        "flexible",
        full,
        llm_config={"model": LIMITED, "service_tier": "flex"},
        timeout=900,
        max_retries=0,
    )
    after = agent(
        "after",
        "go",
        llm_config={"model": LIMITED},
        dependencies=["flexible"],
        accept_missing_inputs=True,
    )
    started_s = time.monotonic()

    run = run_to_end(Workflow(name="flex", agents=[flexible, after]))

    assert time.monotonic() - started_s < at_this_pace(20)
    assert {name: result.status.value for name, result in run.results.items()} == {
        "flexible": "failed",
        "after": "completed",
    }
    refused, answered = entries_of(stack, run)
    assert (refused["outcome"], refused["cost_usd"]) == ("Overloaded", 0)
    assert answered["outcome"] == "ok"


def test_a_full_tier_is_left_for_the_usual_one_by_a_fallback(stack: Stack) -> None:
    fault = {"kind": "status", "status": 429, "code": "resource_unavailable", "first": 1}
    stack.simulator.configure(faults=[fault])

    run = run_to_end(
        Workflow(
            name="flex or usual",
            agents=[
                agent(
                    "a",
                    "go",
                    llm_config={"model": "gpt-5.4", "service_tier": "flex"},
                    fallbacks=[{"model": "gpt-5.4", "service_tier": None}],
                )
            ],
        )
    )

    assert run.status == "completed"
    outcomes = [(entry["outcome"], entry["attempt"]) for entry in entries_of(stack, run)]
    assert outcomes == [("Overloaded", 1), ("ok", 1)]

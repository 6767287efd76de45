"""Answers that were cut, refused or left empty: what the agent does, and what is told of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from app import Agent, RetryPolicy, RetryStrategy, Run, Workflow, enqueue
from app.examples.tools import check_total
from tests.support.pace import scaled
from tests.support.stack import Stack

AT_ONCE = RetryPolicy(strategy=RetryStrategy.IMMEDIATE)
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}
WAIT_S = scaled(30.0)
LONG = "Go on. [[sim:output_tokens=150]]"
CUTS_CALLS = "Use check_total. [[sim:cut_calls,times=1]] [[sim:tool_turns=2]]"
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


@pytest.fixture(params=[(name, stream) for name in MODELS for stream in (False, True)], ids=str)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The ``llm_config`` of each protocol, for whole answers and for streams."""
    name, stream = request.param
    return {"model": MODELS[name], "max_tokens": 60} | ({"stream": True} if stream else {})


def agent(config: dict[str, Any], prompt: str, *needs: str, **fields: Any) -> Agent:
    fields.setdefault("name", "a")
    fields.setdefault("retry_policy", AT_ONCE)
    return Agent(prompt_template=prompt, llm_config=config, dependencies=needs, **fields)


def run_of(*agents: Agent) -> Run:
    run = enqueue(Workflow(name="ends", agents=agents))
    run.wait(timeout=WAIT_S)
    return run


def ends_of_calls(stack: Stack, run: Run, name: str = "a") -> list[str | None]:
    rows = stack.sql(
        "SELECT finish_reason FROM cost_entries WHERE run_id = %s AND agent = %s ORDER BY id",
        run.id,
        name,
    )
    return [row["finish_reason"] for row in rows]


def tool_calls_of(stack: Stack, run: Run) -> list[dict[str, Any]]:
    return stack.sql(
        "SELECT t.state, t.result FROM tool_calls t JOIN agent_runs a ON a.id = t.agent_run_id "
        "WHERE a.run_id = %s ORDER BY t.turn_id, t.position",
        run.id,
    )


def end_told(run: Run, name: str = "a") -> list[str | None]:
    """How the agent's end is told: in the event that ends the agent, and in the result."""
    told = [
        event.data.get("finish_reason")
        for event in run.events()
        if event.type in ("agent_completed", "agent_failed") and event.data["agent"] == name
    ]
    return [*told, run.results[name].metadata.get("finish_reason")]


def explained(stack: Stack, run: Run) -> dict[str, str]:
    """The findings of ``agentchord explain`` on the agent ``a``, by reason."""
    done = stack.command("explain", run.id, "a", "--json")
    assert done.returncode == 0, done.stderr
    return {each["reason"]: each["text"] for each in json.loads(done.stdout)["findings"]}


def test_a_cut_answer_that_nobody_reads_is_accepted_and_told(
    stack: Stack, config: dict[str, Any], tmp_path: Path
) -> None:
    run = run_of(agent(config, LONG))

    assert run.status == "completed"
    assert len(run.outputs["a"]) == 240
    assert ends_of_calls(stack, run) == ["length"]
    assert end_told(run) == ["length", "length"]
    assert explained(stack, run)["cut"] == (
        "was cut at max_tokens in the only answer, and the output ends there"
    )
    page = tmp_path / "report.html"
    assert stack.command("report", run.id, "--output", str(page)).returncode == 0
    assert "was cut at max_tokens in the only answer" in page.read_text("utf-8")


def test_a_cut_answer_that_another_agent_reads_fails_with_the_remedy(
    stack: Stack, config: dict[str, Any]
) -> None:
    run = run_of(agent(config, LONG), agent(config, "Check: {a}", "a", name="b"))

    result = run.results["a"]
    assert (result.status, run.results["b"].status) == ("failed", "cancelled")
    assert result.metadata["error_class"] == "OutputInvalid"
    assert "the answer ends at max_tokens: raise its max_tokens, or set on_cut to" in str(
        result.error
    )
    assert ends_of_calls(stack, run) == ["length"]
    assert end_told(run) == ["length", "length"]


def test_the_agents_of_a_sub_workflow_are_read_by_the_workflow_around_it(
    stack: Stack, config: dict[str, Any]
) -> None:
    inner = Workflow(name="inner", agents=[agent(config, LONG, retry_policy=None)])

    run = run_of(Agent(name="outer", kind="workflow", config={"workflow": inner}))

    assert run.status == "failed"
    assert "more than half of the agents failed" in str(run.results["outer"].error)


@pytest.mark.parametrize("on_cut", ["fail", "accept"])
def test_an_agent_may_decide_itself_what_becomes_of_a_cut_answer(
    stack: Stack, config: dict[str, Any], on_cut: str
) -> None:
    run = run_of(
        agent(config, LONG, on_cut=on_cut),
        agent(config, "Check: {a} [[sim:reply=ok]]", "a", name="b"),
    )

    accepted = on_cut == "accept"
    assert run.results["a"].status == ("completed" if accepted else "failed")
    assert run.outputs.get("b") == ("ok" if accepted else None)
    assert end_told(run) == ["length", "length"]


def test_a_continued_answer_is_whole_and_every_call_has_its_hold_and_its_line(
    stack: Stack, config: dict[str, Any]
) -> None:
    whole = run_of(agent(config | {"max_tokens": 200}, LONG)).outputs["a"]

    run = run_of(agent(config, LONG, on_cut="continue"), agent(config, "Check: {a}", "a", name="b"))

    assert run.outputs["a"] == whole
    assert len(whole) == 600
    assert ends_of_calls(stack, run) == ["length", "length", "stop"]
    assert end_told(run) == ["stop", "stop"]
    assert explained(stack, run)["cut"] == "was cut at max_tokens in 2 of 3 answers"


def test_a_failure_between_two_parts_loses_no_money_and_the_answer_is_asked_for_again(
    stack: Stack, config: dict[str, Any]
) -> None:
    stack.simulator.configure(faults=[{"kind": "status", "status": 500, "every": 2}])
    one = agent(config, "Go on. [[sim:output_tokens=100]]", on_cut="continue", max_retries=1)

    run = run_of(one)

    # The second call of each attempt fails; the first part of each attempt is paid.
    assert run.results["a"].status == "failed"
    assert ends_of_calls(stack, run) == ["length", None] * (len(ends_of_calls(stack, run)) // 2)
    rows = stack.sql("SELECT sum(cost_usd) AS usd FROM cost_entries WHERE run_id = %s", run.id)
    assert rows[0]["usd"] == run.cost > 0
    assert stack.sql("SELECT 1 FROM holds") == []


def test_a_continued_answer_stops_at_max_turns(stack: Stack, config: dict[str, Any]) -> None:
    run = run_of(agent(config, LONG, on_cut="continue", max_turns=2))

    assert "the answer ends at max_tokens after 2 turns" in str(run.results["a"].error)
    assert ends_of_calls(stack, run) == ["length", "length"]


def test_no_tool_call_of_a_cut_answer_is_executed(stack: Stack, config: dict[str, Any]) -> None:
    run = run_of(agent(config | {"max_tokens": 300}, CUTS_CALLS, tools=[check_total]))

    assert run.status == "completed"
    calls = tool_calls_of(stack, run)
    assert [call["state"] for call in calls] == ["failed", "completed"]
    assert "was not executed: your answer was cut at max_tokens" in calls[0]["result"]
    assert ends_of_calls(stack, run) == ["length", "tool_calls", "stop"]
    tools = [event.type for event in run.events() if event.type.startswith("tool_")]
    assert tools == ["tool_failed", "tool_started", "tool_finished"]


def test_a_later_attempt_goes_on_behind_the_cut_turn(stack: Stack, config: dict[str, Any]) -> None:
    stack.simulator.configure(faults=[{"kind": "status", "status": 500, "every": 2}])

    run = run_of(agent(config | {"max_tokens": 300}, CUTS_CALLS, tools=[check_total]))

    assert run.status == "completed"
    assert run.results["a"].retry_count == 2
    assert [call["state"] for call in tool_calls_of(stack, run)] == ["failed", "completed"]
    assert ends_of_calls(stack, run) == ["length", None, "tool_calls", None, "stop"]


@pytest.mark.parametrize("fields", [{}, {"output_schema": SCHEMA}, {"tools": [check_total]}])
def test_a_refusal_fails_the_agent_with_its_words(
    stack: Stack, config: dict[str, Any], fields: dict[str, Any]
) -> None:
    run = run_of(agent(config, "Misbehave. [[sim:refuse]]", **fields))

    result = run.results["a"]
    assert (result.status, result.metadata["error_class"]) == ("failed", "OutputInvalid")
    assert "the model refused to answer" in str(result.error)
    assert ends_of_calls(stack, run) == ["content_filter"]
    assert end_told(run) == ["content_filter", "content_filter"]
    assert "refused to answer" in explained(stack, run)["failed"]


def test_an_empty_answer_is_told_or_fails_like_a_cut_one(
    stack: Stack, config: dict[str, Any]
) -> None:
    alone = run_of(agent(config, "Say nothing. [[sim:reply=]]"))
    read = run_of(
        agent(config, "Say nothing. [[sim:reply=]]"), agent(config, "Check: {a}", "a", name="b")
    )

    assert (alone.status, alone.outputs["a"]) == ("completed", "")
    assert end_told(alone) == ["empty", "empty"]
    assert ends_of_calls(stack, alone) == ["stop"]
    assert explained(stack, alone)["empty"] == "got an answer without a text"
    assert "answered without a text" in str(read.results["a"].error)

"""Every JSON value passes a whole run exactly, or is refused in words."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from app import Agent, CostTracker, Monitor, Run, Workflow, enqueue
from app.domain.policies import MonitorConfig
from app.errors import WorkflowError
from tests.support.agent_server import AgentServer
from tests.support.json_documents import json_values, refused_values, same
from tests.support.pace import scaled
from tests.support.stack import Stack

WAIT_S = scaled(30.0)
LARGE = (1 << 70) + 1
NOTABLE = {"large": LARGE, "small": -LARGE, "edges": [1 << 64, -(1 << 63) - 1, 1e16, 1e23]}


class Order(BaseModel):
    id: int


def function(name: str, path: str, *dependencies: str, **fields: Any) -> Agent:
    config = {"function": f"tests.support.agent_functions:{path}"}
    return Agent(name=name, kind="function", config=config, dependencies=dependencies, **fields)


def model(name: str, prompt: str, *dependencies: str, **fields: Any) -> Agent:
    config = {"model": "gpt-4o-mini"}
    return Agent(
        name=name, prompt_template=prompt, llm_config=config, dependencies=dependencies, **fields
    )


def reply(text: str) -> str:
    return f"[[sim:reply={text.replace('{', '{{').replace('}', '}}')}]]"


def run_of(*agents: Agent, **run_input: Any) -> Run:
    run = enqueue(Workflow(name="exact", agents=agents), input=run_input)
    run.wait(timeout=WAIT_S)
    return run


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(json_values, min_size=1, max_size=20))
def test_a_value_passes_input_function_and_output_unchanged(
    stack: Stack, values: list[Any]
) -> None:
    run = run_of(
        function("first", "everything"), function("second", "everything", "first"), v=values
    )

    assert run.status == "completed"
    assert same(run.outputs["first"], {"v": values})
    assert same(run.outputs["second"], {"v": values, "first": {"v": values}})


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(refused_values)
def test_a_value_that_cannot_be_kept_is_refused_with_its_path(stack: Stack, value: Any) -> None:
    with pytest.raises(WorkflowError, match=r"^input\.v\[1\] (is|contains) "):
        run_of(function("first", "everything"), v=[0, value])


@pytest.mark.parametrize("name", ["nan", "inf", "huge", "half"])
def test_a_function_that_returns_such_a_value_fails_in_words(stack: Stack, name: str) -> None:
    run = run_of(function("a", "odd_value"), name=name)

    result = run.results["a"]
    assert result.metadata["error_class"] == "OutputRefused"
    assert result.error is not None
    assert result.error.startswith("agent 'a': output")


def test_a_prompt_shows_every_digit(stack: Stack) -> None:
    text = json.dumps({"id": LARGE})

    run_of(model("a", "{v.edges} {text.id}"), v=NOTABLE, text=text)

    (record,) = stack.simulator.ledger()
    edges = f"[{1 << 64},{-(1 << 63) - 1},1e+16,1e+23]"
    assert record["prompt"] == f"{edges} {LARGE}"


@pytest.mark.parametrize(
    "answer",
    [
        f'{{"id": {LARGE}}}',
        f'\ufeff{{"id": {LARGE}}}',
        f'```JSON\n{{"id": {LARGE}}}\n```',
        f'<think>Perhaps {{"id": 5}}?</think>\n\n```json\n{{"id": {LARGE}}}\n```',
        f'Here is the order [1]:\n{{"id": {LARGE}}}\nAnything else?',
    ],
)
def test_an_answer_is_read_without_a_repair_call(stack: Stack, answer: str) -> None:
    run = run_of(
        model("a", "go " + reply(answer), output_schema=Order),
        function("b", "everything", "a", condition="a.id != 5"),
    )

    assert run.outputs == {"a": {"id": LARGE}, "b": {"a": {"id": LARGE}}}
    assert len(stack.simulator.ledger()) == 1


def test_parts_of_texts_are_exact_in_lists_and_sub_workflows(stack: Stack) -> None:
    inner = Workflow(name="inner", agents=[function("echo", "everything")])
    each = function("each", "everything", "list", for_each="list.ids")
    text = f'<think>hm</think>```JSON\n{{"ids": [{LARGE}, 1e23]}}\n```'

    run = run_of(
        model("list", "go " + reply(text)),
        each,
        Agent(
            name="below",
            kind="workflow",
            config={"workflow": inner},
            dependencies=["list"],
            input_mapping={"id": "list.ids[0]"},
        ),
    )

    assert [item["item"] for item in run.outputs["each"]] == [LARGE, 1e23]
    assert run.outputs["below"]["echo"] == {"id": LARGE}


def test_a_list_in_a_text_that_cannot_be_stored_fails_its_agent_in_words(stack: Stack) -> None:
    run = run_of(
        model("list", "go " + reply('["a\\u0000b"] ')),
        function("each", "everything", "list", for_each="list"),
    )

    error = run.results["each"].error
    assert error is not None
    assert error.startswith("for_each 'list': list[0] contains a NUL character")


def test_remote_agents_get_and_give_every_digit(stack: Stack) -> None:
    with AgentServer() as server:
        server.answers.append(
            web.Response(text=json.dumps(NOTABLE), content_type="application/json")
        )
        remote = Agent(name="a", kind="http", config={"url": server.url})

        run = run_of(remote, v=NOTABLE)

        (_, body) = server.requests[0]
    assert same(json.loads(body), {"v": NOTABLE})
    assert same(run.outputs["a"], NOTABLE)


def test_files_and_commands_give_and_show_every_digit(stack: Stack, tmp_path: Path) -> None:
    flow = tmp_path / "flow.yaml"
    flow.write_text(
        "name: files\nagents:\n  - name: echo\n    kind: function\n"
        "    config: {function: 'tests.support.agent_functions:everything',\n"
        f"             arguments: {{fixed: {LARGE}}}}}\n"
    )
    (tmp_path / "in.yaml").write_text(f"a: {LARGE}\n")
    (tmp_path / "in.json").write_text(f'{{"b": {-LARGE}}}')

    done = stack.command(
        *("run", str(flow), "-f", "--json", "-i", f"@{tmp_path / 'in.yaml'}"),
        *("-i", f"@{tmp_path / 'in.json'}", "-i", f"c:={LARGE}", "-i", f'{{"d": [{LARGE}]}}'),
    )

    assert done.returncode == 0, done.stderr
    (output,) = json.loads(done.stdout)["outputs"].values()
    assert output == {"a": LARGE, "b": -LARGE, "c": LARGE, "d": [LARGE], "fixed": LARGE}


def test_events_of_a_program_keep_every_digit_and_its_facts_are_json(stack: Stack) -> None:
    monitor = Monitor(MonitorConfig(enable_logging=False))
    monitor.record_event("counted", data=NOTABLE)

    (event,) = monitor.get_recent_events(1, "counted")
    assert same(dict(event.data), NOTABLE)
    with pytest.raises(WorkflowError, match=r"metadata\.a is .* not a JSON value"):
        CostTracker().record_cost("a", "a", str(uuid4()), "gpt-4o", 1, 1, {"a": object()})

"""Agents that name code which no live worker of their queue loads."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.agent import Agent
from app.domain.loaded import Loaded, find_unloaded
from app.domain.workflow import Workflow
from app.examples.tools import check_total

NAMES = ["check_total", "other_tool", "mails:total"]


def loaded(*queues: str, **names: Any) -> Loaded:
    return Loaded(**{"queues": queues, "tools": (), "functions": (), "kinds": ()} | names)


def using(*tools: Any, model: str = "gpt-4o-mini") -> Workflow:
    agent = Agent(name="a", prompt_template="x", llm_config={"model": model}, tools=tools)
    return Workflow(name="w", agents=[agent])


def calling(function: str) -> Workflow:
    agent = Agent(name="a", kind="function", config={"function": function})
    return Workflow(name="w", agents=[agent])


def problems(workflow: Workflow, *workers: Loaded) -> list[tuple[str | None, str]]:
    return [(each.field, str(each)) for each in find_unloaded(workflow, workers)]


@given(
    wanted=st.sampled_from(NAMES),
    workers=st.lists(
        st.tuples(
            st.lists(st.sampled_from(["openai", "anthropic"]), min_size=1, unique=True),
            st.lists(st.sampled_from(NAMES), unique=True),
        ),
        max_size=4,
    ),
)
def test_a_tool_is_refused_exactly_if_its_queue_has_live_workers_and_none_loads_it(
    wanted: str, workers: list[tuple[list[str], list[str]]]
) -> None:
    found = problems(using(wanted), *(loaded(*queues, tools=tools) for queues, tools in workers))

    ours = [tools for queues, tools in workers if "openai" in queues]
    assert bool(found) == (bool(ours) and not any(wanted in tools for tools in ours))


@pytest.mark.parametrize(
    ("workflow", "field", "parts"),
    [
        (using("chek_total"), "tools[0]", ["the tool 'chek_total'", "did you mean 'check_total'"]),
        (using("check_total", "x:y"), "tools[1]", ["list 'x' under imports"]),
        (calling("mails:totl"), "config.function", ["'mails:totl'", "did you mean 'mails:total'"]),
        (calling("mailz:total"), "config.function", ["list 'mailz' under imports"]),
        (
            Workflow(name="w", agents=[Agent(name="a", kind="translator")]),
            "kind",
            ["the kind 'translator', which no live worker of the queue 'function' loads"],
        ),
    ],
)
def test_the_refusal_names_the_field_the_code_and_the_remedy(
    workflow: Workflow, field: str, parts: list[str]
) -> None:
    tools = ("check_total", "app.examples.tools:check_total")
    worker = loaded("openai", "function", tools=tools, functions=["mails:total"], kinds=["http"])

    ((place, message),) = problems(workflow, worker)

    assert place == f"agents[0].{field}"
    assert all(part in message for part in parts), message


def test_tools_are_found_by_their_origin_and_tools_of_the_provider_are_no_code() -> None:
    worker = loaded("openai", tools=["app.examples.tools:check_total"])

    assert problems(using(check_total, {"server": "web_search"}), worker) == []


def test_agents_of_sub_workflows_are_checked() -> None:
    outer = Agent(name="outer", kind="workflow", config={"workflow": using("no_tool")})

    ((place, _),) = problems(Workflow(name="o", agents=[outer]), loaded("openai"))

    assert place == "agents[0].config.workflow.agents[0].tools[0]"


def test_names_of_newer_versions_are_left_out() -> None:
    worker = loaded("openai", tools=["a"])

    assert Loaded.from_json(worker.as_json() | {"modules": ["x"]}) == loaded("openai", tools=("a",))

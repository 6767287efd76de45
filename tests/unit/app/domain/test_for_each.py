"""Lists that agents run over: their paths, their elements, and the refusals."""

from typing import Any

import pytest

from app.domain.agent import Agent
from app.domain.for_each import (
    agent_of,
    items_of,
    source_of,
)
from app.domain.input_validation import validate_input
from app.domain.workflow import Workflow
from app.errors import MissingInput, TooManyItems, WorkflowError


def agent(name: str = "each", *dependencies: str, **fields: Any) -> Agent:
    given = {"prompt_template": "{item}", "llm_config": {"model": "gpt-4o-mini"}} | fields
    return Agent(name=name, dependencies=dependencies, **given)


def elements(path: str, max_items: int = 10, **values: Any) -> list[Any]:
    return items_of(agent(for_each=path), values, agents=["reader"], max_items=max_items)


@pytest.mark.parametrize(
    ("path", "root", "rest"),
    [
        ("documents", "documents", ()),
        ("input.documents", "documents", ()),
        ("input.batch.documents[0].pages", "batch", ("documents", 0, "pages")),
        ("reader", "reader", ()),
        ("reader.items", "reader", ("items",)),
    ],
)
def test_a_list_is_named_by_its_path(path: str, root: str, rest: tuple[str | int, ...]) -> None:
    source = source_of(path, ["reader"])

    assert (source.root, source.path) == (root, rest)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "input",
        "input[0]",
        "a b",
        "a..b",
        "a}{b",
        "{a}",
        "a.__class__()",
        "a[x]",
        "a" + "[" * 99,
    ],
)
def test_what_is_no_path_is_refused_with_the_agents_name(path: str) -> None:
    with pytest.raises(WorkflowError, match="agent 'each': for_each is") as refused:
        Workflow(name="w", agents=[agent(for_each=path)])

    assert refused.value.field == "agents[0].for_each"


def test_a_text_that_is_a_json_list_counts_as_one() -> None:
    assert elements("reader", reader='```json\n["a", {"b": 1}]\n```') == ["a", {"b": 1}]
    assert elements("reader.items", reader='{"items": [1, 2]}') == [1, 2]


@pytest.mark.parametrize("value", ["text", {"a": 1}, 7, None, True])
def test_what_is_no_list_is_a_missing_input(value: Any) -> None:
    with pytest.raises(MissingInput, match="not a list"):
        elements("documents", documents=value)


def test_a_list_over_the_limit_is_refused() -> None:
    assert len(elements("documents", documents=[0] * 10)) == 10
    with pytest.raises(TooManyItems, match=r"has 11 elements, and engine\.max_items is 10"):
        elements("documents", documents=[0] * 11)


def test_an_agent_reads_its_list_and_its_items_only_what_they_name() -> None:
    each = agent(
        "each",
        *("reader", "policy"),
        for_each="reader.items",
        prompt_template="{item.name} {index} {policy}",
    )
    before = (agent("reader", prompt_template="go"), agent("policy", prompt_template="go"))
    flow = Workflow(name="w", agents=[*before, each]).data_flow

    assert flow.reads(each) == {"policy", "reader"}
    assert flow.reads_by_items(each) == {"policy"}


def test_the_elements_of_an_agent_without_a_prompt_do_not_read_the_whole_list() -> None:
    each = agent(
        "each",
        *("reader", "policy"),
        for_each="reader.items",
        kind="function",
        prompt_template="",
        llm_config={},
    )
    before = (agent("reader", prompt_template="go"), agent("policy", prompt_template="go"))
    flow = Workflow(name="w", agents=[*before, each]).data_flow

    assert flow.reads(each) == {"policy", "reader"}
    assert flow.reads_by_items(each) == {"policy"}


def test_parameters_come_from_the_element_too() -> None:
    each = agent(
        for_each="documents", input_mapping={"text": "item.text"}, prompt_template="{text}"
    )
    flow = Workflow(name="w", agents=[each]).data_flow

    view = flow.view(each, {"documents": []}, {}, {"item": {"text": "hello"}, "index": 0})

    assert view.values["text"] == "hello"


def test_the_list_may_be_in_the_shared_context() -> None:
    reader = agent("reader", prompt_template="go", output_mapping={"found": "documents"})
    each = agent("each", "reader", for_each="documents")
    flow = Workflow(name="w", agents=[reader, each]).data_flow

    values = flow.view(each, {}, {"reader": {"found": [1, 2]}}).values

    assert items_of(each, values, agents=["reader"], max_items=9) == [1, 2]


def test_an_agent_depends_on_whose_list_it_runs_over() -> None:
    with pytest.raises(WorkflowError, match="add 'reader' to its dependencies"):
        Workflow(
            name="w",
            agents=[agent("reader", prompt_template="go"), agent(for_each="reader.items")],
        )


def test_no_agent_may_have_the_name_of_an_element() -> None:
    with pytest.raises(WorkflowError, match="agent 'item': 'item' is reserved"):
        Workflow(
            name="w",
            agents=[agent("item", prompt_template="go"), agent(for_each="documents")],
        )


def test_item_and_index_are_no_keys_of_the_input() -> None:
    workflow = Workflow(
        name="w", agents=[agent(for_each="documents", prompt_template="{item.a} {index} {tone}")]
    )

    validate_input(workflow, {"documents": [{"a": 1}], "tone": "dry"})
    with pytest.raises(WorkflowError, match="'tone' is neither"):
        validate_input(workflow, {"documents": []})
    with pytest.raises(WorkflowError, match="for_each 'documents' is"):
        validate_input(workflow, {"documents": {"a": 1}, "tone": "dry"})


def test_the_name_of_an_item_tells_its_agent() -> None:
    assert agent_of("screen[12]") == "screen"
    assert agent_of("screen") == "screen"


def test_a_workflow_without_lists_keeps_its_version() -> None:
    assert agent().definition().keys().isdisjoint({"for_each", "kind", "config"})
    assert Agent.from_definition(agent(for_each="a").definition()).for_each == "a"

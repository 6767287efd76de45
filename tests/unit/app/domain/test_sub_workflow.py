"""Workflows in workflows: their forms, and their depth."""

from typing import Any

import pytest

from app.domain.agent import Agent
from app.domain.sub_workflow import check_nesting, embedded, named_workflows, with_embedded
from app.domain.workflow import Workflow
from app.errors import WorkflowError


def plain(name: str = "a") -> Agent:
    return Agent(name=name, prompt_template="go", llm_config={"model": "gpt-4o-mini"})


def sub(workflow: Any, name: str = "sub") -> Agent:
    return Agent(name=name, kind="workflow", config={"workflow": workflow})


def nested(depth: int, name: str = "w{}") -> Workflow:
    workflow = Workflow(name=name.format(depth), agents=[plain()])
    for level in reversed(range(depth)):
        workflow = Workflow(name=name.format(level), agents=[sub(workflow)])
    return workflow


def test_a_workflow_survives_its_own_definition() -> None:
    outer = nested(2)

    again = Workflow.from_definition(outer.definition())

    assert again.content_hash() == outer.content_hash()
    inner = embedded(again.agents[0])
    assert inner is not None
    assert inner.name == "w1"


def test_a_sub_workflow_is_asked_for_by_the_schedulers_queue_under_its_own_name() -> None:
    assert (sub(nested(0)).provider, sub(nested(0)).model) == ("scheduler", "w0")
    assert sub("invoice check").model == "invoice check"


def test_names_are_replaced_by_what_is_stored() -> None:
    outer = Workflow(name="outer", agents=[plain(), sub(Workflow(name="in", agents=[sub("leaf")]))])
    leaf = Workflow(name="leaf", agents=[plain()])

    whole = with_embedded(outer, {"leaf": leaf.definition()})

    assert named_workflows(outer) == {"leaf"}
    assert named_workflows(whole) == set()
    check_nesting(whole, max_depth=2)


def test_an_unknown_name_is_refused_with_the_agents() -> None:
    with pytest.raises(WorkflowError, match="agent 'sub': no workflow is stored as 'leaf'"):
        with_embedded(Workflow(name="outer", agents=[sub("leaf")]), {})


def test_nesting_deeper_than_the_limit_is_refused_with_the_path() -> None:
    check_nesting(nested(8), max_depth=8)
    with pytest.raises(WorkflowError, match=r"nested 9 deep .w0 > w1 > .* > w9."):
        check_nesting(nested(9), max_depth=8)


def test_a_workflow_inside_one_of_its_name_is_refused() -> None:
    with pytest.raises(WorkflowError, match="would contain itself: w > w"):
        check_nesting(nested(1, "w"), max_depth=8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "workflow"}, "config.workflow is None: give a Workflow"),
        ({"kind": "workflow", "config": {"workflow": 7}}, "config.workflow is 7"),
        ({"kind": "workflow", "config": {"workflow": {}}}, "config.workflow is {}"),
        ({"kind": "workflow", "config": {"workflow": "w", "x": 1}}, "config.x is not known"),
        ({"kind": "workflow", "config": "w"}, "config is 'w': give a dict"),
        ({"kind": "llm", "config": {"a": 1}}, "config is for other kinds"),
    ],
)
def test_what_is_no_sub_workflow_is_refused(fields: dict[str, Any], message: str) -> None:
    asking = {"prompt_template": "go", "llm_config": {"model": "gpt-4o-mini"}}
    given = fields if "kind" in fields else asking | fields

    with pytest.raises(WorkflowError, match=message):
        Workflow(name="w", agents=[Agent(name="a", **given)])


def test_a_definition_with_an_unknown_key_is_refused_as_such() -> None:
    definition = nested(0).definition() | {"colour": "red"}

    with pytest.raises(WorkflowError, match=r"agent .sub.: config.workflow: .*colour"):
        check_nesting(Workflow(name="w", agents=[sub(definition)]), max_depth=8)

"""Conditions on elements, lists that are walked together, ``[index]``, and groups of agents."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.agent import Agent
from app.domain.for_each import element_of, items_of
from app.domain.input_validation import validate_input
from app.domain.prompt import render
from app.domain.sub_workflow import embedded
from app.domain.workflow import Workflow
from app.errors import MissingInput, WorkflowError

TOGETHER = {"mail": "input.mails", "triage": "triage"}


def agent(name: str = "each", *dependencies: str, **fields: Any) -> Agent:
    given_ = {"prompt_template": "{item}", "llm_config": {"model": "gpt-4o-mini"}} | fields
    return Agent(name=name, dependencies=dependencies, **given_)


def workflow(*agents: Agent) -> Workflow:
    return Workflow(name="w", agents=agents)


@given(st.lists(st.tuples(st.integers(), st.text())))
def test_lists_that_are_walked_together_give_the_elements_with_the_same_index(
    pairs: list[tuple[int, str]],
) -> None:
    each = agent(for_each={"one": "ones", "other": "others"})
    values = {"ones": [one for one, _ in pairs], "others": [other for _, other in pairs]}

    found = items_of(each, values, agents=(), max_items=1000)

    assert found == [{"one": one, "other": other} for one, other in pairs]
    for index, (one, other) in enumerate(pairs):
        names = element_of(each, found[index], index)
        assert names == {"one": one, "other": other, "item": found[index], "index": index}


def test_lists_of_different_lengths_are_refused_with_their_lengths() -> None:
    each = agent(for_each={"mail": "mails", "triage": "kinds"}, prompt_template="{mail}")

    with pytest.raises(
        MissingInput, match="'mail' has 2 elements, 'triage' has 3 elements: give lists"
    ):
        items_of(each, {"mails": [1, 2], "kinds": [1, 2, 3]}, agents=(), max_items=9)
    with pytest.raises(WorkflowError, match="agent 'each': for_each walks lists of different"):
        validate_input(workflow(each), {"mails": [1, 2], "kinds": [1, 2, 3]})


def test_the_name_of_a_list_may_be_the_name_of_the_agent_that_returns_it() -> None:
    triage = agent("triage", for_each="mails")
    each = agent(
        "each", "triage", for_each=TOGETHER, prompt_template="{mail.text} is {triage.category}"
    )
    flow = workflow(triage, each).data_flow

    item = {"mail": {"text": "hello"}, "triage": {"category": "refund"}}
    view = flow.view(each, {"mails": []}, {}, element_of(each, item, 0))

    assert flow.reads(each) == {"triage"}
    assert flow.reads_by_items(each) == set()
    assert render(each.prompt_template, view.values) == "hello is refund"


@pytest.mark.parametrize(
    ("for_each", "problem"),
    [
        ({}, "for_each is empty"),
        ({"item": "a"}, "for_each has the name 'item'"),
        ({"index": "a"}, "for_each has the name 'index'"),
        ({"input": "a"}, "for_each has the name 'input'"),
        ({"a b": "a"}, "for_each has the name 'a b'"),
        ({"mail": "a b"}, "for_each.mail is 'a b'"),
        ({"mail": 3}, "for_each.mail is 3"),
        ({"mail": "item.a"}, "'item' is reserved"),
        (["a"], "for_each is"),
    ],
)
def test_wrong_names_and_paths_of_lists_are_refused(for_each: Any, problem: str) -> None:
    with pytest.raises(WorkflowError, match=problem):
        workflow(agent(for_each=for_each))


def test_the_index_of_the_element_leads_into_another_list() -> None:
    template = "{item}: {triage[index].category}, {triage[0].category}"
    values = {"item": "mail", "index": 1, "triage": [{"category": "a"}, {"category": "b"}]}

    assert render(template, values) == "mail: b, a"
    with pytest.raises(MissingInput, match=r"'triage' has 2 elements, so no \[2\]"):
        render(template, values | {"index": 2})
    with pytest.raises(MissingInput, match=r"\[index\] is the index of a for_each's element"):
        render(template, {"triage": [], "item": 1})


def test_the_index_needs_a_for_each() -> None:
    triage = agent("triage", for_each="mails")
    reply = agent("reply", "triage", prompt_template="{triage[index]}")

    with pytest.raises(WorkflowError, match=r"uses \[index\], but the agent has no for_each"):
        validate_input(workflow(triage, reply), {"mails": [1]})


def test_a_condition_on_the_element_is_known_as_one() -> None:
    on_element = agent(for_each="mails", condition="item.usd >= 20 && index < 5")
    on_run = agent(for_each="mails", condition="input.on == true")
    together = agent(
        for_each={"mail": "mails", "kind": "kinds"}, condition="kind == refund && mail.usd > 1"
    )

    def elements(each: Agent) -> set[str]:
        found = workflow(each).data_flow.condition(each)
        assert found is not None
        return set(found.elements)

    assert elements(on_element) == {"item", "index"}
    assert elements(on_run) == set()
    assert elements(together) == {"kind", "mail"}


def test_items_read_what_the_condition_on_the_element_reads() -> None:
    policy = agent("policy", prompt_template="go")
    each = agent("each", "policy", for_each="mails", condition="item.usd > policy.limit")
    flow = workflow(policy, each).data_flow

    assert flow.reads_by_items(each) == {"policy"}


def test_a_mistyped_name_in_a_condition_on_the_element_is_refused() -> None:
    with pytest.raises(WorkflowError, match=r"there is no 'itm'.* did you mean 'item'"):
        workflow(agent(for_each="mails", condition="itm.usd > 1"))


def test_the_element_in_the_condition_of_an_agent_without_one_is_refused() -> None:
    each = agent(prompt_template="hi", condition="item.usd > 1")

    with pytest.raises(WorkflowError, match="condition uses 'item', the element of a for_each"):
        validate_input(workflow(each), {})
    validate_input(workflow(each), {"item": {"usd": 3}})  # as in a group


def group(**fields: Any) -> Agent:
    inside = [agent("classify"), agent("draft", "classify", prompt_template="{item} {classify}")]
    return Agent(name="handled", for_each="mails", **{"agents": inside} | fields)


def test_a_group_of_agents_is_a_sub_workflow_for_each_element() -> None:
    made = workflow(group(cost_limit=0.1))
    handled = made.agents[0]
    inner = embedded(handled)

    assert inner is not None
    assert (handled.kind, handled.for_each, inner.name) == ("workflow", "mails", "w: handled")
    assert [each.name for each in inner.agents] == ["classify", "draft"]
    assert Workflow.from_definition(made.definition()).content_hash() == made.content_hash()


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"agents": []}, "agents[0].agents", "give a list of agents"),
        ({"agents": "classify"}, "agents[0].agents", "give a list of agents"),
        ({"prompt_template": "x"}, "agents[0].prompt_template", "to one of the agents in it"),
        ({"llm_config": {"model": "m"}}, "agents[0].llm_config", "does not apply to a group"),
        ({"kind": "http"}, "agents[0].kind", "a group of agents has no kind"),
        ({"agents": [agent("a", "b")]}, "agents[0].agents[0].dependencies", "depends on 'b'"),
        ({"agents": [agent("a", condition="itm")]}, "agents[0].agents[0].condition", "no 'itm'"),
    ],
)
def test_a_wrong_group_is_refused_at_its_place(
    fields: dict[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(WorkflowError, match=problem) as refused:
        workflow(group(**fields))

    assert refused.value.field == field
    assert "agent 'handled'" in str(refused.value)

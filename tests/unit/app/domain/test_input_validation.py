"""The elements of a list in the input, and the input of sub-workflows, before the run is stored.

The law: ``validate_input`` refuses an input exactly if a prompt could not be rendered with it.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.agent import Agent
from app.domain.counts import counted
from app.domain.input_validation import validate_input
from app.domain.prompt import render
from app.domain.workflow import Workflow
from app.errors import MissingInput, SeveralMistakes, WorkflowError

ELEMENTS = st.lists(
    st.dictionaries(
        st.sampled_from(["name", "letter", "nested"]),
        st.just("x") | st.fixed_dictionaries({}, optional={"deep": st.just(1)}),
    )
    | st.just('{"name": "in a text"}')
    | st.just("plain"),
    max_size=4,
)
PROMPTS = st.sampled_from(
    ["{item}", "{item.name}", "{index}: {item.letter}", "{item.nested.deep}", "{item[0]}"]
)


def agent(name: str = "screen", prompt: str = "Work.", **fields: Any) -> Agent:
    fields = {"llm_config": {"model": "gpt-4o-mini"}} | fields
    return Agent(name=name, prompt_template=prompt, **fields)


def workflow(*agents: Agent, name: str = "w") -> Workflow:
    return Workflow(name=name, agents=agents)


def mistakes(checked: Workflow, run_input: dict[str, Any]) -> list[tuple[str | None, str]]:
    with pytest.raises(WorkflowError) as caught:
        validate_input(checked, run_input)
    return [(each.field, str(each)) for each in caught.value.mistakes]


@given(elements=ELEMENTS, prompt=PROMPTS)
def test_an_input_is_refused_exactly_if_a_prompt_cannot_be_rendered(
    elements: list[Any], prompt: str
) -> None:
    checked = workflow(agent(prompt=prompt, for_each="input.rows"))

    def renders(element: Any, index: int) -> bool:
        try:
            render(prompt, {"item": element, "index": index})
        except MissingInput:
            return False
        return True

    if all(renders(element, index) for index, element in enumerate(elements)):
        validate_input(checked, {"rows": elements})
    else:
        ((field, message),) = mistakes(checked, {"rows": elements})
        first = next(i for i, element in enumerate(elements) if not renders(element, i))
        lacking = sum(not renders(element, index) for index, element in enumerate(elements))
        assert f"{lacking} of {counted(len(elements), 'element')} of input.rows lack" in message
        assert f"input.rows[{first}]: " in message
        all_lack = lacking == len(elements)
        assert field == ("agents[0].prompt_template" if all_lack else f"input.rows[{first}]")


def test_every_element_of_the_list_is_checked_for_mappings_and_attachments_too() -> None:
    checked = workflow(
        agent(
            prompt="{title} {tone}",
            for_each="mails",
            input_mapping={"title": "item.subject", "tone": "tone"},
            attachments=["{item.file}"],
        )
    )
    mails = [{"subject": "a", "file": "a.png"}, {"subjekt": "b"}]

    found = mistakes(checked, {"mails": mails, "tone": "dry"})

    assert [field for field, _ in found] == ["input.mails[1]", "input.mails[1]"]
    assert "did you mean 'subjekt'?" in found[0][1]
    assert "attachments[0] uses {item.file}" in found[1][1]


def test_all_mistakes_of_an_input_are_named_at_once() -> None:
    checked = workflow(agent("a", "{x} {y.z}"), agent("b", "{item}", for_each="rows"))

    with pytest.raises(SeveralMistakes, match="3 mistakes:") as caught:
        validate_input(checked, {"y": {}, "rows": 5})

    assert [each.field for each in caught.value.mistakes] == [
        "agents[0].prompt_template",
        "agents[0].prompt_template",
        "agents[1].for_each",
    ]


INNER = workflow(agent("read", "{item.text} {tone} {first}"), agent("sum", "Sum."), name="inner")


def outer(**fields: Any) -> Workflow:
    check = Agent(name="check", kind="workflow", config={"workflow": INNER}, **fields)
    return workflow(agent("first"), check)


def test_the_elements_of_a_list_of_sub_workflows_must_fit_the_inner_prompts() -> None:
    checked = outer(for_each="input.mails", dependencies=["first"])

    validate_input(checked, {"mails": [{"text": "a"}], "tone": "dry"})
    found = mistakes(checked, {"mails": [{"text": "a"}, {"txt": "b"}], "tone": "dry"})

    ((field, message),) = found
    assert field == "agents[1].config.workflow.agents[0].prompt_template"
    assert message.startswith("agent 'check': config.workflow: agent 'read': ")
    assert "did you mean 'txt'?" in message


def test_what_a_sub_workflow_needs_comes_from_the_input_the_dependencies_or_the_mapping() -> None:
    mails = {"mails": [{"text": "a"}]}

    assert (
        "'first' is neither a key of the input"
        in mistakes(outer(for_each="input.mails"), mails | {"tone": "dry"})[0][1]
    )
    assert (
        "'tone' is neither a key of the input"
        in mistakes(outer(for_each="input.mails", dependencies=["first"]), mails)[0][1]
    )
    mapping = {"item": "item", "tone": "first.tone", "first": "first"}
    validate_input(
        outer(for_each="input.mails", dependencies=["first"], input_mapping=mapping), mails
    )
    del mapping["tone"]
    assert (
        "'tone' is neither a key of the input"
        in mistakes(
            outer(for_each="input.mails", dependencies=["first"], input_mapping=mapping),
            mails | {"tone": "dry"},
        )[0][1]
    )

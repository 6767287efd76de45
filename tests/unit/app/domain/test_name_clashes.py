"""Agents, keys and elements with the same name: each workflow works, or says what to rename."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.domain.agent import Agent
from app.domain.for_each import element_of, items_of
from app.domain.input_validation import validate_input
from app.domain.prompt import render
from app.domain.sub_workflow import embedded
from app.domain.workflow import Workflow
from app.errors import WorkflowError
from app.workflow_files.loader import load

NAMES = ("mails", "item", "index", "input", "other")
#: What the second agent walks over: nothing, a list of the input (two spellings), or of an agent.
WALKS = ("", "input.{list}", "{list}", "{first}.list")
#: What the second agent reads in its prompt or in its condition.
READS = ("{text}", "{first}.part", "{context}", "item", "index", "{element}")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Two agents, an input with a list and a text, and what the second agent reads.

    Attributes:
        names: The names of the two agents, of the list and the text in the input, of the key that
            the first agent writes, and of the element if lists are walked together.
        walks: One of WALKS.
        together: Whether the element of the list has a name of its own.
        reads: One of READS.
        writes: Whether the first agent writes a key of the context.
    """

    names: Mapping[str, str]
    walks: str
    together: bool
    reads: str
    writes: bool

    def workflow(self) -> Workflow:
        path = self.walks.format(**self.names)
        walks = {self.names["element"]: path} if self.together else path
        first = Agent(
            name=self.names["first"],
            prompt_template="go",
            llm_config={"model": "gpt-4o-mini"},
            output_mapping={"context": self.names["context"]} if self.writes else {},
        )
        second = Agent(
            name=self.names["second"],
            prompt_template=f"read {{{self.reads.format(**self.names)}}}",
            llm_config={"model": "gpt-4o-mini"},
            dependencies=[first.name],
            for_each=walks if self.walks else None,
        )
        return Workflow(name="w", agents=[first, second])

    def prompts(self) -> list[str]:
        """Return the prompts that a worker would send, after all checks."""
        workflow = self.workflow()
        run_input = {self.names["list"]: ["list 0", "list 1"], self.names["text"]: "the text"}
        validate_input(workflow, run_input)
        first, second = workflow.agents
        flow, outputs = workflow.data_flow, {first.name: OUTPUT}
        if not self.walks:
            return [render(second.prompt_template, flow.view(second, run_input, outputs).values)]
        view = flow.view(second, run_input, outputs)
        agents = [agent.name for agent in workflow.agents]
        found = items_of(second, view.values, agents=agents, max_items=9)
        read = dict.fromkeys(flow.reads_by_items(second), OUTPUT)
        elements = [element_of(second, value, place) for place, value in enumerate(found)]
        views = [flow.view(second, run_input, read, element) for element in elements]
        return [render(second.prompt_template, each.values) for each in views]


OUTPUT = {"list": ["made 0", "made 1"], "part": "the part", "context": "the context"}
ROLES = ("first", "second", "list", "text", "context", "element")
#: The same case, in which no two things share a name.
APART = {role: f"the_{role}" for role in ROLES}


def is_meant(case: Case) -> bool:
    """Whether a case means something; a name inside an element hides the same name outside."""
    names = case.names
    if names["first"] == names["second"] or names["list"] == names["text"]:
        return False
    if case.reads in ("item", "index") and not case.walks:
        return False
    if case.reads == "{element}" and not (case.together and case.walks):
        return False
    if case.walks == "{list}" and names["list"] == "input":
        return False  # a path must lead into the input
    if case.reads == "{context}" and not case.writes:
        return False
    own = {"item", "index"} if case.walks else set()
    if case.together and case.walks:
        own.add(names["element"])
    read = case.reads.format(**names).partition(".")[0]
    return case.reads in ("{element}", "item", "index") or read not in own


CASES = st.builds(
    Case,
    names=st.fixed_dictionaries({role: st.sampled_from((f"the_{role}", *NAMES)) for role in ROLES}),
    walks=st.sampled_from(WALKS),
    together=st.booleans(),
    reads=st.sampled_from(READS),
    writes=st.booleans(),
).filter(is_meant)


REFUSED = "the message says what to rename"


def outcome_of(prompts: Callable[[], list[str]]) -> list[str] | str:
    try:
        return prompts()
    except WorkflowError as error:
        text = str(error)
        return REFUSED if "rename" in text or "other than item, index, input" in text else text


@given(CASES)
def test_a_shared_name_works_or_is_refused_with_the_name_to_change(case: Case) -> None:
    apart = Case(**{**vars(case), "names": APART})
    expected = apart.prompts()

    # {item} of lists that are walked together shows the name of the element.
    shown = [text.replace("the_element", case.names["element"]) for text in expected]
    assert outcome_of(case.prompts) in (shown, REFUSED)


#: What the second agent of a group reads.
GROUP_READS = ("{text}", "{before}.part", "{first}.part", "item", "index")
GROUP_ROLES = ("before", "group", "first", "second", "list", "text")


def grouped_prompts(names: Mapping[str, str], reads: str) -> list[str]:
    """Return the prompts of the second agent of a group that walks over a list of the input."""

    def agent(name: str, prompt: str, *dependencies: str) -> Agent:
        config = {"model": "gpt-4o-mini"}
        return Agent(
            name=name, prompt_template=prompt, llm_config=config, dependencies=dependencies
        )

    prompt = f"read {{{reads.format(**names)}}}"
    inside = [agent(names["first"], "go"), agent(names["second"], prompt, names["first"])]
    before = agent(names["before"], "go")
    group = Agent(
        name=names["group"],
        kind="workflow",
        config={"workflow": Workflow(name="inner", agents=inside)},
        dependencies=[before.name],
        for_each=f"input.{names['list']}",
    )
    workflow = Workflow(name="w", agents=[before, group])
    run_input = {names["list"]: ["list 0", "list 1"], names["text"]: "the text"}
    validate_input(workflow, run_input)
    flow, inner_flow = workflow.data_flow, inside_of(group).data_flow
    view = flow.view(group, run_input, {before.name: OUTPUT})
    found = items_of(group, view.values, agents=[before.name, group.name], max_items=9)
    read = dict.fromkeys(flow.reads_by_items(group), OUTPUT)
    prompts = []
    for place, value in enumerate(found):
        inputs = flow.view(group, run_input, read, element_of(group, value, place)).inputs
        inner = {key: part for key, part in inputs.items() if key not in {a.name for a in inside}}
        seen = inner_flow.view(inside[1], inner, {names["first"]: INNER_OUTPUT}).values
        prompts.append(render(prompt, seen))
    return prompts


def inside_of(group: Agent) -> Workflow:
    inner = embedded(group)
    assert inner is not None
    return inner


INNER_OUTPUT = {"part": "the inner part"}
GROUPS = st.fixed_dictionaries(
    {role: st.sampled_from((f"the_{role}", *NAMES)) for role in GROUP_ROLES}
)


def is_meant_in_group(names: Mapping[str, str], reads: str) -> bool:
    """Whether a group means something; a name inside hides the same name outside."""
    if names["first"] == names["second"] or names["before"] == names["group"]:
        return False
    if names["list"] == names["text"]:
        return False
    hidden = {"item", "index"} if reads in ("{text}", "{before}.part") else set()
    if reads == "{before}.part":
        hidden |= {names["first"]}
    if reads == "{text}":
        hidden |= {names["first"], names["before"]}
    return reads.format(**names).partition(".")[0] not in hidden


@given(GROUPS, st.sampled_from(GROUP_READS))
def test_a_shared_name_in_a_group_works_or_is_refused_with_the_name_to_change(
    names: Mapping[str, str], reads: str
) -> None:
    assume(is_meant_in_group(names, reads))
    expected = grouped_prompts({role: f"the_{role}" for role in GROUP_ROLES}, reads)

    assert outcome_of(lambda: grouped_prompts(names, reads)) in (expected, REFUSED)


def second(**fields: Any) -> Agent:
    given = {"prompt_template": "{item}", "llm_config": {"model": "gpt-4o-mini"}, **fields}
    return Agent(**{"name": "mails", **given})


def test_an_agent_with_the_name_of_the_list_it_walks_is_told_to_be_renamed() -> None:
    with pytest.raises(WorkflowError, match="'mails' is the name of an agent") as refused:
        Workflow(name="w", agents=[second(for_each="input.mails")])

    assert refused.value.field == "agents[0].for_each"
    assert str(refused.value).endswith("rename the agent 'mails'")


def test_another_agent_may_not_have_the_name_of_the_list_either() -> None:
    first = second(prompt_template="go")
    for dependencies in ([], ["mails"]):
        each = second(name="each", for_each="input.mails", dependencies=dependencies)

        with pytest.raises(WorkflowError, match="rename the agent 'mails'"):
            Workflow(name="w", agents=[first, each])


def test_a_condition_may_read_a_key_of_the_input_with_the_name_of_an_agent() -> None:
    agent = second(prompt_template="go", condition="size(input.mails) > 0")

    validate_input(Workflow(name="w", agents=[agent]), {"mails": ["a"]})


def test_a_placeholder_with_input_before_it_is_told_the_plain_name() -> None:
    agent = second(name="reader", prompt_template="{input.mails[0]}")
    workflow = Workflow(name="w", agents=[agent])

    with pytest.raises(WorkflowError, match=r"write \{mails\[0\]\}$"):
        validate_input(workflow, {"mails": ["a"]})


def test_in_a_file_the_line_of_the_list_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mails.yaml"
    file.write_text(
        "name: w\nagents:\n  - name: mails\n    for_each: input.mails\n"
        "    prompt_template: '{item}'\n    llm_config: {model: gpt-4o-mini}\n",
        encoding="utf-8",
    )

    with pytest.raises(WorkflowError, match=r"mails\.yaml:4: .*rename the agent 'mails'"):
        load(file)

"""Mappings and the shared context: the refusals, and the values that each agent sees."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import Agent, Workflow
from app.domain.input_validation import validate_input
from app.domain.prompt import render
from app.errors import MissingInput, WorkflowError


def agent(name: str, prompt: str = "go", *dependencies: str, **fields: Any) -> Agent:
    fields.setdefault("llm_config", {"model": "gpt-4o"})
    return Agent(name=name, prompt_template=prompt, dependencies=dependencies, **fields)


def writer(name: str, *dependencies: str, **mapping: str) -> Agent:
    return agent(name, "go", *dependencies, output_mapping=mapping or {"$": "key"})


def workflow(*agents: Agent) -> Workflow:
    return Workflow(name="w", agents=agents)


def prompt_of(flow: Workflow, name: str, run_input: dict[str, Any], **outputs: Any) -> str:
    one = flow.get_agent_by_name(name)
    assert one is not None
    read = {other: outputs.get(other) for other in flow.data_flow.reads(one)}
    view = flow.data_flow.view(one, run_input, read)
    return render(one.prompt_template, view.values, absent=view.absent)


@pytest.mark.parametrize(
    ("agents", "problem"),
    [
        ([writer("a"), writer("b")], "as agent 'b' does, and the two may run at the same time"),
        ([writer("a"), agent("key")], "'key', which is the name of an agent"),
        ([writer("a", x="input")], "names the run's input"),
        ([writer("a", x="k", y="k")], "has two paths for the key 'k'"),
        ([writer("a", x="a b")], "has the key of the context 'a b'"),
        ([agent("a", output_mapping={"x.": "k"})], "has the path 'x.'"),
        ([agent("a", output_mapping={"$.x()": "k"})], "has the path '$.x()'"),
        ([agent("a", input_mapping={"p": "x y"})], "is 'x y': give a path"),
        ([agent("a", input_mapping={"p": "x[-1]"})], "is 'x[-1]': give a path"),
        ([agent("a", input_mapping={"p": "{x}"})], "is '{x}': give a path"),
        ([agent("a", input_mapping={"1p": "x"})], "has the parameter '1p'"),
        ([agent("a", input_mapping=["p"])], "give a mapping of names to paths"),
        ([agent("a", input_mapping={"p": "a.x"})], "its input_mapping uses 'a', its own output"),
        ([writer("a"), agent("b", "{key}")], "add 'a' to its dependencies"),
        ([writer("a"), agent("b", input_mapping={"p": "key.x"})], "its input_mapping uses 'key'"),
        ([writer("a"), agent("b", condition="key == 1")], "its condition uses 'key'"),
        ([agent("a"), agent("b", condition="a == 1")], "its condition uses 'a', the output of an"),
        ([agent("a", condition="a == 1")], "its condition uses 'a', its own output: remove it"),
        ([agent("a", condition=1)], "condition is 1: give an expression"),
        ([agent("a", output_schema=3)], "give a JSON Schema or a pydantic model"),
        ([agent("a", output_schema={"enum": [b"x"]})], "which is not a JSON value"),
    ],
)
def test_what_is_not_sure_to_be_there_is_refused(agents: list[Agent], problem: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        workflow(*agents)

    assert problem in str(caught.value)
    assert caught.value.field is not None


def test_a_parameter_goes_before_everything_of_its_name() -> None:
    flow = workflow(agent("a", "{text} {other}", input_mapping={"text": "mail.body[1]"}))

    assert prompt_of(flow, "a", {"mail": {"body": ["x", "y"]}, "text": "z", "other": 1}) == "y 1"


def test_a_key_comes_from_the_last_level_that_has_an_output() -> None:
    flow = workflow(
        writer("a"), writer("b", "a"), agent("c", "{key.x}", "b"), agent("d", "{key.x}", "a")
    )

    assert prompt_of(flow, "c", {}, a={"x": 1}, b={"x": 2}) == "2"
    assert prompt_of(flow, "c", {}, a={"x": 1}) == "1"
    assert prompt_of(flow, "c", {}) == "null"
    assert prompt_of(flow, "d", {}, a={"x": 1}, b={"x": 2}) == "1"


def test_paths_lead_into_texts_that_are_json_and_into_lists() -> None:
    flow = workflow(
        agent("a", output_mapping={"items[1].name": "second", "$[0]": "first", "$": "all"}),
        agent("b", "{second} {first}", "a"),
        agent("c", "{all.items[0].name}", "a"),
    )

    text = '```json\n{"items": [{"name": "x"}, {"name": "y"}]}\n```'
    assert prompt_of(flow, "c", {}, a=text) == "x"
    assert prompt_of(flow, "b", {}, a=text) == "y null"


def test_a_source_that_is_not_there_says_which_parameter_wants_it() -> None:
    flow = workflow(agent("a"), agent("b", "{p}", "a", input_mapping={"p": "a.x.y"}))

    assert prompt_of(flow, "b", {}) == "null"
    with pytest.raises(
        MissingInput, match=r"input_mapping of 'p': 'a.x' is a string, so it has no"
    ):
        prompt_of(flow, "b", {}, a={"x": "text"})


@pytest.mark.parametrize(
    ("run_input", "problem"),
    [
        ({}, "input_mapping.p: placeholder mail.body has no value"),
        ({"mail": {}}, "input_mapping.p: placeholder mail.body: 'mail' has no key 'body'"),
        ({"mail": {"body": 1}, "key": 2}, "the input has the key 'key', which agent 'a' writes"),
    ],
)
def test_an_input_that_does_not_fit_the_mappings_is_refused(
    run_input: dict[str, Any], problem: str
) -> None:
    flow = workflow(
        agent("a", "{p}", input_mapping={"p": "mail.body"}, output_mapping={"$": "key"})
    )

    with pytest.raises(WorkflowError) as caught:
        validate_input(flow, run_input)

    assert problem in str(caught.value)


def test_workflows_without_data_flow_keep_their_content_hash() -> None:
    definition = workflow(agent("a")).definition()["agents"][0]

    assert not {"input_mapping", "output_mapping", "condition", "output_schema"} & definition.keys()


@given(
    edges=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=16),
    skipped=st.sets(st.integers(0, 7)),
    order=st.permutations(range(8)),
)
def test_what_an_agent_sees_does_not_depend_on_who_ended_first(
    edges: list[tuple[int, int]], skipped: set[int], order: list[int]
) -> None:
    before: dict[int, set[str]] = {n: {f"a{n - 1}"} if n else set() for n in range(8)}
    for one, other in edges:
        if one != other:
            before[max(one, other)].add(f"a{min(one, other)}")
    flow = workflow(
        *(writer(f"a{n}", *sorted(before[n])) for n in range(8)), agent("end", "{key}", "a7")
    )
    outputs = {f"a{n}": n for n in order if n not in skipped}

    seen = prompt_of(flow, "end", {}, **outputs)

    last = max((n for n in range(8) if n not in skipped), default=None)
    assert seen == ("null" if last is None else str(last))
    assert flow.data_flow.context({}, outputs).get("key") == last


@pytest.mark.parametrize(
    "reader",
    [
        agent("b", "{a}", "a"),
        agent("b", "{a.x[0]}", "a"),
        agent("b", "{key}", "a"),
        agent("b", "go", "a", condition="a == 'x'"),
        agent("b", "{p}", "a", input_mapping={"p": "a.x"}),
        agent("b", "{item}", "a", for_each="a.x"),
        Agent(name="b", kind="function", config={"function": "x"}, dependencies=["a"]),
    ],
)
def test_an_output_is_read_by_every_agent_that_gets_a_part_of_it(reader: Agent) -> None:
    flow = workflow(writer("a"), reader).data_flow

    assert flow.is_read("a")
    assert not flow.is_read("b")


@pytest.mark.parametrize("mapping", [{}, {"p": "topic"}])
def test_a_dependency_alone_reads_nothing(mapping: dict[str, str]) -> None:
    follower = agent("b", "go", "a", input_mapping=mapping)

    assert not workflow(writer("a"), follower).data_flow.is_read("a")

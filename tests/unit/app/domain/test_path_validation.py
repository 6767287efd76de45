"""Paths into outputs: a path to a part that no output can have is refused before any call."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from app.domain.agent import Agent
from app.domain.output_shapes import Schema, find_missing
from app.domain.path_validation import find_missing_parts
from app.domain.prompt import look_up, placeholders
from app.domain.workflow import Workflow
from app.errors import MissingInput

NAMES = st.sampled_from(["a", "b", "total", "verdict", "reasons"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(["x", 1, 2.5, True]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3) | st.dictionaries(NAMES, inner, min_size=1)
    ),
    max_leaves=12,
)
JUDGEMENT = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["good", "poor"]},
        "reasons": {"type": "array", "items": {"$ref": "#/$defs/reason"}},
        "score": {"type": ["number", "null"]},
    },
    "$defs": {"reason": {"type": "object", "properties": {"text": {"type": "string"}}}},
}


class Reason(BaseModel):
    text: str


class Judgement(BaseModel):
    verdict: str
    reasons: list[Reason] | None = None


def agent(name: str, *dependencies: str, prompt: str = "Work.", **fields: Any) -> Agent:
    fields = {"llm_config": {"model": "gpt-4o-mini"}} | fields
    return Agent(name=name, prompt_template=prompt, dependencies=dependencies, **fields)


def problems(*agents: Agent) -> list[tuple[str | None, str]]:
    found = find_missing_parts(Workflow(name="w", agents=agents))
    return [(mistake.field, str(mistake)) for mistake in found]


def judge(**fields: Any) -> Agent:
    return agent("judge", output_schema=JUDGEMENT, **fields)


@pytest.mark.parametrize(
    "prompt",
    [
        "{judge} {judge.verdict} {judge.reasons} {judge.reasons[0]} {judge.reasons[7].text}",
        "{judge.verdict.inside}",  # the value of an enum is not known to be no object
        "{judge.reasons[0].text.inside}",  # a text may contain JSON
    ],
)
def test_a_path_that_an_output_can_have_is_accepted(prompt: str) -> None:
    assert problems(judge(), agent("reader", "judge", prompt=prompt)) == []


@pytest.mark.parametrize("schema", [JUDGEMENT, Judgement])
@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (".verdikt", "'judge' has no field 'verdikt'; its fields are 'verdict', 'reasons'"),
        (".verdikt", "did you mean 'verdict'?"),
        (".reasons[0].txt", "'judge.reasons[0]' has no field 'txt'; its fields are 'text'; did"),
        ("[0]", "'judge' is of the type object, so it has no element [0]"),
        (".reasons.text", "'judge.reasons' is of the type array"),
    ],
)
def test_a_path_that_no_output_can_have_is_refused(schema: Any, path: str, problem: str) -> None:
    if schema is Judgement and path == ".reasons.text":
        problem = "'judge.reasons' is of the type array or null"
    found = problems(
        agent("judge", output_schema=schema), agent("reader", "judge", prompt=f"{{judge{path}}}")
    )

    ((field, message),) = found
    assert field == "agents[1].prompt_template"
    assert message.startswith(f"agent 'reader': prompt_template uses {{judge{path}}}: ")
    assert problem in message


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"condition": "judge.verdikt == 'good'"}, "condition"),
        ({"condition": "has(judge.reasons) && judge.reasons[0].txt == 'x'"}, "condition"),
        ({"condition": "judge.reasonz.exists(one, one.text == 'x')"}, "condition"),
        ({"condition": "mood.x > 1 || moods == 'good'"}, "condition"),
        ({"input_mapping": {"verdict": "judge.verdikt"}}, "input_mapping.verdict"),
        ({"for_each": "judge.reasonz"}, "for_each"),
        ({"for_each": "judge.score"}, "for_each"),
        ({"for_each": "judge.reasons", "prompt_template": "{item.txt}"}, "prompt_template"),
        ({"prompt_template": "{mood.x}"}, "prompt_template"),
        ({"attachments": ["{judge.verdikt}"]}, "attachments[0]"),
    ],
)
def test_every_place_that_reads_an_output_is_checked(fields: dict[str, Any], field: str) -> None:
    prompt = fields.pop("prompt_template", "Work.")
    first = judge(output_mapping={"score": "mood", "verdict": "moods"})

    found = problems(first, agent("reader", "judge", prompt=prompt, **fields))

    assert [place for place, _ in found] == [f"agents[1].{field}"]


def test_what_an_agent_writes_into_the_context_must_be_in_its_output() -> None:
    assert [place for place, _ in problems(judge(output_mapping={"verdikt": "mood"}))] == [
        "agents[0].output_mapping"
    ]


def test_the_output_of_a_list_is_a_list() -> None:
    every = judge(for_each="input.mails", prompt="{item}")

    assert problems(every, agent("reader", "judge", prompt="{judge[3].verdict}")) == []
    ((_, message),) = problems(every, agent("reader", "judge", prompt="{judge.verdict}"))
    assert "'judge' is a list, so it has no field 'verdict'" in message


def test_a_sub_workflow_has_a_field_for_each_of_its_agents_and_reads_the_outer_outputs() -> None:
    inner = Workflow(
        name="inner", agents=[judge(), agent("summary", prompt="{first.verdikt} {item.txt}")]
    )
    first = agent("first", output_schema=JUDGEMENT)
    outer = Agent(
        name="check",
        kind="workflow",
        config={"workflow": inner},
        dependencies=["first"],
        for_each="first.reasons",
    )

    found = problems(first, outer, agent("reader", "check", prompt="{check[0].juge.verdict}"))

    assert [place for place, _ in found] == [
        "agents[1].config.workflow.agents[1].prompt_template",
        "agents[1].config.workflow.agents[1].prompt_template",
        "agents[2].prompt_template",
    ]
    assert "did you mean 'judge'?" in found[2][1]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
        {"type": "object", "properties": {"a": {}}, "patternProperties": {"^v": {}}},
        {"anyOf": [{"type": "object", "properties": {"verdict": {}}}, {"type": "null"}]},
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"verdict": {}}}]},
        {"$ref": "#/$defs/one", "$defs": {"one": {"properties": {"verdict": {}}}}},
        {"$ref": "#/$defs/one", "$defs": {"one": {"$ref": "#/$defs/one"}}},
    ],
)
def test_what_a_schema_permits_or_does_not_tell_is_accepted(schema: dict[str, Any]) -> None:
    found = problems(
        agent("judge", output_schema=schema), agent("reader", "judge", prompt="{judge.verdict}")
    )

    assert found == []


def schema_for(value: Any, wrap: Iterator[int]) -> dict[str, Any]:
    """Return a schema with exactly the keys of a value, wrapped in one of four ways."""
    match value:
        case dict():
            properties = {key: schema_for(each, wrap) for key, each in value.items()}
            schema: dict[str, Any] = {"type": "object", "properties": properties}
        case list():
            schema = {"type": "array", "items": {"anyOf": [schema_for(e, wrap) for e in value]}}
        case _:
            schema = {"type": "integer" if isinstance(value, int) else "number"}
            schema = {"type": "boolean"} if isinstance(value, bool) else schema
            schema = {"type": "string"} if isinstance(value, str) else schema
    return (
        schema,
        {"anyOf": [schema, {"type": "null"}]},
        {"allOf": [schema, {"description": "x"}]},
        {"oneOf": [schema]},
    )[next(wrap) % 4]


def paths_of(value: Any) -> Iterator[str]:
    yield ""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (f".{key}{path}" for path in paths_of(inner))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from (f"[{index}]{path}" for path in paths_of(inner))


@given(value=VALUES, seed=st.integers(0, 3))
def test_no_path_of_a_value_is_refused_and_every_path_to_an_unlisted_key_is(
    value: Any, seed: int
) -> None:
    schema = schema_for(value, iter(range(seed, 10_000)))
    shape = Schema(part=schema, whole=schema)

    for path in paths_of(value):
        (place,) = placeholders(f"{{root{path}}}")
        assert find_missing(shape, place.path, "root") is None
        reached = look_up(place, {"root": value})
        if isinstance(reached, dict):
            assert find_missing(shape, (*place.path, "other"), "root")
            with pytest.raises(MissingInput):
                look_up(placeholders(f"{{root{path}.other}}")[0], {"root": value})

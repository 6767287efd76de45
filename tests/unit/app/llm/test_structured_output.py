"""Answers checked against a schema, and the request for it to each provider."""

import time
from contextlib import closing
from typing import Any

import pytest
from pydantic import BaseModel, Field

from app import Agent, Workflow
from app.errors import ResultTooLarge, WorkflowError
from app.llm.base import LLMResponse
from app.llm.structured import anthropic_format, openai_format
from app.registration.output_schemas import OutputSchemas, check_schema
from app.sandbox.processes import Sandbox
from app.sandbox.turns import Turn
from workers.agents.structured import Fit, Unfit, read_answer

pytestmark = pytest.mark.anyio

TURN = Turn(None, "run")
TOTAL = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}


class Line(BaseModel):
    zeal: int
    amount: float | None = None


class Order(BaseModel):
    zone: str
    lines: list[Line]


def agent(schema: Any = None) -> Agent:
    return Agent(
        name="a",
        prompt_template="go",
        llm_config={"model": "gpt-4o"},
        output_schema=TOTAL if schema is None else schema,
    )


def answer(content: str, **fields: Any) -> LLMResponse:
    fields = {"model": "m", "input_tokens": 1, "output_tokens": 1, **fields}
    return LLMResponse(content=content, **fields)


async def read(content: str, schema: Any = None, **fields: Any) -> Fit | Unfit:
    with closing(Sandbox()) as sandbox:
        return await read_answer(
            agent(schema),
            answer(content, **fields),
            schemas=OutputSchemas(sandbox),
            turn=TURN,
            max_bytes=1_000_000,
        )


async def problem_of(value: Any, schema: dict[str, Any]) -> str | None:
    check_schema(schema)
    with closing(Sandbox()) as sandbox:
        return await OutputSchemas(sandbox).find_problem(value, schema, "output", TURN)


@pytest.mark.parametrize(
    "text",
    [
        '{"total": 1.5}',
        '```json\n{"total": 1.5}\n```',
        '```JSON\n{"total": 1.5}\n```',
        ' {"total":1.5}',
        '\ufeff{"total": 1.5}',
        '<think>1 or {"total": 2}?</think>\n{"total": 1.5}',
        'I add [1] and [2].\n\n```json\n{"total": 1.5}\n```\nShall I go on?',
    ],
)
async def test_an_answer_that_fits_is_a_json_value(text: str) -> None:
    assert await read(text) == Fit(value={"total": 1.5})


async def test_a_value_that_is_neither_object_nor_list_is_read_without_its_wrapping() -> None:
    assert await read("<think>hm</think>```json\n5\n```", {"type": "integer"}) == Fit(value=5)
    assert isinstance(await read("It is 5.", {"type": "integer"}), Unfit)


async def test_long_integers_keep_their_digits() -> None:
    large = (1 << 70) + 1
    schema = {"type": "object", "properties": {"id": {"type": "integer", "minimum": large}}}

    assert await read(f'{{"id": {large}}}', schema) == Fit(value={"id": large})
    found = await read(f'{{"id": {large - 1}}}', schema)
    assert isinstance(found, Unfit)
    assert f"{large - 1} is less than the minimum of {large}" in found.problem


async def test_an_answer_that_was_cut_is_not_searched_for_a_value() -> None:
    found = await read('First {"total": 1}, then {"tot', finish_reason="length")

    assert isinstance(found, Unfit)
    assert not found.repairable


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "output is not valid JSON: Expecting value"),
        ("twelve", "output is not valid JSON: Expecting value"),
        ('{"total": "12"}', 'output.total: "12" is not of type "number"'),
        ("{}", 'output: "total" is a required property'),
        ('{"total": NaN}', "output.total is NaN, which is not JSON: write null"),
        ('The total is {"total": 1e400}.', "output.total is too large a number"),
        ('{"total": 1} {"total": 2}', "output is not valid JSON: Extra data"),
        ('{"total": 1, "more": "a\\u0000b"}', "output.more contains a NUL character"),
        ("[" * 500 + "]" * 500, "nested more than 64 levels deep"),
        ("[" * 100_000, "output is nested too deeply"),
        ('{"total": "' + "x" * 10_000 + '"}', 'is not of type "number"'),
    ],
)
async def test_what_does_not_fit_says_where(text: str, problem: str) -> None:
    found = await read(text)

    assert isinstance(found, Unfit)
    assert problem in found.problem
    assert len(found.problem) < 500


async def test_an_answer_that_was_cut_says_what_to_raise() -> None:
    found = await read('{"total": 1', finish_reason="length")

    assert isinstance(found, Unfit)
    assert (found.problem, found.remedy, found.repairable) == (
        "output: it ends at max_tokens",
        "raise its max_tokens",
        False,
    )


async def test_fifty_megabytes_are_refused_unread() -> None:
    text = '{"total": "' + "x" * 50_000_000 + '"}'
    started_at_s = time.process_time()

    with pytest.raises(ResultTooLarge, match="answered 50,000,013 bytes, the limit is 1,000,000"):
        await read(text)

    assert time.process_time() - started_at_s < 1


async def test_a_pattern_that_explodes_elsewhere_takes_linear_time() -> None:
    schema = {"type": "string", "pattern": "^(a+)+$"}
    started_at_s = time.process_time()

    found = await read('"' + "a" * 50_000 + '!"', schema)

    assert isinstance(found, Unfit)
    assert time.process_time() - started_at_s < 2


def test_a_model_and_a_workflow_file_give_the_same_schema() -> None:
    line = {
        "properties": {
            "zeal": {"type": "integer"},
            "amount": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
        },
        "required": ["zeal"],
        "type": "object",
    }
    order = {
        "$defs": {"Line": line},
        "properties": {
            "zone": {"type": "string"},
            "lines": {"items": {"$ref": "#/$defs/Line"}, "type": "array"},
        },
        "required": ["zone", "lines"],
        "type": "object",
    }

    written = Workflow(name="w", agents=[agent(order)])

    assert Workflow(name="w", agents=[agent(Order)]).content_hash() == written.content_hash()


def test_a_title_that_a_model_states_is_kept() -> None:
    class Rated(BaseModel):
        title: str
        score: int = Field(title="Score from 1 to 5")

    schema = agent(Rated).definition()["output_schema"]

    assert "Score from 1 to 5" in str(schema)
    assert '"title": {"type": "string"}' in str(schema).replace("'", '"')


def test_the_schema_of_a_model_is_stored_with_its_order() -> None:
    workflow = Workflow(name="w", agents=[agent(Order)])

    stored = Workflow.from_definition(workflow.definition())

    schema = stored.agents[0].output_schema
    assert list(schema["properties"]) == ["zone", "lines"]
    assert stored.content_hash() == workflow.content_hash()


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "txt"}, "is not a JSON Schema at type"),
        ({"$ref": "http://127.0.0.1:9/x"}, "is outside the schema: put it under $defs"),
        ({"$ref": "file:///etc/passwd"}, "is outside the schema"),
        ({"$ref": "#/nothing"}, "is not a JSON Schema"),
        ({"type": "string", "pattern": "(?=a)b"}, "is not a JSON Schema"),
        ({"description": "x" * 100_000}, "the limit is 100,000"),
    ],
)
def test_what_is_no_schema_is_refused(schema: dict[str, Any], problem: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        check_schema(schema)

    assert problem in str(caught.value)


async def test_a_schema_that_contains_itself_is_applied() -> None:
    schema = {
        "type": "object",
        "properties": {"parts": {"type": "array", "items": {"$ref": "#"}}},
        "additionalProperties": False,
    }

    assert await problem_of({"parts": [{"parts": []}]}, schema) is None
    problem = await problem_of({"parts": [{}, {"part": 1}]}, schema)
    assert problem is not None
    assert problem.startswith("output.parts[1]: ")


def test_openai_is_told_a_schema_strictly_where_it_can_be() -> None:
    strict = openai_format(Order.model_json_schema(), "gpt-4o-mini")
    loose = openai_format({**TOTAL, "additionalProperties": True}, "gpt-4o-mini")

    assert strict is not None
    assert loose is not None
    said = strict["json_schema"]
    assert said["strict"] is True
    assert said["schema"]["additionalProperties"] is False
    assert said["schema"]["$defs"]["Line"]["required"] == ["zeal", "amount"]
    assert "default" not in str(said)
    assert loose["json_schema"]["strict"] is False
    assert openai_format(TOTAL, "gpt-3.5-turbo") is None
    assert openai_format({"type": "array", "items": TOTAL}, "gpt-4o") is None


def test_anthropic_is_told_what_its_mode_takes() -> None:
    schema = {"type": "object", "properties": {"n": {"type": ["integer", "null"], "minimum": 3}}}

    told = anthropic_format(schema, "claude-haiku-4-5")

    assert told == {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "properties": {
                "n": {
                    "anyOf": [
                        {"type": "integer", "description": '{"minimum": 3}'},
                        {"type": "null"},
                    ]
                }
            },
            "additionalProperties": False,
        },
    }
    assert anthropic_format(schema, "claude-sonnet-4-20250514") is None
    assert anthropic_format(schema, "claude-opus-4-1") is not None
    assert anthropic_format({"type": "object"}, "claude-haiku-4-5") is None
    assert anthropic_format({"$ref": "#"}, "claude-haiku-4-5") is None


def test_lists_of_types_do_not_multiply_without_a_bound() -> None:
    kinds = ["object", "array", "string", "null", "number", "integer", "boolean"]
    schema: dict[str, Any] = {"type": ["string", "null"]}
    for _ in range(5):
        schema = {"type": kinds, "properties": {"a": schema, "b": schema}}
    schema["type"] = "object"
    started_s = time.thread_time()

    told = openai_format(schema, "gpt-4o")

    assert told is not None
    assert told["json_schema"]["strict"] is False
    assert anthropic_format(schema, "claude-haiku-4-5") is None
    assert time.thread_time() - started_s < 0.25

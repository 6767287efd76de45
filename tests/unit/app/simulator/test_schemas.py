"""The simulator's answers fit their schemas, in every form of the request."""

import json
from enum import StrEnum
from typing import Annotated, Any, Literal, Union

import pytest
from pydantic import BaseModel, Field, RootModel

from app.llm.structured import anthropic_format, instruction, openai_format
from app.sandbox.program import first_problem, schema_validator
from app.simulator.anthropic_wire import AnthropicWire
from app.simulator.openai_wire import OpenAIWire
from app.simulator.replies import reply_to

PROMPT = "Screen the resume of Jane Miller: 7 years of Python, Celery and Postgres."


class Level(StrEnum):
    LOW = "low"
    HIGH = "high"


class Node(BaseModel):
    label: str
    next: "Node | None"
    children: list["Node"]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"]
    barks: bool


class Pet(RootModel[Annotated[Union[Cat, Dog], Field(discriminator="kind")]]):  # noqa: UP007
    pass


class Report(BaseModel):
    scores: dict[str, float]
    by_level: dict[Level, list[Cat]]
    share: Annotated[float, Field(gt=0, lt=1)]
    stars: Annotated[int, Field(ge=1, le=5)]
    code: Annotated[str, Field(min_length=200)]
    pair: tuple[int, str]
    note: str | None = None


SCHEMAS: dict[str, dict[str, Any]] = {
    "a list of texts": {"type": "array", "items": {"type": "string"}},
    "a list of objects": {
        "type": "array",
        "minItems": 3,
        "items": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    },
    "a text": {"type": "string", "maxLength": 10},
    "a number": {"type": "number", "exclusiveMinimum": 3, "exclusiveMaximum": 3.5},
    "a whole number": {"type": "integer", "minimum": 0.5, "maximum": 100, "multipleOf": 7},
    "a truth": {"type": "boolean"},
    "nothing": {"type": "null"},
    "a choice": {"enum": [3, "three", None]},
    "anyOf": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "number"}}]},
    "oneOf": {"oneOf": [{"type": "integer", "maximum": 5}, {"type": "string"}]},
    "allOf": {
        "allOf": [
            {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "boolean"}}, "required": ["b"]},
        ]
    },
    "a reference": {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": ["integer", "null"]}}},
    "a recursion": {"type": "array", "items": {"$ref": "#"}},
    "a map": {"type": "object", "additionalProperties": {"type": "number"}, "minProperties": 1},
    "a map of maps": {"additionalProperties": {"additionalProperties": {"type": "boolean"}}},
    "any object": {"type": "object"},
    "formats": {
        "properties": {
            name: {"type": "string", "format": name}
            for name in ("date", "date-time", "time", "email", "uuid", "uri")
        }
    },
    "a recursive model": Node.model_json_schema(),
    "one of several models": Pet.model_json_schema(),
    "a model with bounds": Report.model_json_schema(),
}


def answer_of_openai(schema: dict[str, Any], model: str) -> str:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": PROMPT}]}
    if format_ := openai_format(schema, model):
        body["response_format"] = format_
    else:
        body["messages"].insert(0, {"role": "system", "content": instruction(schema)})
    return reply_to(OpenAIWire().parse(body)).text


def answer_of_anthropic(schema: dict[str, Any], model: str) -> str:
    messages = [{"role": "user", "content": PROMPT}]
    body: dict[str, Any] = {"model": model, "max_tokens": 9000, "messages": messages}
    if format_ := anthropic_format(schema, model):
        body["output_config"] = {"format": format_}
    else:
        body["system"] = f"Be brief.\n\n{instruction(schema)}"
    return reply_to(AnthropicWire().parse(body)).text


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_an_answer_fits_its_schema_at_every_provider(schema: dict[str, Any]) -> None:
    answers = [
        answer_of_openai(schema, "gpt-4o-mini"),
        answer_of_openai(schema, "gpt-3.5-turbo"),
        answer_of_anthropic(schema, "claude-sonnet-5"),
    ]

    for answer in answers:
        assert first_problem(schema_validator(schema, None), json.loads(answer)) is None, answer


def test_a_map_has_entries_and_a_list_an_element() -> None:
    scores = json.loads(answer_of_anthropic(SCHEMAS["a map"], "claude-sonnet-5"))
    texts = json.loads(answer_of_openai(SCHEMAS["a list of texts"], "gpt-4o-mini"))

    assert len(scores) == 2
    assert len(texts) == 1


def test_an_instructed_schema_is_no_part_of_what_the_prompt_states() -> None:
    schema = {"type": "array", "items": {"type": "object", "properties": {"vendor": {}}}}
    system = instruction(schema)
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": "Vendor: Acme"},
    ]

    reply = reply_to(OpenAIWire().parse({"model": "gpt-4o-mini", "messages": messages}))

    assert json.loads(reply.text) == [{"vendor": "Acme"}]


def test_a_schema_that_never_ends_is_answered_nevertheless() -> None:
    schema = {
        "type": "object",
        "properties": {name: {"$ref": "#"} for name in ("left", "right", "middle")},
        "required": ["left", "right", "middle"],
    }

    assert json.loads(answer_of_openai(schema, "gpt-4o-mini")).keys() == {"left", "right", "middle"}

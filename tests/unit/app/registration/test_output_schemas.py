"""Schemas from outside are bounded: at registration, on the loop and in the sandbox."""

import time
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from app.errors import OutputInvalid, WorkflowError
from app.registration.output_schemas import (
    INLINE_WEIGHT,
    MAX_PATTERNS,
    OutputSchemas,
    check_schema,
)
from app.registration.schema_cost import cost_of, pattern_cost
from app.sandbox.processes import Sandbox
from app.sandbox.turns import Turn
from tests.support.sandboxes import sandbox_processes

pytestmark = pytest.mark.anyio

TURN = Turn(None, "run")


class Node(BaseModel):
    label: str
    left: "Node | None" = None
    right: "Node | None" = None


class Order(BaseModel):
    zone: str
    tags: set[str]
    lines: list[Node]


def doubling(levels: int, keyword: str = "allOf") -> dict[str, Any]:
    """A schema of 2 kB that is applied 2 ** levels times."""
    parts: dict[str, Any] = {
        f"p{level}": {keyword: [{"$ref": f"#/$defs/p{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$defs": parts | {f"p{levels}": {"type": "integer"}}, "$ref": "#/$defs/p0"}


RECURSIVE = {
    "$defs": {
        "n": {
            "anyOf": [
                {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/n"}},
                {"type": "array", "items": {"$ref": "#/$defs/n"}},
                {"const": 5},
            ]
        }
    },
    "$ref": "#/$defs/n",
}


def unevaluated(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"properties": {"a": {}}}
    for _ in range(levels):
        schema = {"allOf": [schema], "unevaluatedProperties": False}
    return schema


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (doubling(29), "refer to each part once"),
        (doubling(29, "anyOf"), "refer to each part once"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": doubling(5)}}, ""),
        ({"$ref": "#"}, "refer to other parts again and again"),
        ({"allOf": [{"$ref": "#"}]}, "refer to each part once"),
        ({"allOf": [{"$ref": "#/$defs/e"}] * 50, "$defs": {"e": {"enum": list(range(9999))}}}, ""),
        ({"pattern": "((a{1,100}){1,100}){1,100}"}, "lower the numbers of repetitions"),
        ({"allOf": [{"pattern": rf"(\p{{L}}{{99}}){{2}}{n}"} for n in range(50)]}, "patterns"),
        ({"patternProperties": {r"(\pL{999}){9}": {}}}, "patterns"),
        ({"pattern": r"\s" * 1000}, "patterns"),
        ({"pattern": r"\d" * 20_000}, "patterns"),
        ({"pattern": "[" + r"\s" * 24_000 + "]"}, "patterns"),
        ({"patternProperties": {r"\w" * 100 + "a" * 40_000: {}}}, "patterns"),
        ({"pattern": r"\cA" * 9000}, "patterns"),
        ({"pattern": "a?" * 49_000}, ""),
    ],
)
def test_a_schema_that_no_value_could_pass_in_time_is_refused(
    schema: dict[str, Any], problem: str
) -> None:
    started_s = time.thread_time()

    with pytest.raises(WorkflowError) as caught:
        check_schema(schema)

    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.thread_time() - started_s < 0.25


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (RECURSIVE, nested(15)),
        ({"items": {"enum": [{"a": number} for number in range(8000)]}}, [{"a": 7999}] * 300),
        ({"items": {"anyOf": [{"enum": list(range(9000))}] * 2}}, [-1] * 1000),
        ({"pattern": "(a{1,500}){1,10}b"}, "a" * 10_000),
        (unevaluated(17), {"a": 1}),
        ({"items": {"uniqueItems": True}, "uniqueItems": True}, [[n] for n in range(50_000)]),
        ({"contains": {"contains": {"contains": {"const": 1}}}}, [[[0] * 1000] * 10] * 10),
        ({"$dynamicAnchor": "n", "items": {"$dynamicRef": "#n"}}, nested(60)),
        ({"items": {"multipleOf": 5e-324}}, [1.7e308] * 9000),
        ({"items": {"multipleOf": 0.01}}, [1.7e308] * 50_000),
        ({"items": {"multipleOf": 1e-300}}, [10**300] * 9000),
    ],
)
async def test_a_costly_schema_takes_no_time_of_the_loop(schema: Any, value: Any) -> None:
    check_schema(schema)
    with closing(Sandbox()) as sandbox:
        schemas = OutputSchemas(sandbox)
        started_s = time.thread_time()

        try:
            await schemas.find_problem(value, schema, "output", TURN)
        except OutputInvalid as error:
            assert "simplify the schema" in str(error)  # noqa: PT017 either is right

        assert time.thread_time() - started_s < 0.25


async def test_the_sandbox_finds_the_same_problem_as_the_process_itself() -> None:
    schema = {"properties": {"lines": {"items": {"required": ["id"]}}}}
    value = {"lines": [{"id": 1 << 70}, {"n": 1}]}
    costly = {**schema, "$defs": {"unused": {"unevaluatedItems": False}}}

    with closing(Sandbox()) as sandbox:
        schemas = OutputSchemas(sandbox)
        found = [
            await schemas.find_problem(value, each, "output", TURN) for each in (schema, costly)
        ]

    assert found[0] == found[1] == 'output.lines[1]: "id" is a required property'


async def test_an_ordinary_output_needs_no_process() -> None:
    value = {"zone": "north", "tags": ["a", "b"], "lines": [{"label": "x" * 20}] * 20}

    before = sandbox_processes()
    with closing(Sandbox()) as sandbox:
        found = await OutputSchemas(sandbox).find_problem(
            value, Order.model_json_schema(), "output", TURN
        )

        assert found is None
        assert sandbox_processes() == before


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$",
        r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$",
        r"^[^@\s]+@[^@\s]+\.[a-z]{2,63}$",
        r"^[\p{L} .'-]{1,100}$",
        r"^.{1,5000}$",
    ],
)
def test_ordinary_patterns_are_accepted(pattern: str) -> None:
    check_schema({"type": "string", "pattern": pattern})

    assert pattern_cost(pattern) < MAX_PATTERNS


@pytest.mark.parametrize(
    "pattern",
    ["(?x)(a{ 1000 }){ 99 }", "(?i-x)(?x: a{ 9 } )", "(a{1000}b)*{1000}", "(a{1000})+?{999}"],
)
def test_no_spelling_hides_the_counts_of_a_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        check_schema({"type": "string", "pattern": pattern})


leaves = st.sampled_from(
    [{"type": "integer"}, {"type": "string", "minLength": 1}, {"enum": [1, 2, 3]}, True]
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"items": inner}),
        st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("abc"), inner)}),
        st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=12,
)


@given(trees, trees)
@settings(max_examples=50)
def test_a_schema_weighs_at_least_as_much_as_its_parts_together(one: Any, other: Any) -> None:
    both = cost_of({"allOf": [one, other]})

    assert both.weight >= cost_of(one).weight + cost_of(other).weight
    assert both.expanded >= max(cost_of(one).expanded, cost_of(other).expanded)
    assert cost_of({"$defs": {"a": one}, "allOf": [{"$ref": "#/$defs/a"}] * 3}).weight >= (
        2 * cost_of(one).weight
    )


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.just("#"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["$ref", "allOf", "items", "properties", "$defs", "enum", "pattern", "if"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_whatever_is_given_as_a_schema_has_a_cost(schema: Any) -> None:
    cost = cost_of(schema)

    assert cost.weight > 0
    assert cost.expanded > 0


def test_the_weight_of_ordinary_schemas_leaves_room_for_large_outputs() -> None:
    assert cost_of(Order.model_json_schema()).weight < INLINE_WEIGHT / 2

"""Schemas of workflows, and outputs that are checked against them."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.domain.agent import Agent
from app.errors import OutputInvalid, WorkflowError
from app.llm.base import LLMResponse
from app.llm.structured import anthropic_format, instruction, openai_format
from app.registration.output_schemas import OutputSchemas, check_schema
from app.sandbox.processes import Sandbox
from app.sandbox.turns import Turn
from tests.support.cheapness import assert_cheap
from workers.agents.structured import read_answer

SAME_VALUE = ("allOf", "anyOf", "oneOf")
PARTS = 6
sizes = st.sampled_from([1, 2, 10, 100, 1000, 5000])

references = st.integers(0, PARTS - 1).map(lambda part: {"$ref": f"#/$defs/p{part}"})
patterns = st.builds(
    lambda atom, one, two: f"({atom}{{1,{one}}}){{1,{two}}}b",
    st.sampled_from(["a", ".", "[^a]", r"\w", r"\p{L}", "(a|b)*"]),
    sizes,
    sizes,
)
leaves = st.one_of(
    references,
    patterns.map(lambda pattern: {"pattern": pattern}),
    st.builds(
        lambda atom, size: {"pattern": atom * size},
        st.sampled_from([r"\d", r"\w", r"\s", r"\S", r"[\s]", r"\cA", "a?", "(a|b)"]),
        sizes,
    ),
    st.sampled_from([0.01, 5e-324, 1e-300, 1e300, 3]).map(lambda number: {"multipleOf": number}),
    sizes.map(lambda size: {"enum": list(range(size))}),
    sizes.map(lambda size: {"enum": [{"a": number} for number in range(size)]}),
    st.just({"uniqueItems": True}),
    st.just({"type": ["object", "array", "string", "null", "number"]}),
    st.just({"const": 5}),
)


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.builds(lambda word, parts: {word: parts}, st.sampled_from(SAME_VALUE), lists),
        st.builds(lambda part: {"items": part, "type": "array"}, inner),
        st.builds(lambda part: {"contains": part}, inner),
        st.builds(lambda part: {"not": part}, inner),
        st.builds(lambda part: {"properties": {"a": part, "b": part}}, inner),
        st.builds(lambda part: {"patternProperties": {"^a": part, "a": part}}, inner),
        st.builds(lambda part: {"dependentSchemas": {"a": part}}, inner),
        st.builds(lambda part: {"additionalProperties": part}, inner),
        st.builds(lambda part: {"allOf": [part], "unevaluatedProperties": False}, inner),
        st.builds(lambda part: {"type": ["object", "null"], "properties": {"a": part}}, inner),
    )


parts = st.recursive(leaves, combined, max_leaves=6)


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, Any]:
    """A schema whose parts may refer to each other, also doubling with each level."""
    defined = {f"p{part}": draw(parts) for part in range(PARTS)}
    levels = draw(st.sampled_from([0, 5, 12, 29]))
    word = draw(st.sampled_from(SAME_VALUE))
    for level in range(levels):
        defined[f"d{level}"] = {word: [{"$ref": f"#/$defs/d{level + 1}"}] * 2}
    defined[f"d{levels}"] = draw(parts)
    root: dict[str, Any] = {"$defs": defined, "allOf": [{"$ref": "#/$defs/d0"}]}
    root.update(draw(parts))
    return root


def nested(value: Any, levels: int, wide: int) -> Any:
    for _ in range(levels):
        value = [value] * wide
    return value


values = st.one_of(
    st.builds(nested, st.sampled_from([1, 5, "a", {"a": 1}]), st.integers(0, 30), st.just(1)),
    st.builds(nested, st.sampled_from([1, -1, {"a": 7}, 1.7e308, 10**300]), st.just(1), sizes),
    st.builds(lambda size: "a" * 10 * size, sizes),
    st.builds(lambda size: list(range(size)), sizes),
    st.builds(lambda size: {f"a{number}": number for number in range(size)}, sizes),
    st.builds(lambda levels: {"a": nested({"a": 1, "b": 2}, levels, 2)}, st.integers(0, 10)),
)


@given(schemas(), values)
def test_a_schema_and_an_output_are_cheap(
    sandbox: Sandbox, schema: dict[str, Any], value: Any
) -> None:
    async def attack() -> None:
        with suppress(WorkflowError, OutputInvalid):
            check_schema(schema)
            openai_format(schema, "gpt-4o")
            anthropic_format(schema, "claude-haiku-4-5")
            instruction(schema)
            await read_answer(
                Agent(name="a", prompt_template="go", output_schema=schema),
                LLMResponse(content=json.dumps(value), model="m", input_tokens=1, output_tokens=1),
                schemas=OutputSchemas(sandbox),
                turn=Turn(None, "run"),
                max_bytes=1_000_000,
            )

    assert_cheap(attack)

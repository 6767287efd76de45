"""Sends the JSON Schema of an answer in the provider's own mode, or as an instruction.

A provider's mode takes only a part of JSON Schema, so the provider gets a narrower schema that is
close to the agent's schema. The answer is checked with the agent's schema. If a schema cannot be
narrowed (maps with free keys, recursion), or if the model has no mode for schemas, the system
prompt contains the schema.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.llm.models import anthropic_takes_schema, openai_takes_schema

#: The key in a request's parameters for the JSON Schema of the answer.
OUTPUT_SCHEMA = "output_schema"
#: Largest narrowed schema: its parts, and its remarks in units of 100 characters. A list of types
#: becomes one part for each type, so the number of parts can grow with a power of the depth.
MAX_PARTS = 5000
MAX_DEPTH = 10  # neither provider takes deeper schemas; this limit also ends recursion

_COMMON = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf"}
    | {"$ref", "$defs", "description", "title"}
)
_CONSTRAINTS = frozenset(
    {"pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
    | {"minItems", "maxItems"}
)
#: Keywords that no provider's mode takes.
_UNSAID = frozenset({"oneOf", "allOf", "not", "if", "patternProperties", "prefixItems"})
_INSTRUCTION = (
    "Answer with one JSON document that fits this JSON Schema, and with nothing else: "
    "no explanation, no Markdown.\n"
)


class _CannotSay(Exception):
    """The schema has a part that the provider's mode does not take."""


class _Room:
    """The room that is left for parts of a narrowed schema."""

    def __init__(self) -> None:
        self._left = MAX_PARTS

    def take(self, parts: int) -> None:
        self._left -= parts
        if self._left < 0:
            raise _CannotSay


def openai_format(schema: Mapping[str, Any], model: str) -> dict[str, Any] | None:
    """Return ``response_format`` for a schema, or None if the schema must be an instruction."""
    if not openai_takes_schema(model) or schema.get("type") != "object":
        return None
    try:
        said, strict = _OPENAI.narrowed(schema, _Room()), True
    except _CannotSay:
        # The mode is not strict, so the provider follows the schema as well as it can.
        said, strict = dict(schema), False
    named = {"name": "output", "schema": said, "strict": strict}
    return {"type": "json_schema", "json_schema": named}


def anthropic_format(schema: Mapping[str, Any], model: str) -> dict[str, Any] | None:
    """Return ``output_config.format`` for a schema; None if the schema must be an instruction."""
    if not anthropic_takes_schema(model):
        return None
    try:
        return {"type": "json_schema", "schema": _ANTHROPIC.narrowed(schema, _Room())}
    except _CannotSay:
        return None


def instruction(schema: Mapping[str, Any]) -> str:
    """Return the schema as an instruction in the system prompt."""
    return _INSTRUCTION + json.dumps(schema)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Words:
    """The part of JSON Schema that a provider takes.

    Attributes:
        keywords: Keywords that the provider takes; other keywords go into the description.
        all_required: Whether every property of an object has to be required.
    """

    keywords: frozenset[str]
    all_required: bool

    def narrowed(self, schema: Any, room: _Room, depth: int = 0) -> dict[str, Any]:
        """Narrow a schema to these keywords, and close its objects to further keys.

        Raises:
            _CannotSay: If the result would have another meaning.
        """
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH or schema.keys() & _UNSAID:
            raise _CannotSay
        room.take(1)
        kinds = schema.get("type")
        if isinstance(kinds, list):
            # A list of types is not allowed everywhere in a schema, but anyOf is allowed
            # everywhere.
            each = [
                {"type": kind} if kind == "null" else {**schema, "type": kind} for kind in kinds
            ]
            return {"anyOf": [self.narrowed(one, room, depth + 1) for one in each]}
        if "$ref" in schema:
            return _reference(schema, depth)
        part = self._inside(self._remarked(schema, room), room, depth)
        if part.get("type") == "object":
            return self._closed(part, schema)
        if not part.keys() & {"type", "anyOf", "enum", "const"}:
            raise _CannotSay
        return part

    def _remarked(self, schema: Mapping[str, Any], room: _Room) -> dict[str, Any]:
        """Keep the part of a schema with these keywords, and move the rest into the description."""
        known = self.keywords | {"default"}
        part = {key: value for key, value in schema.items() if key in self.keywords}
        rest = {k: value for k, value in schema.items() if k not in known and k[:1] != "$"}
        if rest:
            remark = json.dumps(rest)
            room.take(len(remark) // 100)
            part["description"] = f"{part.get('description', '')} {remark}".strip()
        return part

    def _inside(self, part: dict[str, Any], room: _Room, depth: int) -> dict[str, Any]:
        for name in {"properties", "$defs"} & part.keys():
            part[name] = {k: self.narrowed(v, room, depth + 1) for k, v in part[name].items()}
        if "items" in part:
            part["items"] = self.narrowed(part["items"], room, depth + 1)
        if "anyOf" in part:
            part["anyOf"] = [self.narrowed(option, room, depth + 1) for option in part["anyOf"]]
        return part

    def _closed(self, part: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
        """Close an object to further keys, unless this would change the schema's meaning."""
        if schema.get("additionalProperties") not in (None, False) or "properties" not in part:
            raise _CannotSay
        if self.all_required:
            optional = part["properties"].keys() - set(part.get("required", ()))
            if any(not _may_be_null(part["properties"][name]) for name in optional):
                raise _CannotSay
            part["required"] = list(part["properties"])
        return part | {"additionalProperties": False}


def _reference(schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Return only the reference, which must lead to the schema's definitions, not to the root."""
    if not depth or not str(schema["$ref"]).startswith("#/$defs/"):
        raise _CannotSay
    return {"$ref": schema["$ref"]}


def _may_be_null(schema: Mapping[str, Any]) -> bool:
    if "anyOf" in schema:
        return any(_may_be_null(option) for option in schema["anyOf"])
    kind = schema.get("type")
    return "null" in (kind if isinstance(kind, list) else [kind])


_OPENAI = _Words(keywords=_COMMON | _CONSTRAINTS, all_required=True)
_ANTHROPIC = _Words(keywords=_COMMON, all_required=False)

"""The types of the providers' parameters, which ``make parameter-types`` writes from their SDKs.

The SDKs declare the parameters of each request form as TypedDicts. Workers need neither the SDKs'
modules of types nor pydantic for them: ``app.llm.parameter_types`` reads the small table that is
written here. A test compares the table with the installed SDKs.
"""

import json
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic
from anthropic.types import message_create_params as messages
from anthropic.types.beta import message_create_params as beta
from openai.types.chat import completion_create_params as chat
from openai.types.responses import response_create_params as responses

from app.domain.protocols import PROTOCOLS
from app.llm.dialect import dialect_of
from app.llm.parameter_types import TABLE

FORMS: Mapping[str, tuple[str, list[Any]]] = {
    "chat": ("openai", [chat.CompletionCreateParamsBase]),
    "messages": ("anthropic", [beta.MessageCreateParamsBase, messages.MessageCreateParamsBase]),
    "responses": ("openai", [responses.ResponseCreateParamsBase]),
}
_SIMPLE = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}


def parameter_types() -> dict[str, dict[str, Any]]:
    """Return the types of all known parameters, by request form and name."""
    found: dict[str, dict[str, Any]] = {}
    for form, (protocol, classes) in FORMS.items():
        hints: dict[str, Any] = {}
        for declared in classes:
            hints |= typing.get_type_hints(declared)
        known = sorted(dialect_of(PROTOCOLS[protocol]).known & hints.keys())
        found[form] = {name: _of(hints[name]) for name in known}
    return found


def written(types: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table as text, one parameter a line."""
    forms = []
    for form, by_name in types.items():
        lines = [f"    {json.dumps(name)}: {json.dumps(type_)}" for name, type_ in by_name.items()]
        forms.append(f"  {json.dumps(form)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(forms) + "\n}\n"


def _of(hint: Any) -> Any:
    schema = pydantic.TypeAdapter(hint).json_schema()
    return _compact(schema, schema.get("$defs", {}))


def _compact(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Any:
    if "$ref" in schema:
        return _compact(defs[schema["$ref"].rpartition("/")[2]], defs)
    if "const" in schema or "enum" in schema:
        return {"values": schema.get("enum") or [schema["const"]]}
    if "anyOf" in schema:
        return _either([_compact(part, defs) for part in schema["anyOf"]])
    if schema.get("type") == "array":
        return {"list": _compact(schema.get("items") or {}, defs)}
    if schema.get("type") == "object":
        return _object(schema, defs)
    return _SIMPLE.get(schema.get("type", ""), "value")


def _object(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Any:
    if "properties" not in schema:
        inner = schema.get("additionalProperties")
        return {"map": _compact(inner, defs)} if isinstance(inner, dict) and inner else "object"
    fields = {name: _compact(part, defs) for name, part in schema["properties"].items()}
    return {"fields": fields, "required": sorted(schema.get("required", ()))}


def _either(parts: list[Any]) -> Any:
    flat = list(_flat(parts))
    unique = [part for place, part in enumerate(flat) if part not in flat[:place]]
    if "text" in unique:  # a text that is also one of some values is any text
        unique = [part for part in unique if not (isinstance(part, dict) and "values" in part)]
    return unique[0] if len(unique) == 1 else {"either": unique}


def _flat(parts: list[Any]) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, dict) and "either" in part:
            yield from part["either"]
        else:
            yield part


if __name__ == "__main__":
    TABLE.write_text(written(parameter_types()), encoding="utf-8")

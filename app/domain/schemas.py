"""The stored form of the schemas that users give as JSON Schemas or as pydantic models."""

from collections.abc import Mapping
from typing import Any


def schema_of(output_schema: Any) -> Any:
    """Return the stored form of an output schema; a pydantic model becomes a JSON Schema.

    The titles that pydantic makes from names are left out: providers bill each title as input, and
    a workflow file with the same schema would have another definition.
    """
    if hasattr(output_schema, "model_json_schema"):
        schema = _without_titles(output_schema.model_json_schema(), output_schema.__name__)
        if parts := schema.get("$defs"):
            schema["$defs"] = {name: _without_titles(part, name) for name, part in parts.items()}
        return schema
    return dict(output_schema) if isinstance(output_schema, Mapping) else output_schema


def _without_titles(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Leave out the titles that repeat the name of a model or the names of its fields."""
    kept: dict[str, Any] = _untitled(schema, name)
    if fields := kept.get("properties"):
        kept["properties"] = {
            field: _untitled(part, field.title().replace("_", " ").strip())
            for field, part in fields.items()
        }
    return kept


def _untitled(schema: Any, title: str) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    return {key: value for key, value in schema.items() if (key, value) != ("title", title)}

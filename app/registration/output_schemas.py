"""JSON Schemas of outputs: checked when a workflow is registered, applied to models' answers.

Patterns are matched in linear time, and no schema is ever fetched: a ``$ref`` stays inside its own
schema.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

from app.domain.suggestions import shortened
from app.errors import WorkflowError

MAX_SCHEMA_BYTES = 100_000


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse a dict that is no JSON Schema.

    Raises:
        WorkflowError: Its message has the problem and its place.
    """
    document = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    if len(document) > MAX_SCHEMA_BYTES:
        raise WorkflowError(f"has {len(document):,} bytes, the limit is {MAX_SCHEMA_BYTES:,}")
    _validator(document)


def find_schema_problem(value: Any, schema: Mapping[str, Any], name: str) -> str | None:
    """Find where and why a value does not fit a schema.

    Args:
        value: A JSON value.
        schema: The schema.
        name: Name of the value, the start of the path.

    Returns:
        Such as ``output.items[0].total: 'x' is not of type "number"``, or None if it fits.
    """
    validator = _validator(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS))
    error = next(iter(validator.iter_errors(value)), None)
    if error is None:
        return None
    return f"{_path(name, error.instance_path)}: {_shown(error.message)}"


@lru_cache(maxsize=256)
def _validator(document: bytes) -> Any:
    try:
        return jsonschema_rs.validator_for(
            orjson.loads(document),
            pattern_options=jsonschema_rs.RegexOptions(),
            retriever=_refuse,
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        place = _path("", getattr(error, "instance_path", ()))
        message = str(error).splitlines()[0]
        raise WorkflowError(
            f"is no JSON Schema{f' at {place}' if place else ''}: {_shown(message)}"
        ) from error


def _refuse(uri: str) -> Any:
    raise ValueError(f"{shortened(uri)} is outside the schema: put it under $defs")


def _path(name: str, parts: Any) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return f"{name}{path}".removeprefix(".")


def _shown(message: str) -> str:
    """Cut the quoted value, which may be megabytes, out of a message; keep both ends."""
    most = 300
    if len(message) <= most:
        return message
    return f"{message[: most // 2]}...{message[-most // 2 :]}"

"""Checks the JSON Schemas of outputs at registration, and applies the schemas to answers.

Patterns are matched in linear time. No schema is ever fetched, because a ``$ref`` must refer to
a part of its own schema.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema_rs

from app.domain.json_text import read_json, write_json
from app.domain.suggestions import shortened
from app.errors import WorkflowError

MAX_SCHEMA_BYTES = 100_000


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse a dict that is not a JSON Schema.

    Raises:
        WorkflowError: If the schema is too long or not valid; the message has the problem and its
            place.
    """
    document = write_json(schema, sort_keys=True)
    if len(document) > MAX_SCHEMA_BYTES:
        raise WorkflowError(f"has {len(document):,} bytes, the limit is {MAX_SCHEMA_BYTES:,}")
    _validator(document)


def find_schema_problem(value: Any, schema: Mapping[str, Any], name: str) -> str | None:
    """Find the first place where a value does not fit a schema, and the reason.

    Args:
        value: A JSON value.
        schema: The schema.
        name: Name of the value; the path begins with this name.

    Returns:
        The problem, such as ``output.items[0].total: 'x' is not of type "number"``, or None if the
        value fits.
    """
    validator = _validator(write_json(schema, sort_keys=True))
    error = next(iter(validator.iter_errors(value)), None)
    if error is None:
        return None
    return f"{_path(name, error.instance_path)}: {_shown(error.message)}"


@lru_cache(maxsize=256)
def _validator(document: bytes) -> Any:
    try:
        return jsonschema_rs.validator_for(
            read_json(document),
            pattern_options=jsonschema_rs.RegexOptions(),
            retriever=_refuse,
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        place = _path("", getattr(error, "instance_path", ()))
        message = str(error).splitlines()[0]
        raise WorkflowError(
            f"is not a JSON Schema{f' at {place}' if place else ''}: {_shown(message)}"
        ) from error


def _refuse(uri: str) -> Any:
    raise ValueError(f"{shortened(uri)} is outside the schema: put it under $defs")


def _path(name: str, parts: Any) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return f"{name}{path}".removeprefix(".")


def _shown(message: str) -> str:
    """Cut out the middle of a long message, because a message can quote megabytes."""
    most = 300
    if len(message) <= most:
        return message
    return f"{message[: most // 2]}...{message[-most // 2 :]}"

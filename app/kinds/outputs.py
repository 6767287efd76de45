"""Turns a function's return value into a JSON value that Postgres can store."""

from typing import Any

import orjson
from pydantic_core import PydanticSerializationError, to_json

from app.domain.json_values import find_json_problem
from app.errors import OutputRefused, ResultTooLarge


def json_output(value: Any, *, agent: str, max_bytes: int) -> Any:
    """Turn an output into a JSON value; a large one takes long, so call this in a thread.

    Args:
        value: JSON values, and values that pydantic can write as JSON: models, dataclasses, dates,
            sets.
        agent: Name of the agent, for messages.
        max_bytes: Largest output, as JSON in UTF-8.

    Returns:
        Dicts, lists, texts, numbers, bools and None; NUL characters are replaced.

    Raises:
        OutputRefused: If the output is no JSON value.
        ResultTooLarge: If the output is too large.
    """
    try:
        # NaN and infinities become words that are no JSON, so that they are refused, not lost.
        encoded = to_json(value, inf_nan_mode="constants")
        if len(encoded) > max_bytes:
            raise ResultTooLarge(
                f"agent {agent!r} returned {len(encoded):,} bytes, the limit is {max_bytes:,}: "
                "return less, or raise engine.max_output_bytes"
            )
        output = orjson.loads(encoded)
    except (PydanticSerializationError, ValueError) as error:
        found = find_json_problem(value, "output")
        problem = " ".join(found) if found else f"output is no JSON value: {error}"
        raise OutputRefused(f"agent {agent!r}: {problem}") from error
    if b"\\u0000" in encoded:
        output = _without_nul(output)
    if found := find_json_problem(output, "output"):
        raise OutputRefused(f"agent {agent!r}: {' '.join(found)}")
    return output


def _without_nul(value: Any) -> Any:
    """Replace NUL, which Postgres cannot store, as in models' answers."""
    if isinstance(value, str):
        return value.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, list):
        return [_without_nul(part) for part in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(part) for key, part in value.items()}
    return value

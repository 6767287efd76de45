"""Turns a function's return value into a JSON value that Postgres can store."""

from typing import Any

from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from app.domain.finite import Finite
from app.domain.json_text import read_json
from app.domain.json_values import find_json_problem
from app.errors import OutputRefused, ResultTooLarge


def json_output(value: Any, *, agent: str, max_bytes: int) -> Any:
    """Turn an output into a JSON value; call this function in a thread, as large outputs take long.

    Args:
        value: A JSON value, or a value that pydantic can write as JSON: a model, a dataclass, a
            date or a set.
        agent: Name of the agent, for messages.
        max_bytes: Largest size of the output in bytes, as JSON in UTF-8.

    Returns:
        Dicts, lists, strings, numbers, bools and None.

    Raises:
        OutputRefused: If the output cannot be written as JSON and kept unchanged. For example,
            Postgres stores neither NUL characters nor halves of surrogate pairs.
        ResultTooLarge: If the output is too large.
    """
    finite = Finite(most=max_bytes)
    try:
        # NaN and infinities become words that are not valid JSON, so that the output is refused and
        # the values are not lost.
        encoded = to_json(finite.value(value), inf_nan_mode="constants")
        if len(encoded) > max_bytes:
            raise ResultTooLarge(
                f"agent {agent!r} returned {len(encoded):,} bytes, the limit is {max_bytes:,}: "
                "return less, or raise engine.max_output_bytes"
            )
        output = read_json(encoded, "output")
    except (PydanticSerializationError, ValueError) as error:
        if finite.is_exceeded:
            raise ResultTooLarge(
                f"agent {agent!r} returned more than {max_bytes:,} parts: return less, or raise "
                "engine.max_output_bytes"
            ) from error
        found = find_json_problem(_as_python(value, max_bytes), "output")
        problem = " ".join(found) if found else f"output is not a JSON value: {error}"
        raise OutputRefused(f"agent {agent!r}: {problem}") from error
    if found := find_json_problem(output, "output"):
        raise OutputRefused(f"agent {agent!r}: {' '.join(found)}")
    return output


def _as_python(value: Any, most: int) -> Any:
    """Return what pydantic makes of a value, so that a message names the part that is refused."""
    try:
        return to_jsonable_python(Finite(most=most).value(value))
    except (PydanticSerializationError, ValueError):
        return value

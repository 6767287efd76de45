"""Checks that a Python value is JSON that Postgres and every worker can keep unchanged."""

import datetime as dt
import decimal
import enum
import math
import pathlib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from app.domain.suggestions import shortened

MAX_DEPTH = 64
MAX_VALUES = 1_000_000
MAX_INTEGER_BITS = 1024
#: Most values and characters of a plain value.
PLAIN_SIZE = 10_000
_SCALARS = (int, float, bool, type(None))
#: A longer path, such as the path of a value that is nested too deeply, is cut.
MAX_PATH_CHARS = 200
REMEDIES: dict[type, str] = {
    enum.Enum: "give its .value",
    decimal.Decimal: "give str(value), which keeps every digit, or float(value)",
    dt.date: "give value.isoformat()",
    dt.time: "give value.isoformat()",
    dt.timedelta: "give value.total_seconds()",
    bytes: "decode it to text, or encode it as base64 text",
    bytearray: "decode it to text, or encode it as base64 text",
    uuid.UUID: "give str(value)",
    pathlib.PurePath: "give str(value)",
    set: "give a list",
    frozenset: "give a list",
    Mapping: "give dict(value)",
}


class _Trail(NamedTuple):
    """The steps to a part of a value; the steps become a path only for an error message."""

    parent: "_Trail | None"
    key: str | int
    depth: int

    def __str__(self) -> str:
        parts = []
        trail: _Trail | None = self
        while trail is not None:
            parts.append(f"[{trail.key}]" if isinstance(trail.key, int) else f".{trail.key}")
            trail = trail.parent
        return "".join(reversed(parts)).lstrip(".")


def find_json_problem(value: Any, name: str) -> tuple[str, str] | None:
    """Find the first part of a value that is not JSON, or that is over a limit.

    Args:
        value: Any Python value; dicts, lists and tuples may be nested up to 64 deep.
        name: Name of the value; the returned path begins with this name.

    Returns:
        Path and problem, such as ``("input.total", "is Decimal('1'), which is not JSON: give
        ...")``, or None if the whole value is JSON.
    """
    return find_part(value, name, _problem, max_values=MAX_VALUES)


def find_part(
    value: Any,
    name: str,
    problem_of: Callable[[Any, int], str | None],
    *,
    max_values: int | None = None,
) -> tuple[str, str] | None:
    """Find the first part of a value that has a problem, in the order of the text.

    Args:
        value: Any Python value; dicts, lists and tuples are looked into.
        name: Name of the value; the returned path begins with this name.
        problem_of: Function that gets a part and its depth, and returns the part's problem, or
            None.
        max_values: Number of parts at which the search ends with a problem.

    Returns:
        Path and problem, or None.
    """
    waiting = [(value, _Trail(None, name, 0))]
    left = max_values or -1
    while waiting:
        part, trail = waiting.pop()
        left -= 1
        problem = problem_of(part, trail.depth) if left else f"is over {max_values:,} values long"
        if problem:
            path = str(trail)
            return path if len(path) <= MAX_PATH_CHARS else f"{path[:MAX_PATH_CHARS]}...", problem
        # The children are reversed, because the last element of ``waiting`` is checked first.
        waiting.extend(
            (child, _Trail(trail, key, trail.depth + 1)) for key, child in reversed(_children(part))
        )
    return None


def plain_json(value: Any) -> Any:
    """Return the JSON form of a value in which ``find_json_problem`` finds no problem.

    Subclasses become what JSON has: a member of a StrEnum becomes a string, and a mapping becomes a
    dict. -0.0 becomes 0.0, because Postgres does not keep its sign. So a value equals its stored
    form, and is accepted wherever JSON is accepted.
    """
    kind = type(value)
    # Nearly all parts have one of these types, and a look at the type costs least.
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if isinstance(value, str):
        # str() of an enum is the text of its value only if the enum is a StrEnum.
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) + 0.0
    if kind is dict or isinstance(value, Mapping):
        return {plain_json(key): plain_json(part) for key, part in value.items()}
    return [plain_json(part) for part in value] if isinstance(value, Sequence) else value


def is_small(value: Any, most: int) -> bool:
    """Return whether a value has at most ``most`` values and characters.

    The count stops as soon as it exceeds the limit.
    """
    waiting = [value]
    size = 0
    while waiting and size <= most:
        part = waiting.pop()
        size += 1
        if isinstance(part, str):
            size += len(part)
        elif isinstance(part, Mapping):
            size += sum(map(len, part))
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            size += len(part)
            waiting.extend(part if size <= most else ())
    return size <= most


def is_plain(value: Any, most: int = PLAIN_SIZE) -> bool:
    """Return whether a value is small and consists of the types of JSON only, without subclasses.

    No code of a user runs while such a value is read, and the reading takes less time than the
    start of a thread.
    """
    waiting, left = [value], most
    while waiting and left > 0:
        part = waiting.pop()
        kind = type(part)
        left -= 1
        if kind is str:
            left -= len(part)
        elif kind is list or kind is tuple:
            left -= len(part)
            waiting.extend(part if left > 0 else ())
        elif kind is dict:
            left -= len(part)
            waiting.extend((*part.keys(), *part.values()) if left > 0 else ())
        elif kind not in _SCALARS:
            return False
    return left > 0


def find_text_problem(value: Any) -> str | None:
    """Return the reason why Postgres cannot store a value as text; None if there is no reason.

    An example of a reason is ``is 5 (int): give a string``.
    """
    if not isinstance(value, str):
        return f"is {shortened(value)} ({type(value).__name__}): give a string"
    if "\0" in value:
        return "contains a NUL character, which Postgres cannot store: remove it"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"contains half a surrogate pair at {error.start}, which is not Unicode: remove it"
    return None


def find_number_problem(number: float) -> str | None:
    """Return the reason why a number is not kept; None if there is no reason.

    Integers may have 1,024 bits. An integer of 1,024 bits is as large as the largest double. NaN
    and the infinities are not JSON.
    """
    if isinstance(number, int):
        if number.bit_length() <= MAX_INTEGER_BITS:
            return None
        return f"is an integer with too many digits (over {MAX_INTEGER_BITS:,} bits): give a string"
    return None if math.isfinite(number) else f"is {number}, which is not JSON: give None"


def _children(part: Any) -> list[tuple[str | int, Any]]:
    if isinstance(part, dict):
        return list(part.items())
    return list(enumerate(part)) if isinstance(part, list | tuple) else []


def _problem(part: Any, depth: int) -> str | None:
    if isinstance(part, dict | list | tuple):
        if depth >= MAX_DEPTH:
            return f"is nested more than {MAX_DEPTH} levels deep, or contains itself"
        return _key_problem(part) if isinstance(part, dict) else None
    if part is None or isinstance(part, bool):
        return None
    if isinstance(part, str | int | float) and not isinstance(part, enum.Enum):
        return find_text_problem(part) if isinstance(part, str) else find_number_problem(part)
    remedy = next((text for kind, text in REMEDIES.items() if isinstance(part, kind)), None)
    return (
        f"is {shortened(part)} ({type(part).__name__}), which is not a JSON value: "
        f"{remedy or 'give a dict, list, string, number, bool or None'}"
    )


def _key_problem(keys: Iterable[Any]) -> str | None:
    for key in keys:
        if not isinstance(key, str):
            return f"has the key {shortened(key)}, not a string: give {shortened(str(key))}"
        if problem := find_text_problem(key):
            return f"has a key that {problem}"
    return None


def as_stored(value: Any) -> Any:
    """Return a JSON value with the keys in the order in which Postgres returns them.

    A ``jsonb`` column orders the keys of an object by their length and then by their bytes.
    """
    if isinstance(value, Mapping):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return {key: as_stored(value[key]) for key in keys}
    if isinstance(value, list | tuple):
        return [as_stored(each) for each in value]
    return value

"""Reads and writes JSON text exactly: the one reader and the one writer for values of users.

``json_values`` says which values are stored. This module says how a value becomes text and how a
text becomes a value, without a change:

- An integer keeps all its digits, up to 1,024 bits. An integer of 1,024 bits is as large as the
  largest double.
- Any other number is the nearest IEEE double. A number that no double can hold, such as 1e400, is
  refused. NaN and Infinity are also refused, because they are not JSON.
- A string is Unicode, so half a surrogate pair is refused.
- If an object has a key twice, the last value counts.

orjson does the work, because it is three times as fast as the standard library. But orjson reads an
integer beyond 64 bits as the nearest double, without a warning. Also, orjson does not write such an
integer. Therefore the standard library reads a text with a long run of digits. The standard library
also reads a text that orjson refuses, and then reports the problem and the place of the problem.
"""

import json
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from app.domain.json_values import MAX_DEPTH, MAX_INTEGER_BITS, find_number_problem, find_part
from app.domain.suggestions import shortened
from app.errors import InvalidJson

#: Keys and values of an object, in the order of the text -> the value that the reader returns.
Pairs = Callable[[list[tuple[str, Any]]], Any]

MAX_DIGITS = len(str(1 << MAX_INTEGER_BITS))
_LEAST_64, _MOST_64 = -(1 << 63), (1 << 64) - 1
#: A double of this size or more is written with an exponent.
_LONG_DOUBLE = 1e16
_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"

# An integer beyond 64 bits has at least 19 digits. If only every sixth byte of the text is kept, at
# least three of these digits follow each other. The first check reads only the kept bytes, because
# this check must cost much less than the reading itself.
_SAMPLE = slice(None, None, 6)
_SAMPLED_RUN = b"000"
_RUN = b"0" * 19
_SHAPES = bytes(
    ord("0") if byte in b"0123456789" else byte if byte in b"." else ord(" ") for byte in range(256)
)


class _Refused(NamedTuple):
    """Stands in a value in place of a part that cannot be kept, until the part's path is known."""

    problem: str


def read_json(text: str | bytes, name: str = "the text", *, pairs: Pairs | None = None) -> Any:
    """Read a JSON text.

    Args:
        text: A string, or bytes in UTF-8. A byte order mark at the beginning is skipped.
        name: Name of the value; the paths in messages begin with this name.
        pairs: Makes the value of each object. With this function, reading is slower.

    Returns:
        Dicts, lists, strings, integers, floats, bools and None. The value may contain NUL
        characters and may be deeper than a stored value: see ``find_json_problem``.

    Raises:
        InvalidJson: If the text is not JSON, or if a part of it cannot be kept exactly; the error
            has the path of that part.

    Example:
        read_json(b'{"id": 18446744073709551617}')  # {'id': 18446744073709551617}
    """
    if pairs is None:
        try:
            encoded = text.encode() if isinstance(text, str) else text
            if encoded[_SAMPLE].translate(_SHAPES).find(_SAMPLED_RUN) < 0 or not _is_long(encoded):
                return orjson.loads(encoded)
        except ValueError:
            # The standard library has a better message, and also reads some texts that orjson
            # refuses.
            pass
    return _read_slowly(text, name, pairs)


def write_json(value: Any, *, sort_keys: bool = False, indent: bool = False) -> bytes:
    """Write a value as JSON in UTF-8.

    Args:
        value: A JSON value in which ``find_json_problem`` finds no problem. orjson would write NaN
            as null. Dates, UUIDs, enums and dataclasses are written in the way of orjson.
        sort_keys: Whether to sort the keys of objects.
        indent: Whether to write each value on its own line, with two spaces for each level.

    Raises:
        InvalidJson: If a part of the value has no JSON form.
    """
    option = _option(sort_keys=sort_keys, indent=indent)
    try:
        return orjson.dumps(value, option=option)
    except TypeError:
        return _write_slowly(value, option, doubles=False)


def write_jsonb(value: Any, *, sort_keys: bool = False) -> str:
    """Write a value as JSON for Postgres, so that a ``jsonb`` column returns the value unchanged.

    A ``jsonb`` column stores 1e+23 as 100000000000000000000000. This number comes back as an
    integer that does not even equal 1e+23. A ``jsonb`` column keeps a decimal point. Therefore
    large doubles are written with all their digits and ``.0``. Only the sign of -0.0 is lost.

    Raises:
        InvalidJson: If a part of the value has no JSON form.
    """
    option = _option(sort_keys=sort_keys)
    try:
        document = orjson.dumps(value, option=option)
    except TypeError:
        return _write_slowly(value, option, doubles=True).decode()
    # The search for one character costs nearly nothing, so it comes first.
    if b"+" in document and b"e+" in document:
        document = _write_slowly(value, option, doubles=True)
    return document.decode()


def _is_long(encoded: bytes) -> bool:
    """Return whether a text has a run of 19 digits that does not follow a decimal point."""
    shapes = encoded.translate(_SHAPES)
    return _RUN in shapes and (shapes.startswith(_RUN) or b" " + _RUN in shapes)


def _read_slowly(text: str | bytes, name: str, pairs: Pairs | None) -> Any:
    try:
        value = json.loads(
            (text if isinstance(text, str) else text.decode()).removeprefix(_BOM),
            object_pairs_hook=pairs,
            parse_int=_integer,
            parse_float=_double,
            parse_constant=lambda word: _Refused(f"is {word}, which is not JSON: write null"),
        )
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte 0x{error.object[error.start]:02x} at {error.start:,})"
        raise InvalidJson(name, problem) from error
    except json.JSONDecodeError as error:
        problem = f"is not valid JSON: {error.msg}"
        raise InvalidJson(name, problem, line=error.lineno, column=error.colno) from error
    except RecursionError as error:
        raise InvalidJson(name, "is nested too deeply: use fewer levels") from error
    if found := find_part(value, name, _unreadable):
        raise InvalidJson(*found)
    return value


def _integer(digits: str) -> Any:
    # Python refuses to convert much longer integers, because the conversion takes quadratic time.
    number = int(digits) if len(digits) <= MAX_DIGITS + 1 else 1 << (MAX_INTEGER_BITS + 1)
    problem = find_number_problem(number)
    return _Refused(problem) if problem else number


def _double(digits: str) -> Any:
    number = float(digits)
    return number if math.isfinite(number) else _Refused("is too large a number: give a string")


def _unreadable(part: Any, _depth: int) -> str | None:
    if isinstance(part, _Refused):
        return part.problem
    if isinstance(part, dict):
        return next(
            (f"has a key that {problem}" for problem in map(_half_pair, part) if problem), None
        )
    return _half_pair(part) if isinstance(part, str) else None


def _half_pair(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"contains half a surrogate pair at {error.start}, which is not Unicode: remove it"
    return None


def _option(*, sort_keys: bool, indent: bool = False) -> int:
    return (orjson.OPT_SORT_KEYS if sort_keys else 0) | (orjson.OPT_INDENT_2 if indent else 0)


def _write_slowly(value: Any, option: int, *, doubles: bool) -> bytes:
    try:
        return orjson.dumps(_with_digits(value, doubles=doubles), option=option)
    except (TypeError, RecursionError) as error:
        found = find_part(value, "the value", _unwritable)
        raise InvalidJson(*found or ("the value", f"has no JSON form: {error}")) from error


def _with_digits(value: Any, *, doubles: bool) -> Any:
    """Return a copy in which JSON text replaces each number that orjson does not write exactly."""
    if isinstance(value, dict):
        return {key: _with_digits(part, doubles=doubles) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_digits(part, doubles=doubles) for part in value]
    if isinstance(value, int) and not _LEAST_64 <= value <= _MOST_64:
        if problem := find_number_problem(value):
            raise TypeError(problem)
        return orjson.Fragment(str(int(value)))
    if isinstance(value, float) and type(value) is not float:
        value = float(value)  # such as a number of NumPy, which orjson refuses
    if doubles and isinstance(value, float) and _LONG_DOUBLE <= abs(value) < math.inf:
        return orjson.Fragment(f"{Decimal(repr(float(value))):f}.0")
    return value


def _unwritable(part: Any, depth: int) -> str | None:
    if depth > MAX_DEPTH:
        return "is nested too deeply, or contains itself"
    if isinstance(part, int | float):
        return find_number_problem(part)
    if isinstance(part, dict) and (key := next((k for k in part if not isinstance(k, str)), None)):
        return f"has the key {shortened(key)}, not a string: give {shortened(str(key))}"
    return _unreadable(part, depth)

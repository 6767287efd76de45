"""Reads what servers send: JSON that is almost JSON, and text in pieces.

Servers add a byte order mark, write NaN, or cut a character into parts. Such an answer is still
usable, because its text and counts can be read all the same.

A character can be cut in two ways: into the halves of a surrogate pair, and into the bytes of
UTF-8. A byte without the rest of its character is read as one of the surrogates U+DC80 to U+DCFF
(PEP 383). Therefore the parts of a text can be put together in both cases.
"""

import contextlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import orjson

from app.domain.usage import SERVED, either

#: Exceptions that the code raises when it reads an answer that does not follow the protocol.
PROTOCOL_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
#: The byte order mark, which some servers send before an answer.
BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")
# Python joins the parts of characters one by one, in which time no other thread runs.
_MOST_PARTS_OF_CHARACTERS = 100_000
# The bytes of a character, each read as a surrogate. After the first half of a pair, such a
# surrogate is the second half.
_BYTES = re.compile(
    "(?<![\ud800-\udbff])(?:[\udcc2-\udcdf][\udc80-\udcbf]|[\udce0-\udcef][\udc80-\udcbf]{2}"
    "|[\udcf0-\udcf4][\udc80-\udcbf]{3})"
)
_BYTE = re.compile("[\udc80-\udcff]")
# The beginning of a character whose rest has not arrived.
_BEGUN = re.compile(
    "(?:[\ud800-\udbff]|[\udcc2-\udcf4]|[\udce0-\udcf4][\udc80-\udcbf]"
    "|[\udcf0-\udcf4][\udc80-\udcbf]{2})\\Z"
)
# orjson rounds integers of more than 64 bits; the shortest such integers have 19 digits.
_LONG_NUMBER = re.compile(rb"\d{19}")
# A document with more values takes seconds, and up to 20 times its bytes.
_MOST_VALUES = 1_000_000
_SIGNS = b",[{"
# A longer integer is no count. Python needs quadratic time to read it.
_MOST_DIGITS = 400
_VERY_LONG_NUMBER = re.compile(rb"\d{%d}" % _MOST_DIGITS)
# More tokens than any call has; a larger number is no count.
_MOST_TOKENS = 10**9
_NUMBER = re.compile(r"\d{1,10}(?:\.\d{1,20})?", re.ASCII)
# These parts of the prompt cost less than the rest. Counts with these spellings are always parts of
# the prompt. Anthropic counts cached tokens beside the prompt with the names in ``_READ``; some
# other servers count a part of the prompt with these names.
_DISCOUNTS = frozenset(
    {
        *("cached_tokens", "prompt_cache_hit_tokens", "num_cached_tokens", "cached_input_tokens"),
        *("cachedTokens", "cachedInputTokens", "cachedContentTokenCount"),
    }
)
_READ = frozenset({"cache_read_input_tokens", "cacheReadInputTokens"})
# Bounds of a value that is only kept for the record.
_MAX_DEPTH, _MAX_PARTS, _MAX_CHARS, _MOST = 8, 100, 500, 10**18


class NotTheProtocol(Exception):
    """The answer, or an event of its stream, does not follow the provider's protocol."""


class ErrorEvent(Exception):
    """The stream has an event that reports a failure; ``body`` is the event."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__("the stream reports a failure")
        self.body = body


def read_json(content: bytes) -> Any:
    """Read the JSON of a server: integers stay exact; what is no number becomes null.

    NaN, the infinities and integers of over 400 digits are no numbers.

    A byte that is not UTF-8 is read as a surrogate, see the module.

    Raises:
        ValueError: If the content is not JSON, or has too many values.
    """
    content = content.removeprefix(BOM)
    if len(content) > _MOST_VALUES and _signs_in(content) > _MOST_VALUES:
        raise ValueError(f"the document has over {_MOST_VALUES:,} values")
    if not _LONG_NUMBER.search(content):
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(content)
    # The standard library is slower, but reads big integers, NaN and parts of characters.
    text = joined([content.decode("utf-8", "surrogateescape")])
    integer = _short_integer if _VERY_LONG_NUMBER.search(content) else None
    return json.loads(text, parse_constant=lambda _: None, parse_int=integer, strict=False)


def _signs_in(content: bytes) -> int:
    """Return the number of signs before values; a text in the content may have such signs, too."""
    return len(content) - len(content.translate(None, _SIGNS))


def _short_integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MOST_DIGITS else None


def write_json(value: Any) -> str:
    """Write a value that ``read_json`` has read."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # an integer of more than 64 bits, or half a surrogate pair
        return json.dumps(legible(value), separators=(",", ":"))


def joined(pieces: Iterable[str]) -> str:
    """Join pieces of a text, and the parts of characters that were cut between two pieces.

    A part of a character without its other parts stays as it is, because they may follow.

    Raises:
        ValueError: If the text has over 100,000 parts of characters.
    """
    text = "".join(pieces)
    if text.isascii() or not _SURROGATE.search(text):
        return text
    found = islice(_SURROGATE.finditer(text), _MOST_PARTS_OF_CHARACTERS + 1)
    if sum(1 for _ in found) > _MOST_PARTS_OF_CHARACTERS:
        raise ValueError(f"a text has over {_MOST_PARTS_OF_CHARACTERS:,} parts of characters")
    text = _BYTES.sub(_decoded, text)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _decoded(found: re.Match[str]) -> str:
    content = found[0].encode("utf-8", "surrogateescape")
    try:
        # Servers that write the halves of a surrogate pair as UTF-8 mean the halves.
        return content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return found[0]


def split_begun(text: str) -> tuple[str, str]:
    """Return a text without the part of a character at its end, and this part."""
    found = None if text.isascii() else _BEGUN.search(text)
    return (text[: found.start()], found[0]) if found else (text, "")


def legible(value: Any) -> Any:
    """Return a value of a server in which U+FFFD stands for each byte that is not UTF-8.

    Args:
        value: A text, or a value that ``read_json`` has read.
    """
    if isinstance(value, str):
        return value if value.isascii() else _BYTE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {legible(key): legible(part) for key, part in value.items()}
    if isinstance(value, list):
        return [legible(part) for part in value]
    return value


def error_in(value: Any) -> Any:
    """Return an error that an answer has, or None if the error says nothing at all."""
    if isinstance(value, dict):
        return value if any(part for part in value.values()) else None
    return value or None


def list_in(value: Any) -> list[Any]:
    """Return a list that an answer has, or an empty list if the value is no list."""
    return value if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """Return a string of an answer, or an empty string for null.

    Raises:
        TypeError: If the value is neither a string nor null.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a string is expected")
    return value


def content_text(content: Any) -> str:
    """Return the text of a message's content: a string, or the text parts of a list.

    Parts of other types, such as thinking, are no text of the answer. If a request asks for JSON,
    some servers give a value and not a text; the text is then this value, written as JSON.
    """
    if content is None or isinstance(content, str):
        return joined([content or ""])
    if isinstance(content, list):
        return joined(_part_text(part) for part in content)
    return write_json(content)


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        return ""
    text = part.get("text")
    is_text = part.get("type") in (None, "text", "output_text")
    return text if is_text and isinstance(text, str) else ""


def grown(old: Any, new: Any) -> Any:
    """Merge two reports of the same counts; totals never shrink, and other values are ignored.

    A count of cached tokens is a discount, so the smaller count decides. If the reports tell
    several values of a fact that changes the price, all of these values are kept.

    Example:
        >>> grown({"output": 17, "input": 9}, {"output": 0, "input": None})
        {'output': 17, 'input': 9}
    """
    if new is None:
        return old
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _next(key, old.get(key), value) for key, value in new.items()}}
    if isinstance(old, dict):
        return old
    if isinstance(old, list):
        return new if isinstance(new, list) and len(new) >= len(old) else old
    before, after = _number(old), _number(new)
    return new if before is None or (after is not None and after > before) else old


def _next(name: str, old: Any, new: Any) -> Any:
    if name in SERVED:
        return either(old, new)
    if name in _DISCOUNTS:
        before, after = _number(old), _number(new)
        if before is not None and after is not None:
            return new if after < before else old
    return grown(old, new)


def tells_discount(usage: Mapping[str, Any]) -> bool:
    """Return whether a usage has a count of cached tokens, also if the count is zero."""
    return any(
        tells_discount(value)
        if isinstance(value, dict)
        else name in _DISCOUNTS | _READ and _number(value) is not None
        for name, value in usage.items()
    )


def count_of(value: Any) -> int | None:
    """Return a number of tokens, or None if the value is no number of tokens.

    Some servers write a count as 12.0, as "12", or as an average; an average is rounded up.

    Example:
        >>> [count_of(value) for value in (12, 12.5, "12", -1, True, None)]
        [12, 13, 12, None, None, None]
    """
    number = _number(value)
    return None if number is None else math.ceil(number)


def _number(value: Any) -> float | None:
    """Return the number in a count or in a text of digits; return None for all other values."""
    if isinstance(value, str):
        text = value.strip()
        value = float(text) if _NUMBER.fullmatch(text) else None
    return value if _is_number(value) and 0 <= value <= _MOST_TOKENS else None


def storable(value: Any, depth: int = 0) -> Any:
    """Return the part of a server's value that every database can store, for the record only.

    Numbers that are not finite, and values that are nested deeply, are left out; long texts are
    cut.
    """
    if isinstance(value, str):
        return printable(value)
    if depth < _MAX_DEPTH and isinstance(value, dict):
        return {printable(key): storable(part, depth + 1) for key, part in value.items()}
    if depth < _MAX_DEPTH and isinstance(value, list):
        return [storable(part, depth + 1) for part in value[:_MAX_PARTS]]
    if isinstance(value, bool) or value is None:
        return value
    return value if _is_number(value) and abs(value) < _MOST else None


def printable(text: str) -> str:
    """Return a short text of a server without NUL and without halves of surrogate pairs."""
    if len(text) <= _MAX_CHARS and text.isascii() and "\0" not in text:
        return text
    cleaned = text[:_MAX_CHARS].encode("utf-8", "replace").decode()
    return cleaned.replace("\0", "\N{REPLACEMENT CHARACTER}")


def name_of(value: Any) -> str | None:
    """Return a name that a server gives, such as a model's name; None if there is no name.

    A value that is no text is told, too. It is the name of no model, but names may stand in it.

    Example:
        >>> name_of(["gpt-4"])
        "['gpt-4']"
    """
    if not value:
        return None
    return printable(value if isinstance(value, str) else str(storable(value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

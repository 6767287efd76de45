"""Makes values of providers and tools fit to be sent, so that no answer ends its conversation.

Answers may have parts that JSON's text in UTF-8 cannot carry, such as half a surrogate pair. The
user cannot correct these parts. Values of the user do not come here: a mistake in a user's value is
refused with a message, see ``app.domain.json_text``.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import orjson

from app.llm.base import ToolCall

T = TypeVar("T")

_SURROGATE = re.compile("[\ud800-\udfff]")
_LEAST_64, _MOST_64 = -(1 << 63), (1 << 64) - 1
# orjson writes 254 levels. A body has fewer than eight levels around a part of a message.
_MOST_LEVELS = 200


def sendable(value: T) -> T:
    r"""Convert a value from a provider or from a tool to a form that can be written.

    Half a surrogate pair becomes U+FFFD, integers keep all their digits, and a value that is more
    than 200 levels deep becomes null.

    Args:
        value: Dicts, lists, strings, numbers, bools, None and ToolCalls. The value itself is not
            changed.

    Returns:
        The same object if nothing has to change; otherwise a copy, for ``orjson.dumps`` only.

    Example:
        >>> sendable({"content": "half \ud83d"}) == {"content": "half \N{REPLACEMENT CHARACTER}"}
        True
    """
    try:
        # It is much faster to write the value than to look into it.
        orjson.dumps([[[[[[[[value]]]]]]]])
    except TypeError:
        return _copied(value, 0)  # type: ignore[no-any-return]
    return value


def _copied(part: Any, depth: int) -> Any:
    if isinstance(part, ToolCall):
        part = asdict(part)
    match part:
        case str():
            return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", part)
        case int() if not _LEAST_64 <= part <= _MOST_64:
            return orjson.Fragment(str(part))
        case Mapping() | list() | tuple() if depth >= _MOST_LEVELS:
            return None
        case Mapping():
            return {_copied(key, depth): _copied(inner, depth + 1) for key, inner in part.items()}
        case list() | tuple():
            return [_copied(inner, depth + 1) for inner in part]
    return part

"""Finds the JSON value in a model's text, also among thoughts, fences and prose.

The rules never guess. If two values could be taken from a text, the text has no value. A text also
has no value if the only value in it may be a part of a broken value.
"""

import json
import re
from collections.abc import Iterator

# The tag that opens the thoughts may be missing, because some servers put this tag into the prompt.
# A text that begins like JSON or like a fence has no thoughts before it.
_THOUGHTS = re.compile(
    r"(?![{\[\"`~]).*?</think(?:ing)?>\s*(?:<think(?:ing)?>.*?</think(?:ing)?>\s*)*",
    re.DOTALL | re.IGNORECASE,
)
_UNENDED_THOUGHTS = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_LANGUAGE = re.compile(r"[ \t]*json[a-z0-9]*(?=[\s{\[\"])", re.IGNORECASE)
_OPENING = re.compile(r"[{\[]")
#: The beginning of an object or a list that can only be JSON, and not a bracket of prose.
_LIKE_JSON = re.compile(r"""\{\s*["'}]|\[\s*(?:["'\[\]{\d-]|(?:true|false|null)\b)""")
_BRACKETS = {"{": re.compile(r"[{}]"), "[": re.compile(r"[\[\]]")}


def bare_json(text: str) -> str:
    r"""Return a text without the thoughts before it and the Markdown fence around it.

    Example:
        bare_json("<think>Two?</think>```JSON\n[2]\n```")  # '[2]'
    """
    bare = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").strip()
    if thoughts := _THOUGHTS.match(bare):
        bare = bare[thoughts.end() :]
    fence = bare[:3]
    if fence in ("```", "~~~") and bare.endswith(fence):
        inside = bare.strip(fence[0])
        language = _LANGUAGE.match(inside)
        bare = inside[language.end() if language else 0 :].strip()
    return bare


def json_in_prose(text: str, kinds: str) -> str | None:
    """Return the text of the only JSON object or list that stands among prose.

    Args:
        text: A text without thoughts before it.
        kinds: ``{`` if an object is wanted, ``[`` if a list is wanted, or both. Values of the other
            kind, such as the ``[1]`` of a footnote, are prose.

    Returns:
        The text of the value; None if there is no value, if there are several values, or if a part
        of the text looks like JSON but is not JSON.

    Example:
        json_in_prose('The total is {"total": 5}, see [1].', "{")  # '{"total": 5}'
    """
    if _UNENDED_THOUGHTS.match(text):
        return None
    found = list(_pieces(text))
    if None in found:
        return None
    wanted = [piece for piece in found if piece and piece[0] in kinds]
    return wanted[0] if len(wanted) == 1 else None


def _pieces(text: str) -> Iterator[str | None]:
    """Yield the JSON values among prose; yield None at a place that cannot be understood."""
    decoder = json.JSONDecoder()
    position = 0
    while opening := _OPENING.search(text, position):
        start = opening.start()
        try:
            # The value itself is of no interest here, because ``read_json`` reads the value
            # exactly.
            _, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = None if _LIKE_JSON.match(text, start) else _closing(text, start)
            if end is None:
                yield None
                return
            position = end
        else:
            yield text[start:position]


def _closing(text: str, start: int) -> int | None:
    """Return the end of a bracket of prose; the text inside the bracket is not examined."""
    depth = 0
    for bracket in _BRACKETS[text[start]].finditer(text, start):
        depth += 1 if bracket.group() == text[start] else -1
        if not depth:
            return bracket.end()
    return None

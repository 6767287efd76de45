"""The names of models: which name is a snapshot of a model, and which models a name contains.

The published list of prices recognises many names by their beginning only. So the list would give
a variant, such as ``claude-opus-4-6-fast``, the price of the plain model. Here a name is only
recognised if everything behind the name of the model is a date or a revision.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

_MONTH, _DAY = "(?:0[1-9]|1[0-2])", "(?:[0-2][0-9]|3[01])"
# 20250929, 2025-09-29, 09-29, 09-2025, 2509 (September 2025), 0929 (29 September), and 001.
_DATE = (
    f"(?:20[0-9]{{2}}(?:{_MONTH}{_DAY}|-{_MONTH}-{_DAY})|{_MONTH}-{_DAY}|{_MONTH}-20[0-9]{{2}}"
    f"|2[0-9]{_MONTH}|{_MONTH}{_DAY}|00[0-9])"
)
# The revisions -v1, -v1:0 and :0 are those of Bedrock, -v2@20241022 is that of Vertex.
_SNAPSHOT = re.compile(
    f"[-@:_]{_DATE}(?:-v[0-9](?::[0-9])?)?|-v[0-9]@{_DATE}|[-@:_]latest|-v[0-9]:[0-9]|-v1|:[0-9]"
)
# The sizes and the training of open models, such as -27b-it; one price of the list may cover them.
_SIZE = re.compile(r"(?:-?(?:e|a|[0-9]{1,2}x)?[0-9]{1,4}(?:\.[0-9])?b)+(?:-it|-instruct)?")
# Behind the model of a fine-tuned name, all parts are names that the account has chosen.
_FINE_TUNED = re.compile(r"(ft:[^:]+):.*|(.*\.ft-).*", re.DOTALL)
# Behind the name of a model, a small number makes the name of a later version, as in gpt-5.4.
_NEXT_VERSION = re.compile("[.-][1-9][0-9]?(?![0-9])")
_CUT_DATE = re.compile("[-@][0-9]*$")
_SEPARATORS = "/.:"
# A provider may answer with a name of any length.
_MAX_CHARS = 500


class Literal(NamedTuple):
    """A text by which the price list recognises the names of a model.

    Attributes:
        how: ``equals``, ``starts``, ``ends``, ``contains`` or ``regex``.
        text: The text, in lower case, or the regular expression.
    """

    how: str
    text: str


def snapshot_of(name: str, model: str) -> bool:
    """Return whether a name is a snapshot of a model: the model's name and a date or ``latest``.

    Example:
        >>> snapshot_of("gpt-5-2025-08-07", "gpt-5"), snapshot_of("gpt-5-fast", "gpt-5")
        (True, False)
    """
    name, model = name.lower(), model.lower()
    return name.startswith(model) and _SNAPSHOT.fullmatch(name, len(model)) is not None


def recognises(literals: Iterable[Literal], name: str) -> bool:
    """Return whether a name is one of a model's names, or a snapshot of the model.

    Args:
        literals: The texts by which the list recognises the model. The list has already found this
            model for the name.
        name: A name of a model, as a request or an answer writes it.
    """
    name = name.lower()
    if len(name) > _MAX_CHARS:
        return False
    if fine_tuned := _FINE_TUNED.fullmatch(name):
        name = fine_tuned[1] or fine_tuned[2]
    return any(_covers(literal, name) for literal in literals)


def named_in(literals: Iterable[Literal], name: str) -> bool:
    """Return whether a name contains the name of a model, at the borders of words."""
    name = name.lower()[:_MAX_CHARS]
    return any(
        literal.how != "regex" and is_part(literal.text.rstrip("-@"), name) for literal in literals
    )


def is_part(text: str, name: str) -> bool:
    """Return whether a text stands in a name, and neither begins nor ends inside a word.

    Example:
        >>> [is_part("gpt-5", name) for name in ("openai/gpt-5", "gpt-5-fast", "gpt-5.4", "gpt-5o")]
        [True, True, False, False]
    """
    start = name.find(text) if text else -1
    while start >= 0:
        end = start + len(text)
        inside = start > 0 and name[start - 1].isalnum()
        if not (inside or name[end : end + 1].isalnum() or _NEXT_VERSION.match(name, end)):
            return True
        start = name.find(text, start + 1)
    return False


def literals_of(id_: str, match: Any) -> list[Literal]:
    """Return the texts of a condition of the price list, and the list's own name of the model."""
    return [Literal("equals", id_.lower()), *_leaves(match)]


def _leaves(match: Any) -> Iterator[Literal]:
    for several in ("or_", "and_"):
        for part in getattr(match, several, ()):
            yield from _leaves(part)
    names = {
        "equals": "equals",
        "starts_with": "starts",
        "ends_with": "ends",
        "contains": "contains",
        "regex": "regex",
    }
    for attribute, how in names.items():
        if (text := getattr(match, attribute, None)) is not None:
            yield Literal(how, text if how == "regex" else text.lower())


def _covers(literal: Literal, name: str) -> bool:
    how, text = literal
    if how == "regex":
        # An expression with an end describes the whole name.
        return text.endswith("$") and re.search(text, name) is not None
    at = 0 if how in ("equals", "starts") else name.rfind(text)
    if at < 0 or not name.startswith(text, at) or (at and name[at - 1] not in _SEPARATORS):
        return False
    end = at + len(text)
    if how in ("equals", "ends"):
        return end == len(name) or _SNAPSHOT.fullmatch(name, end) is not None
    cut = _CUT_DATE.search(text)
    ends = [end] if cut is None else [end, at + cut.start()]
    return end == len(name) or any(
        pattern.fullmatch(name, place) for place in ends for pattern in (_SNAPSHOT, _SIZE)
    )

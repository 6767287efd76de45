"""Joins the pieces in which servers stream a message: its calls of tools, and its other parts."""

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from app.llm.wire import joined

# Texts that are not pieces: each chunk repeats them.
_REPEATED = frozenset({"role", "type", "id", "index", "name", "format"})
# The fields that tell the elements of a list apart.
_NAMING = ("type", "index", "id")
# Types of elements that come in pieces.
_TEXT_TYPE = re.compile("text|think|reason|summary")


class Call:
    """A tool call, of which parts have arrived."""

    def __init__(self) -> None:
        self.name = ""
        self.arguments: list[str] = []
        self.rest: dict[str, Any] = {}

    @property
    def is_whole(self) -> bool:
        """Whether the arguments so far are a whole JSON object."""
        return _object("".join(self.arguments)) is not None

    def add_name(self, name: str) -> str:
        """Add a piece of the name; return what is new. Some servers repeat the name in each part.

        The name is whole when the arguments begin.
        """
        if self.arguments or name == self.name:
            return ""
        new = name.removeprefix(self.name)  # some servers repeat what they have sent so far
        self.name += new
        return new

    def whole(self) -> dict[str, Any]:
        """Return the call in the form of an answer that is not streamed."""
        return {**self.rest, "function": {"name": self.name, "arguments": self._arguments()}}

    def _arguments(self) -> str:
        """Return the arguments, which some servers send again, as a whole or with each piece."""
        pieces = self.arguments
        if len(pieces) > 1 and pieces[0].strip() == "{}":
            pieces = pieces[1:]  # some servers send empty arguments before the real ones
        if len(pieces) < 2 or self.is_whole or _object(pieces[-1]) is None:  # noqa: PLR2004
            return joined(pieces)
        *before, last = pieces
        grows = all(later.startswith(piece) for piece, later in pairwise(pieces))
        repeats = _object(joined(before)) == _object(last)
        return joined([last]) if grows or repeats else joined(pieces)


def _object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text is, or None."""
    try:
        value = json.loads(text)
    except (RecursionError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def index_of(part: Mapping[str, Any]) -> Any:
    """Return the index of a part of a call; some servers write it as a text."""
    index = part.get("index")
    return int(index) if isinstance(index, str) and index.isdecimal() else index


def continued(old: Any, new: Any) -> Any:
    """Join a part of a message with its next piece.

    Texts are joined, objects are merged, and an element of a list continues an earlier element with
    its index or id, or, if it has neither, the element just before it.
    """
    if isinstance(new, list):
        old = [] if old is None else old
    if old is None or new is None:
        return new if old is None else old
    if isinstance(old, str) and isinstance(new, str):
        return joined([old, new])
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{key: next_part(key, old.get(key), value) for key, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        elements = list(old)
        for position, element in enumerate(new):
            place = _place_of(element, elements, is_first=position == 0)
            if place is None:
                elements.append(element)
            else:
                elements[place] = continued(elements[place], element)
        return elements
    return new


def next_part(key: str, old: Any, new: Any) -> Any:
    """Join a field of a part of a message with the same field of its next piece."""
    if key == "signature" and new:  # it signs the whole text, so the last one holds
        return new
    if key in _REPEATED:
        return new if old in (None, "") else old
    return continued(old, new)


def _place_of(element: Any, elements: list[Any], *, is_first: bool) -> int | None:
    """Return the place of the element that an element of a chunk continues, or None.

    Servers send the pieces of several elements in turns, so the index and the id decide.

    Args:
        element: The element.
        elements: The elements so far.
        is_first: Whether the element is the first one of its chunk.
    """
    if not isinstance(element, Mapping):
        return None
    places = list(range(len(elements)))
    if element.get("index") is None and not element.get("id"):
        # Only a text can go on without a name; two images are two images.
        is_text = _TEXT_TYPE.search(str(element.get("type"))) is not None
        places = places[-1:] if is_first and is_text else []
    return next((place for place in reversed(places) if _is_same(elements[place], element)), None)


def _is_same(old: Any, new: Mapping[str, Any]) -> bool:
    """Return whether nothing tells two elements apart."""
    return isinstance(old, Mapping) and all(
        old.get(name) in (None, "") or new.get(name) in (None, "", old[name]) for name in _NAMING
    )

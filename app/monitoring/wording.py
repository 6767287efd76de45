"""Dollars, durations and names as parts of sentences."""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal

from app.domain.money import dollars

#: An element of a list in a path: the last index, such as 20 in ``handled[20]/draft``.
ELEMENT = re.compile(r"(.*)\[(\d+)\](.*)", re.DOTALL)


def money(amount: Decimal) -> str:
    """Write dollars in a sentence, with at most six decimals."""
    return dollars(amount, most=6)


def seconds_of(seconds: float) -> str:
    """Write a duration in a sentence: ``1.2 s``, ``3 min``, ``5.1 h``."""
    if seconds < 100:  # noqa: PLR2004  until minutes read better
        return f"{seconds:.1f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def names(all_names: Iterable[str], most: int = 5) -> str:
    """Write names in a sentence; the elements of a list share one name.

    Args:
        all_names: Names of agents, or paths of agent runs such as ``handled[20]/draft``.
        most: Maximum number of names and of series of elements; further names are only counted.

    Example:
        >>> names(["a", "b[0]", "b[1]", "b[2]", "b[7]"])
        'a, b[0-2, 7]'
    """
    unique = list(dict.fromkeys(all_names))
    shown: list[str] = []
    room, hidden = most, len(unique)
    for (head, tail), indices in _by_list(unique).items():
        if room <= 0:
            break
        series = _series(indices)[:room]
        if tail is not None:
            inside = ", ".join(_interval(first, last) for first, last in series)
            shown.append(f"{head}[{inside}]{tail}")
        else:
            shown.append(head)
        room -= max(len(series), 1)
        hidden -= sum(last - first + 1 for first, last in series) if series else 1
    text = ", ".join(shown)
    return f"{text} and {hidden:,} more" if hidden else text


def _by_list(unique: Sequence[str]) -> dict[tuple[str, str | None], list[int]]:
    """Group paths that differ only in their last index; a path without an index has no tail."""
    found: dict[tuple[str, str | None], list[int]] = {}
    for name in unique:
        match = ELEMENT.fullmatch(name)
        head, tail = (match[1], match[3]) if match else (name, None)
        indices = found.setdefault((head, tail), [])
        if match:
            indices.append(int(match[2]))
    return found


def _series(indices: Iterable[int]) -> list[tuple[int, int]]:
    """Divide indices into series of consecutive indices, each with its first and last index."""
    found: list[tuple[int, int]] = []
    for index in sorted(indices):
        if found and index == found[-1][1] + 1:
            found[-1] = found[-1][0], index
        else:
            found.append((index, index))
    return found


def _interval(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"

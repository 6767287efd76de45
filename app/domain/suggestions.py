"""What a message says about a name that is not known: the nearest known one, or the known ones."""

import difflib
import itertools
from collections.abc import Iterable

MAX_WORD_CHARS = 100
MAX_WORDS_COMPARED = 10_000
MAX_WORDS_SHOWN = 20


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown word.

    Args:
        word: What was written.
        known: What could have been meant.

    Returns:
        ``; did you mean 'x'?``, or an empty string when nothing is near.
    """
    # Not at any length and number: comparing two words is quadratic.
    compared = itertools.islice(known, MAX_WORDS_COMPARED)
    by_lower = {name.lower(): name for name in compared if len(name) <= MAX_WORD_CHARS}
    near = difflib.get_close_matches(word[:MAX_WORD_CHARS].lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def listed(words: Iterable[str]) -> str:
    """Words as a message lists them: quoted, the first twenty, or ``none``."""
    names = list(words)
    shown = ", ".join(shortened(name) for name in names[:MAX_WORDS_SHOWN])
    more = len(names) - MAX_WORDS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown or "none"


def shortened(value: object) -> str:
    """The ``repr`` of a value, cut to a length that fits a line."""
    # A long text is cut before it is quoted, so that a megabyte is not copied for sixty characters.
    if isinstance(value, str) and len(value) > MAX_WORD_CHARS:
        return f"{value[: MAX_WORD_CHARS - 1]!r}..."
    text = repr(value)
    return text if len(text) <= MAX_WORD_CHARS else f"{text[: MAX_WORD_CHARS - 3]}..."

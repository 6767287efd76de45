"""Parts of messages about an unknown name: the nearest known name, or all known names."""

import difflib
import itertools
from collections import Counter
from collections.abc import Iterable

MAX_WORD_CHARS = 100
MAX_WORDS_COMPARED = 10_000
MAX_WORDS_SHOWN = 20
#: If two words have at least this similarity (0 to 1), one word is surely a mistyped form of the
#: other word.
MISTYPED = 0.8
MIN_PREFIX_CHARS = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message about an unknown word.

    Args:
        word: The unknown word.
        known: The known words.

    Returns:
        ``; did you mean 'x'?``, or an empty string if no known word is near.
    """
    # The words' length and number are limited, because a comparison of words takes quadratic time.
    compared = itertools.islice(known, MAX_WORDS_COMPARED)
    by_lower = {name.lower(): name for name in compared if len(name) <= MAX_WORD_CHARS}
    near = _nearest(word[:MAX_WORD_CHARS].lower(), by_lower)
    return f"; did you mean {by_lower[near]!r}?" if near is not None else ""


def _nearest(word: str, names: Iterable[str]) -> str | None:
    """Find the name that a word probably means.

    If the word is surely a mistyped form of a name, that name is returned. Otherwise, if exactly
    one name has a similar beginning, that name is returned. Otherwise the most similar name is
    returned.
    """
    names = list(names)
    found = difflib.get_close_matches(word, names, n=1, cutoff=MISTYPED)
    if not found and len(word) >= MIN_PREFIX_CHARS:
        begins = {name[: len(word)]: name for name in names}
        counts = Counter(name[: len(word)] for name in names)
        alone = [begin for begin in begins if counts[begin] == 1]
        found = [
            begins[begin] for begin in difflib.get_close_matches(word, alone, n=1, cutoff=MISTYPED)
        ]
    found = found or difflib.get_close_matches(word, names, n=1)
    return found[0] if found else None


def listed(words: Iterable[str]) -> str:
    """Return the first twenty words, quoted, for a message; ``none`` if the list is empty."""
    names = list(words)
    shown = ", ".join(shortened(name) for name in names[:MAX_WORDS_SHOWN])
    more = len(names) - MAX_WORDS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown or "none"


def shortened(value: object) -> str:
    """Return the ``repr`` of a value, cut to a length that fits a line."""
    # A long string is cut before it is quoted, so that a megabyte is not copied for a few
    # characters.
    if isinstance(value, str) and len(value) > MAX_WORD_CHARS:
        return f"{value[: MAX_WORD_CHARS - 1]!r}..."
    try:
        text = repr(value)
    except ValueError:  # Python does not write an integer of over 4,300 digits
        return f"a value of the type {type(value).__name__}"
    return text if len(text) <= MAX_WORD_CHARS else f"{text[: MAX_WORD_CHARS - 3]}..."

"""The facts of a prompt: labelled values, numbers, quotations and frequent words.

The replies are made from these facts, so that a demonstration has sensible texts and two runs have
the same replies. The functions have no side effects. Each fact is computed at the fact's first use.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from typing import TypeVar
from zlib import crc32

T = TypeVar("T")

_READ_CHARS = 10_000
"""Number of characters that are read at the start and at the end of a prompt.

Because of this limit, a reply takes little time even if the prompt has a long document.
"""

NUMBER = r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?"
_NUMBERS = re.compile(rf"(?<![\w.-])(?:{NUMBER})(?![\w-])")
_LABELS = re.compile(
    r"^[ \t>*-]*([A-Za-z][A-Za-z /_.#-]{0,30}?)[ \t]*[:=][ \t]*(\S[^\n]*)$", re.MULTILINE
)
_JSON_LABELS = re.compile(r'"(\w{1,40})"\s*:\s*("(?:[^"\\]|\\.)*"|-?[\d.]+|true|false)')
_WORDS = re.compile(r"[^\W\d_][\w-]{3,}")
_INSTRUCTIONS = re.compile(r"\b(?:json|keys?|fields?|respond|return|answer)\b", re.IGNORECASE)
_STOPWORDS = frozenset(
    """about above after again against also analyse analyze answer application approved based
    because been before being below between both case check compute could data does each
    exactly extract false following from further give given have having here into input itself
    json just keys list make more most must need next null object only other output over
    please process prompt provide read reply respond response return same screen should some
    such summarise summarize summary text than that their them then there these they this
    those through true under until using valid very were what when where whether which while
    will with word words would write your""".split()
)


def digest_of(text: str) -> str:
    """Return a short, stable hash of a text, with 16 hexadecimal digits."""
    return blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def normalised(name: str) -> str:
    """Return a label or key as lower-case words, so that `Invoice-No.` equals `invoice_no`."""
    return " ".join(re.findall(r"[a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))


def _all_of(pattern: str) -> cached_property[list[str]]:
    """Make a property of ``Facts`` that lists all matches of a pattern in the text, in order."""
    found = re.compile(pattern).findall
    return cached_property(lambda facts: found(facts.text))


class Facts:
    """The facts of a text."""

    quoted = _all_of(r"[\"“']([^\"“”'\n]{2,60})[\"”']")
    """All short quotations."""
    names = _all_of(r"\b[A-Z][a-z]+(?: (?:[A-Z][a-z]+|[A-Z]{2,}|&))+")
    """Runs of capitalised words, such as `Acme Supplies`."""
    codes = _all_of(r"\b[A-Z]{2,}[A-Z0-9]*[-/]\d[\w-]*\b")
    """Reference numbers, such as `INV-2025-001`."""
    dates = _all_of(r"\b\d{4}-\d{2}-\d{2}\b")
    """ISO dates."""
    emails = _all_of(r"\b[\w.+-]+@[\w-]+\.[\w.]+\w\b")
    """E-mail addresses."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > 2 * _READ_CHARS:
            self.text = f"{text[:_READ_CHARS]}\n{text[-_READ_CHARS:]}"
        self._seed = int(digest_of(text), 16)

    def draw(self, name: str) -> int:
        """Return a number that depends only on the text and `name`."""
        return self._seed ^ (crc32(name.encode("utf-8", "replace")) * 0x9E3779B97F4A7C15)

    def pick(self, name: str, choices: Sequence[T]) -> T:
        """Pick a choice; the same text and the same name always give the same choice."""
        return choices[(self.draw(name) >> 7) % len(choices)]

    def label(self, name: str) -> str | None:
        """Return the value that has this label in the text, or that has the most similar label."""
        words = set(normalised(name).split())
        differences = [
            (len(words ^ set(label.split())), value)
            for label, value in self.labels.items()
            if words and (words >= set(label.split()) or words <= set(label.split()))
        ]
        return min(differences, key=lambda pair: pair[0], default=(0, None))[1]

    def number_near(self, name: str) -> float | None:
        """Return the number that follows a word of the name, such as `90` in `total EUR 90`.

        The words are tried from the last to the first.
        """
        for word in reversed(normalised(name).split()):
            pattern = rf"\b{word}\b[^\d\n]{{0,20}}?({NUMBER})(?![\w-])"
            found = re.search(pattern, self.text, re.IGNORECASE)
            if found is not None:
                return number_in(found[1])
        return None

    def mentions(self, option: object) -> int:
        """Return how often the text has an option as the beginning of a word; 0 without letters."""
        word = str(option)
        if not any(map(str.isalpha, word)):
            return 0
        return len(re.findall(rf"(?<![\w-]){re.escape(word)}(?!_)", self.text, re.IGNORECASE))

    @cached_property
    def labels(self) -> dict[str, str]:
        """Values by label, from lines such as `Vendor: Acme` and from scalar members of JSON.

        If a label occurs several times, the first value is kept.
        """
        found: dict[str, str] = {}
        for label, value in _JSON_LABELS.findall(self.text):
            found.setdefault(normalised(label), value.strip('"'))
        for label, value in _LABELS.findall(self.text):
            if not _INSTRUCTIONS.search(label):
                found.setdefault(normalised(label), value.strip().rstrip(".,;"))
        found.pop("", None)
        return found

    @cached_property
    def numbers(self) -> list[float]:
        """All numbers in order, without the numbers inside words."""
        return [number_in(text) for text in _NUMBERS.findall(self.text)]

    @cached_property
    def words(self) -> list[str]:
        """The 12 most frequent words, without stop words.

        If two words are equally frequent, the earlier word comes first.
        """
        counts = Counter(word.lower() for word in _WORDS.findall(self.text))
        telling = [word for word, _ in counts.most_common() if word not in _STOPWORDS]
        return telling[:12] or ["request"]


def number_in(text: str) -> float:
    """Read a number with thousands separators, such as `1,240.50`; whole numbers become int."""
    value = float(text.replace(",", ""))
    return int(value) if value.is_integer() else value

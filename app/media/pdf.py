"""The size of a PDF: the number of pages, and an upper bound of the text.

Providers send a model the text and a picture of each page. No provider describes its way to extract
the text, so the bound counts all texts that a page can show. These texts are the strings of the
pages' contents, of the forms in these contents, and of notes and fields. Each use of a content or a
form counts.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from app.media.pdf_streams import MAX_STEPS, Allowance, Ref, Stream
from app.media.pdf_syntax import MAX_DEPTH, Objects, name_of
from app.media.types import MediaRefused

_PART = re.compile(
    rb"[()]|\\[\s\S]|<[0-9A-Fa-f\x00\s]*+>"
    rb"|/([^\x00\s()<>\[\]{}/%]++)(?:[\x00\s]|%[^\r\n]*+[\r\n])++Do(?![A-Za-z])"
)
_LONG_CODE = re.compile(rb"<([0-9A-Fa-f\s]*+)>")
# The largest number of bytes of UTF-8 for which a byte of a string stands. For a letter with an
# accent, one byte stands for two bytes. In other scripts, two bytes stand for at most three bytes.
_BYTES_PER_CODE = 2
# The largest number of characters that a usual table of characters gives for one code, for example
# for a ligature.
_USUAL_CHARS_PER_CODE = 4
_DIGITS_PER_CHAR = 4
_UTF8_BYTES_PER_CHAR = 3
# The largest number of bytes that a file's text can have; a longer text fits no model.
_MOST_TEXT_BYTES = 10**9


def pages_and_text(content: bytes, *, max_steps: int = MAX_STEPS) -> tuple[int, int]:
    """Return the number of pages of a PDF, and an upper bound of the text in bytes of UTF-8.

    Args:
        content: The whole file.
        max_steps: Largest number of steps that may be spent on the file.

    Raises:
        MediaRefused: If the file is encrypted or broken, or if reading the file takes too much
            work.
    """
    allowance = Allowance(max_steps=max_steps)
    objects = Objects(content, allowance)
    pages = _pages(objects)
    if not pages:
        raise MediaRefused("has no pages: save it anew as a PDF")
    return pages, min(_Text(objects, allowance).bound(), _MOST_TEXT_BYTES)


def _pages(objects: Objects) -> int:
    """Return the largest number of pages that any reader finds.

    Every node of the tree of pages has one parent, so the tree is never larger than the file.
    """
    found = {
        value.number
        for part in objects.parts()
        if isinstance(part, dict) and isinstance(value := part.get("Pages"), Ref)
    }
    waiting = list(found)
    leaves = stated = 0
    while waiting:
        number = waiting.pop()
        nodes = [node for node in objects.by_number.get(number, ()) if isinstance(node, dict)]
        stated = max(stated, *(_whole(node.get("Count")) for node in nodes), 0)
        kids = {kid for node in nodes for kid in _kids(objects, node)}
        leaves += not kids
        if kids & found:
            raise MediaRefused("has a page in two lists of pages: save it anew as a PDF")
        found |= kids
        waiting += kids
    return max(leaves, stated)


def _kids(objects: Objects, node: dict[str, Any]) -> list[int]:
    lists = [each for each in objects.resolved(node.get("Kids")) if isinstance(each, list)]
    kids = [kid for each in lists for kid in each]
    numbers = [kid.number for kid in kids if isinstance(kid, Ref)]
    if len(numbers) < len(kids) or len(set(numbers)) < len(numbers):
        raise MediaRefused("has a page twice in its list of pages: save it anew as a PDF")
    return numbers


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


class _Text:
    """The text of a file.

    Args:
        objects: The objects of the file.
        allowance: The work that may be spent on the file.
    """

    def __init__(self, objects: Objects, allowance: Allowance) -> None:
        self._objects = objects
        self._allowance = allowance
        self._forms_by_name: dict[str, list[Stream]] = defaultdict(list)
        for part in objects.parts():
            for name, value in part.items() if isinstance(part, dict) else ():
                if isinstance(value, Ref):
                    self._forms_by_name[name] += filter(_is_form, objects.resolved(value))
        # The bytes of each content; None while these bytes are being counted.
        self._counted: dict[Stream, int | None] = {}
        self._depth = 0

    def bound(self) -> int:
        """Return an upper bound of the text, in bytes of UTF-8."""
        shown = sum(map(self._bytes_of, self._contents()))
        # A form that no content shows may still be shown as the look of a field or a note.
        forms = [stream for stream in self._objects.streams() if _is_form(stream)]
        shown += sum(self._bytes_of(form) for form in forms if form not in self._counted)
        notes = sum(len(text) for text in self._notes())
        return (shown + notes) * self._bytes_per_code()

    def _contents(self) -> Iterator[Stream]:
        """Yield the contents of all pages; contents that several pages share come repeatedly."""
        for part in self._objects.parts():
            if isinstance(part, dict) and "Contents" in part:
                for value in self._objects.resolved(part["Contents"]):
                    for each in value if isinstance(value, list) else [value]:
                        found = self._objects.resolved(each)
                        yield from (one for one in found if isinstance(one, Stream))

    def _notes(self) -> Iterator[bytes]:
        for part in self._objects.parts():
            if isinstance(part, dict):
                # The contents of a signature are no text.
                left_out = "Contents" if "ByteRange" in part else None
                values = [value for name, value in part.items() if name != left_out]
            else:
                values = part if isinstance(part, list) else []
            yield from (value for value in values if isinstance(value, bytes))

    def _bytes_of(self, stream: Stream) -> int:
        """Return the bytes of all strings of a content and of the forms that the content shows."""
        if stream in self._counted:
            counted = self._counted[stream]
            if counted is None:
                raise MediaRefused("has a form that contains itself: save it anew as a PDF")
            return counted
        self._counted[stream] = None
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise MediaRefused("has forms inside forms, too many deep: save it anew as a PDF")
        size, shown = self._strings_in(self._allowance.expanded(stream))
        for name, times in shown.items():
            forms = self._forms_by_name.get(name, ())
            size += times * max(map(self._bytes_of, forms), default=0)
        self._depth -= 1
        self._counted[stream] = size = min(size, _MOST_TEXT_BYTES)
        return size

    def _strings_in(self, content: bytes) -> tuple[int, Counter[str]]:
        """Return the bytes of all strings in a content, and the number of uses of each form.

        Each string counts one byte more, because a reader may put a blank after the string.
        """
        size = depth = start = 0
        shown: Counter[str] = Counter()
        for part in _PART.finditer(content):
            self._allowance.spend(1)
            if part[1]:
                shown[name_of(part[1])] += 1
            elif part[0][:1] == b"<" and not depth:
                size += len(part[0])
            elif part[0] == b"(":
                start = start if depth else part.end()
                depth += 1
            elif part[0] == b")" and depth:
                depth -= 1
                size += 0 if depth else part.end() - start
        return size + (len(content) - start if depth else 0), shown

    def _bytes_per_code(self) -> int:
        longest = 0
        for part in self._objects.parts():
            value = part.get("ToUnicode") if isinstance(part, dict) else None
            for stream in self._objects.resolved(value):
                if isinstance(stream, Stream):
                    content = self._allowance.expanded(stream)
                    self._allowance.spend(content.count(b"<"))
                    codes = _LONG_CODE.finditer(content)
                    longest = max(longest, *(len(code[1]) for code in codes), 0)
        chars = longest // _DIGITS_PER_CHAR
        if chars <= _USUAL_CHARS_PER_CODE:
            return _BYTES_PER_CODE
        return chars * _UTF8_BYTES_PER_CHAR


def _is_form(value: Any) -> bool:
    if not isinstance(value, Stream):
        return False
    return value.facts.get("Subtype") == "Form" or "PatternType" in value.facts

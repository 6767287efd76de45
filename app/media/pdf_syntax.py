"""The syntax of PDF files: the objects, dictionaries and streams from which sizes are computed.

The reader does not follow the table of contents of a file. The reader collects every definition of
every object, because other readers differ about the definitions that count. The reader even
collects a definition that a later version of the file has replaced. Sizes that are taken over all
definitions are never too small. ISO 32000-1 defines the syntax.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from app.media.pdf_streams import Allowance, Name, Ref, Stream, unreadable
from app.media.types import MediaRefused

MAX_OBJECTS = 300_000
MAX_DEPTH = 100
# Longest table of a stream of objects: a number and an offset for each object.
_MAX_TABLE_BYTES = 20 * MAX_OBJECTS

_BLANK = rb"(?:[\x00\t\n\f\r ]|%[^\r\n]*+(?:[\r\n]|\Z))"
# Blanks between the parts of one token. The number of blanks is bounded, so that a search takes
# linear time.
_GAP = rb"(?:[\x00\t\n\f\r ]|%[^\r\n]{0,200}+[\r\n]){1,60}+"
_TOKEN = re.compile(
    rb"(?P<open><<|\[)|(?P<close>>>|\])|(?P<name>/[^\x00\t\n\f\r ()<>\[\]{}/%]*+)"
    rb"|(?P<ref>(?P<to>\d{1,10})" + _GAP + rb"\d{1,10}" + _GAP + rb"R(?![A-Za-z0-9]))"
    rb"|(?P<number>[+-]?(?:\d++\.?\d*+|\.\d++))|(?P<hex><[^<>]*+>)|(?P<text>\()"
    rb"|(?P<word>true|false|null)(?![A-Za-z])"
)
_SKIP = re.compile(_BLANK + rb"*+")
_OBJECT = re.compile(rb"(\d{1,10})" + _GAP + rb"\d{1,10}" + _GAP + rb"obj(?![a-z])")
_TRAILER = re.compile(rb"trailer(?=(?:" + _GAP + rb")?<<)")
_STREAM = re.compile(rb"stream\r?\n?")
_END = b"endstream"
_TEXT_PART = re.compile(rb"[()]|\\[\s\S]")
_ESCAPE = re.compile(rb"#([0-9A-Fa-f]{2})")
_WORDS = {b"true": True, b"false": False, b"null": None}
# Bytes that a search passes in the time of one step of the parser.
_BYTES_PER_STEP = 100


class Objects:
    """All objects of a PDF file.

    Args:
        content: The whole file.
        allowance: The work that may be spent on the file.

    Attributes:
        by_number: Every definition of every object, by the object's number.
        trailers: The values with which the reading of a file begins.

    Raises:
        MediaRefused: If the file is encrypted or too intricate, or has too many objects.
    """

    def __init__(self, content: bytes, allowance: Allowance) -> None:
        self._allowance = allowance
        self.by_number: dict[int, list[Any]] = defaultdict(list)
        self.trailers = [self._parsed(content, at.end())[0] for at in _TRAILER.finditer(content)]
        streams: list[tuple[int, dict[str, Any], int]] = []
        for count, found in enumerate(_OBJECT.finditer(content)):
            _check_number(count)
            value, end = self._parsed(content, found.end())
            begin = _STREAM.match(content, end) if isinstance(value, dict) else None
            if begin:
                streams.append((int(found[1]), value, begin.end()))
            else:
                self.by_number[int(found[1])].append(value)
        # The length of a stream may be an object that comes after the stream.
        for number, facts, start in streams:
            self.by_number[number].append(Stream(facts, self._raw(content, start, facts)))
        for stream in list(self.streams()):
            if "N" in stream.facts and "First" in stream.facts:
                self._unpack(stream)
        beginnings = [*self.trailers, *(each.facts for each in self.streams() if "W" in each.facts)]
        if any(isinstance(facts, dict) and "Encrypt" in facts for facts in beginnings):
            raise MediaRefused("is encrypted: save it without a password")

    def values(self) -> Iterator[Any]:
        """Yield every definition of every object."""
        for definitions in self.by_number.values():
            yield from definitions

    def streams(self) -> Iterator[Stream]:
        """Yield every stream."""
        return (value for value in self.values() if isinstance(value, Stream))

    def parts(self) -> Iterator[Any]:
        """Yield every value, and every value inside another value."""
        waiting = [*self.values(), *self.trailers]
        while waiting:
            value = waiting.pop()
            yield value
            if isinstance(value, Stream):
                value = value.facts
                yield value
            if isinstance(value, dict):
                waiting.extend(value.values())
            elif isinstance(value, list):
                waiting.extend(value)

    def resolved(self, value: Any) -> list[Any]:
        """Return all values that a value may stand for: the value, or an object's definitions."""
        return self.by_number.get(value.number, []) if isinstance(value, Ref) else [value]

    def _unpack(self, stream: Stream) -> None:
        """Parse the objects of a stream of objects."""
        content = self._allowance.expanded(stream)
        for first in self.resolved(stream.facts["First"]):
            if not isinstance(first, int) or not 0 <= first <= _MAX_TABLE_BYTES:
                raise MediaRefused(unreadable("a stream of objects without a beginning"))
            numbers = [int(word) for word in re.findall(rb"\d{1,10}", content[:first])]
            _check_number(len(numbers) // 2)
            for number, offset in zip(numbers[::2], numbers[1::2], strict=False):
                self.by_number[number].append(self._parsed(content, first + offset)[0])
        _check_number(len(self.by_number))

    def _raw(self, content: bytes, start: int, facts: dict[str, Any]) -> bytes:
        lengths = [each for each in self.resolved(facts.get("Length")) if isinstance(each, int)]
        ends = [start + length for length in lengths if length >= 0]
        fitting = [end for end in ends if content[end : end + len(_END) + 4].lstrip()[:9] == _END]
        end = max(fitting, default=content.find(_END, start))
        end = len(content) if end < 0 else end
        self._allowance.spend(1 + (end - start) // _BYTES_PER_STEP)
        return content[start:end]

    def _parsed(self, content: bytes, position: int) -> tuple[Any, int]:
        """Parse one value; return the value, and the position of the next token after the value.

        An operator, or any other text that is not a value, ends the parsed value. At this place,
        all open brackets are closed, too.
        """
        opened: list[list[Any]] = []
        while True:
            position = self._skipped(content, position)
            found = _TOKEN.match(content, position)
            if found is None:
                return _cut_off(opened), position
            position = found.end()
            kind = found.lastgroup
            if kind == "open":
                if len(opened) >= MAX_DEPTH:
                    raise MediaRefused(unreadable(f"values in more than {MAX_DEPTH} brackets"))
                opened.append([found[0] == b"<<"])
                continue
            if kind == "close":
                if not opened:
                    return None, position
                value = _closed(opened.pop())
            elif kind == "text":
                value, position = self._text(content, position)
            else:
                value = _simple(found)
            if not opened:
                return value, self._skipped(content, position)
            opened[-1].append(value)

    def _skipped(self, content: bytes, position: int) -> int:
        found = _SKIP.match(content, position)
        assert found is not None, "the pattern also matches nothing"
        self._allowance.spend(1 + (found.end() - position) // _BYTES_PER_STEP)
        return found.end()

    def _text(self, content: bytes, position: int) -> tuple[bytes, int]:
        start, depth = position, 1
        for part in _TEXT_PART.finditer(content, position):
            self._allowance.spend(1 + (part.end() - position) // _BYTES_PER_STEP)
            position = part.end()
            depth += {b"(": 1, b")": -1}.get(part[0], 0)
            if not depth:
                return content[start : part.start()], position
        self._allowance.spend(1 + (len(content) - position) // _BYTES_PER_STEP)
        return content[start:], len(content)


def name_of(written: bytes) -> str:
    """Return the name that a reader understands; ``#20`` in a written name stands for a blank."""
    return _ESCAPE.sub(lambda code: bytes([int(code[1], 16)]), written).decode("latin-1")


def _check_number(objects: int) -> None:
    if objects > MAX_OBJECTS:
        raise MediaRefused(f"has more than {MAX_OBJECTS:,} objects: send a smaller file")


def _simple(found: re.Match[bytes]) -> Any:
    if found["ref"]:
        return Ref(int(found["to"]))
    if name := found["name"]:
        return Name(name_of(name[1:]))
    if number := found["number"]:
        text = number[:20].decode()
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    if digits := found["hex"]:
        return digits[1:-1]
    return _WORDS[found["word"]]


def _cut_off(opened: list[list[Any]]) -> Any:
    """Close all opened brackets, and return the value of the outermost bracket, if there is one."""
    value = None
    while opened:
        value = _closed(opened.pop())
        if opened:
            opened[-1].append(value)
    return value


def _closed(parts: list[Any]) -> Any:
    """Make the dictionary or the list of an opened bracket."""
    is_dictionary, *values = parts
    if not is_dictionary:
        return values
    pairs = zip(values[::2], values[1::2], strict=False)
    return {str(key): value for key, value in pairs if isinstance(key, Name)}

"""Reads YAML as JSON values, within limits, with the line of every value.

Plain scalars are read by the rules of YAML 1.2 (core schema), so ``no``, dates and ``1_000`` are
strings. Only CR and LF break lines, as in YAML 1.2; PyYAML knows YAML 1.1, in which U+0085, U+2028
and U+2029 break lines, too.
Aliases and merge keys (``<<``) work. Tags, a second document and a repeated key are errors.
"""

import math
import re
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from app.domain.json_values import MAX_INTEGER_BITS, find_number_problem
from app.errors import WorkflowFileError

#: Levels of a whole file. A single value may have fewer levels (``app.domain.json_values``).
MAX_DEPTH = 100
MAX_VALUES = 1_000_000

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
#: A longer integer is over the limit, and Python takes quadratic time to convert it.
_MAX_DIGITS = len(str(1 << MAX_INTEGER_BITS)) + 1
_BREAKS_OF_YAML_1_1 = "\x85\u2028\u2029"
#: Code points without a meaning, from which characters take the places of the others.
_STAND_INS = range(0x10F000, 0x10FFF0)
_TEXT_TAGS = ("!", "tag:yaml.org,2002:str")
# PyYAML without libyaml has a parser in Python, which gives the same results but is slower.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(kw_only=True)
class _Part:
    """A value that is being read, or to which an alias may refer.

    Attributes:
        value: The content that has been read so far.
        size: Number of values in the part, including values from aliases.
        depth: Number of levels in the part.
        place: Path of the part; empty if the part is neither a mapping nor a list.
        anchor: Name that aliases use for the part; None if the part has no anchor.
        key: Key whose value comes next; None if a key comes next.
        merged: Keys and values that the merge keys add to the mapping.
    """

    value: Any
    size: int = 1
    depth: int = 0
    place: tuple[str | int, ...] = ()
    anchor: str | None = None
    key: str | None = None
    merged: dict[str, Any] = field(default_factory=dict)


class YamlReader:
    """Builds values from YAML events; nested values need no recursion.

    Attributes:
        places: Path of a value -> line of the value, from 1. Values inside aliases have no line.
    """

    def __init__(self, *, file: str) -> None:
        self.places: dict[tuple[str | int, ...], int] = {}
        self._file = file
        self._open: list[_Part] = []
        self._anchors: dict[str, _Part] = {}
        self._root: _Part | None = None
        self._breaks: dict[int, str] = {}

    def read(self, text: str) -> Any:
        r"""Parse a text; return None if the text is empty.

        Args:
            text: The text, in which every line break is ``\n``.

        Raises:
            WorkflowFileError: If the text is not valid, or is over a limit.
        """
        event: Any  # the stub does not know that the marks are never None here
        text = self._without_breaks_of_yaml_1_1(text)
        try:
            for event in yaml.parse(text, Loader=_LOADER):
                self._take(event, event.start_mark.line + 1)
        except yaml.MarkedYAMLError as error:
            raise self._syntax_error(error, text) from error
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            message = f"contains the control character {chr(error.character)!r}: remove it"
            raise self._error(message, line) from error
        return self._root.value if self._root else None

    def _without_breaks_of_yaml_1_1(self, text: str) -> str:
        """Put another character in the place of each line break that YAML 1.2 does not have."""
        found = [each for each in _BREAKS_OF_YAML_1_1 if each in text]
        if not found:
            return text
        lower = text.lower()
        unused = (
            code for code in _STAND_INS if chr(code) not in text and f"{code:08x}" not in lower
        )
        pairs = list(zip(unused, found, strict=False))
        self._breaks = dict(pairs)
        return text.translate({ord(each): chr(code) for code, each in pairs})

    def _take(self, event: yaml.Event, line: int) -> None:
        if self._breaks and isinstance(event, yaml.ScalarEvent):
            event.value = event.value.translate(self._breaks)
        match event:
            case yaml.ScalarEvent() if self._awaits_key():
                self._set_key(event, line)
            case yaml.ScalarEvent():
                self._put(_Part(value=self._scalar(event, line), anchor=event.anchor), line)
            case yaml.AliasEvent():
                if event.anchor not in self._anchors:
                    raise self._error(f"the alias *{event.anchor} is not defined above it", line)
                self._put(replace(self._anchors[event.anchor], anchor=None), line)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._start(event, line)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                part = self._open.pop()
                if part.merged:
                    part.value = part.merged | part.value
                self._put(part, line)
            case yaml.DocumentStartEvent() if self._root is not None:
                raise self._error("a second document begins: give one per file", line)

    def _awaits_key(self) -> bool:
        parent = self._open[-1] if self._open else None
        return parent is not None and isinstance(parent.value, dict) and parent.key is None

    def _start(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent, line: int) -> None:
        if self._awaits_key():
            raise self._error("a key is a list or mapping: give a string", line)
        if event.tag is not None:
            raise self._error(f"the tag {event.tag!r} is not supported: remove it", line)
        value: Any = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        self._open.append(_Part(value=value, anchor=event.anchor, place=self._next_place(line)))
        self._check(len(self._open), 0, line)

    def _next_place(self, line: int) -> tuple[str | int, ...]:
        """Return the path of the next value; if the value has no key, store the value's line."""
        if not self._open:
            return ()
        parent = self._open[-1]
        if parent.key is not None:
            return (*parent.place, parent.key)
        place = (*parent.place, len(parent.value))
        self.places[place] = line
        return place

    def _set_key(self, event: yaml.ScalarEvent, line: int) -> None:
        parent = self._open[-1]
        key = self._scalar(event, line)
        if not isinstance(key, str):
            raise self._error(f"the key {event.value} is not a string: write {event.value!r}", line)
        if key in parent.value:
            first = self.places[*parent.place, key]
            raise self._error(f"the key {key!r} occurs twice, first in line {first}", line)
        self.places[*parent.place, key] = line
        parent.key = key

    def _put(self, part: _Part, line: int) -> None:
        """Put a finished value into the list or mapping around the value."""
        if part.anchor is not None:
            self._anchors[part.anchor] = part
        if not self._open:
            self._root = part
            return
        if self._awaits_key():
            raise self._error("a key is an alias: write it out", line)
        parent = self._open[-1]
        parent.size += part.size
        parent.depth = max(parent.depth, part.depth + 1)
        self._check(len(self._open) + part.depth, parent.size, line)
        if isinstance(parent.value, list):
            self.places.setdefault((*parent.place, len(parent.value)), line)
            parent.value.append(part.value)
        elif parent.key == "<<":
            self._merge(parent, part.value, line)
        else:
            parent.value[parent.key] = part.value
        parent.key = None

    def _merge(self, parent: _Part, value: Any, line: int) -> None:
        for source in value if isinstance(value, list) else [value]:
            if not isinstance(source, dict):
                raise self._error("<< takes an alias of a mapping, or a list of them", line)
            parent.merged = source | parent.merged

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Any:
        text = event.value
        if event.tag is not None and event.tag not in _TEXT_TAGS:
            raise self._error(f"the tag {event.tag!r} is not supported: remove it", line)
        if event.tag is not None or not event.implicit[0]:
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _INT.fullmatch(text):
            number = int(text) if len(text) <= _MAX_DIGITS else 1 << (MAX_INTEGER_BITS + 1)
            if problem := find_number_problem(number):
                raise self._error(problem, line, self._field())
            return number
        if _FLOAT.fullmatch(text):
            if not math.isfinite(decimal := float(text)):
                raise self._error("is too large a number: give a string", line, self._field())
            return decimal
        if _NO_NUMBER.fullmatch(text):
            problem = f"is {text}, which is not JSON: write null"
            raise self._error(problem, line, self._field())
        return text

    def _field(self) -> str | None:
        """Return the path of the value that comes next."""
        if not self._open:
            return None
        parent = self._open[-1]
        last = len(parent.value) if isinstance(parent.value, list) else parent.key
        path = (*parent.place, *(() if last is None else (last,)))
        return field_of(path) or None

    def _check(self, depth: int, size: int, line: int) -> None:
        if depth > MAX_DEPTH:
            raise self._error(f"is nested more than {MAX_DEPTH} levels deep: use fewer", line)
        if size > MAX_VALUES:
            raise self._error(f"has over {MAX_VALUES:,} values, with its aliases: split it", line)

    def _syntax_error(self, error: yaml.MarkedYAMLError, text: str) -> WorkflowFileError:
        mark: Any = error.problem_mark or error.context_mark
        if mark is None:
            return self._error(f"is not valid YAML: {error.problem}", None)
        lines = text.removesuffix("\n").split("\n")
        line = min(mark.line, len(lines) - 1)  # the end of the text counts as a line of its own
        hint = ": indent with spaces, not tabs" if lines[line].lstrip(" ").startswith("\t") else ""
        return self._error(f"is not valid YAML: {error.problem}{hint}", line + 1)

    def _error(
        self, message: str, line: int | None, field_: str | None = None
    ) -> WorkflowFileError:
        return WorkflowFileError(message, file=self._file, line=line, field=field_)


def field_of(place: tuple[str | int, ...]) -> str:
    """Return the path of a value as text, such as ``agents[2].priority``."""
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)
    return path.removeprefix(".")

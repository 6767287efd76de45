"""Estimates how much work a JSON Schema may need, without applying it.

The unit of work is about 100 ns. The *weight* of a schema bounds the units for each byte of a
value. Two things make a weight large. References and combinations (``allOf``, ``anyOf`` and others)
apply many parts to the same value, and their number can double with each level. Long lists of
``enum`` and counted repetitions in patterns make one part expensive.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from app.domain.json_text import write_json

#: A part of a schema that applies itself to the same value again has no bound.
UNBOUNDED = float("inf")
#: Deepest nesting of values, see ``app.domain.json_values``.
_DEPTH = 64
_MOST_STEPS = 40_000
_BYTES_PER_UNIT = 3

_SAME_VALUE = ("$ref", "not", "if", "then", "else")
_SAME_VALUE_LISTS = ("allOf", "anyOf", "oneOf")
_SAME_VALUE_MAPS = ("dependentSchemas", "dependencies")
# Each part of a value meets at most one schema of such a group.
_EITHER = (("properties", "additionalProperties"), ("prefixItems", "items", "additionalItems"))
_EACH = ("patternProperties", "propertyNames", "contains", "contentSchema")
# These keywords repeat the work of other keywords, or refer to a place that is known only later.
_UNKNOWN = frozenset(("unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"))
_DEFINITIONS = ("$defs", "definitions")
_MAPS = frozenset((*_DEFINITIONS, *_SAME_VALUE_MAPS, "properties", "patternProperties"))
#: The units for an array whose elements must be unique; each level of arrays reads all elements.
_UNIQUE = 64
#: The units of a division by a fraction. Outside the usual sizes a fraction has up to 300 digits.
_DIVISION, _LONG_DIVISION = 250.0, 1000.0
_LEAST_USUAL, _MOST_USUAL = 1e-15, 1e15


class SchemaCost(NamedTuple):
    """The work that a schema may need.

    Attributes:
        weight: Units for each byte of a value.
        expanded: Units for one value, if all references are followed at this value.
        patterns: Units for compiling the patterns.
    """

    weight: float
    expanded: float
    patterns: float


class _Part(NamedTuple):
    """A part of a schema, and the indices of the parts that it applies."""

    own: float
    same: list[int]
    groups: list[list[int]]


def cost_of(schema: Any) -> SchemaCost:
    """Estimate the work of a schema; the estimate is too high rather than too low.

    Args:
        schema: A JSON value, which need not be a valid schema.
    """
    graph = _Graph(schema)
    order = _in_order(graph.parts)
    if order is None:
        return SchemaCost(UNBOUNDED, UNBOUNDED, graph.patterns)
    work = [0.0] * len(graph.parts)
    expanded = 0.0
    steps = 0
    # Round n computes the work for values that are nested n levels deep.
    for depth in range(_DEPTH + 1):
        before = list(work)
        for index in order:
            own, same, groups = graph.parts[index]
            deeper = sum(max((before[part] for part in group), default=0.0) for group in groups)
            work[index] = own + sum(work[part] for part in same) + deeper
            steps += 1 + len(same) + sum(map(len, groups))
        if not depth:
            expanded = max(work)
        if work == before:
            break
        if steps > _MOST_STEPS:
            return SchemaCost(UNBOUNDED, expanded, graph.patterns)
    reading = len(write_json(schema)) / 20
    weight = UNBOUNDED if graph.is_unknown else work[0] + reading
    return SchemaCost(weight, expanded, graph.patterns)


class _Graph:
    """The parts of a schema, from its root."""

    def __init__(self, schema: Any) -> None:
        self._root = schema
        self._index: dict[int, int] = {}
        self._waiting: list[Any] = []
        self.parts: list[_Part] = []
        self.is_unknown = False
        self.patterns = 0.0
        self._of(schema)
        while len(self.parts) < len(self._waiting):
            self.parts.append(self._part(self._waiting[len(self.parts)]))

    def _of(self, schema: Any) -> int:
        """Return the index of a part; a new part is read later."""
        key = id(schema) if isinstance(schema, Mapping) else 0
        if key not in self._index:
            self._index[key] = len(self._waiting)
            self._waiting.append(schema if key else True)
        return self._index[key]

    def _part(self, schema: Any) -> _Part:
        if not isinstance(schema, Mapping):
            return _Part(1.0, [], [])
        if not _UNKNOWN.isdisjoint(schema) or ("$id" in schema and schema is not self._root):
            self.is_unknown = True
        same = [self._of(part) for part in self._at_same_value(schema)]
        groups = [
            [self._of(part) for keyword in group for part in _schemas(schema, keyword)]
            for group in _EITHER
        ]
        groups += [[self._of(part)] for keyword in _EACH for part in _schemas(schema, keyword)]
        # Definitions are read even if no reference leads to them, because they are compiled, too.
        for keyword in _DEFINITIONS:
            for part in _schemas(schema, keyword):
                self._of(part)
        return _Part(self._own(schema), same, [group for group in groups if group])

    def _at_same_value(self, schema: Mapping[str, Any]) -> Iterator[Any]:
        for keyword in _SAME_VALUE:
            if keyword == "$ref" and "$ref" in schema:
                yield self._target(schema["$ref"])
            elif keyword in schema:
                yield schema[keyword]
        for keyword in (*_SAME_VALUE_LISTS, *_SAME_VALUE_MAPS):
            yield from _schemas(schema, keyword)

    def _target(self, reference: Any) -> Any:
        """Return the part that a reference leads to; True stands for an unknown part."""
        target: Any = self._root
        if not isinstance(reference, str) or reference[:1] != "#":
            self.is_unknown = True
            return True
        for step in unquote(reference[1:]).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, Mapping) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isdecimal() and int(key[:9]) < len(target):
                target = target[int(key[:9])]
            else:
                self.is_unknown = True
                return True
        if reference[1:2] not in ("", "/"):
            self.is_unknown = True
        return target

    def _own(self, schema: Mapping[str, Any]) -> float:
        """Return the units of a part for one value, without the parts that it applies."""
        listed = ("properties", "required", "patternProperties", "dependentRequired")
        units = 1.0 + len(schema) + sum(_length(schema.get(keyword)) for keyword in listed)
        for keyword in ("enum", "const"):
            if keyword in schema:
                units += len(write_json(schema[keyword])) / _BYTES_PER_UNIT
        named = schema.get("patternProperties")
        for pattern in (schema.get("pattern"), *(named if isinstance(named, Mapping) else ())):
            if isinstance(pattern, str):
                cost = pattern_cost(pattern)
                self.patterns += cost + replacement_cost(pattern)
                units += cost
        units += _division_cost(schema.get("multipleOf"))
        return units + (_UNIQUE if schema.get("uniqueItems") else 0)


def _division_cost(divisor: Any) -> float:
    """Return the units of ``multipleOf``; the library divides fractions with all their digits."""
    if not isinstance(divisor, float):
        return 0.0
    return _DIVISION if _LEAST_USUAL <= abs(divisor) <= _MOST_USUAL else _LONG_DIVISION


def _in_order(parts: list[_Part]) -> list[int] | None:
    """Order parts so that each part follows the parts that it applies to the same value.

    Returns:
        The indices of all parts, or None if a part applies itself to the same value.
    """
    order: list[int] = []
    state = [0] * len(parts)  # 0: not seen; 1: under way; 2: in order
    for start in range(len(parts)):
        waiting = [start]
        while waiting:
            index = waiting[-1]
            if state[index]:
                waiting.pop()
                if state[index] == 1:
                    state[index] = 2
                    order.append(index)
                continue
            state[index] = 1
            for part in parts[index].same:
                if state[part] == 1:
                    return None
                if not state[part]:
                    waiting.append(part)
    return order


def _schemas(schema: Mapping[str, Any], keyword: str) -> Iterator[Any]:
    """Yield the schemas of a keyword, which has a schema, a list, or a map of schemas."""
    found = schema.get(keyword)
    if isinstance(found, list):
        yield from found
    elif isinstance(found, Mapping) and keyword in _MAPS:
        yield from found.values()
    elif found is not None:
        yield found


def _length(found: Any) -> int:
    return len(found) if isinstance(found, Mapping | list) else 0


_ATOM = re.compile(
    r"""(?P<open>\()|(?P<close>\))
    |(?P<class>\[\^?\]?(?:[^\]\\]|\\.)*+\]?)
    |(?P<count>\{(?P<low>\d{1,9})?,?(?P<high>\d{1,9})?\})
    |(?P<other>\\[pP](?:\{[^}]*\}|.)|\\.|.)""",
    re.VERBOSE | re.DOTALL,
)
_IGNORES_CASE = re.compile(r"\(\?[a-z]*i")
# With the flag x, spaces and comments may stand inside a count. JSON Schema has no such flag.
_IGNORES_SPACES = re.compile(r"\(\?[a-zA-Z]*x")
_REPETITIONS = ("*", "+", "?")
_PROPERTY, _NEGATED, _ANY, _BOTH_CASES, _OPTIONAL = 800.0, 30.0, 10.0, 5.0, 8.0
# The library replaces each of these classes by its characters, and then reads the whole pattern
# anew. The numbers are the characters of the replacements.
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_REPLACEMENT_CHARS = {"d": 5, "D": 6, "w": 12, "W": 13, "s": 60, "S": 61, "c": 0}
_CHARS_PER_UNIT = 4


def pattern_cost(pattern: str) -> float:
    """Return about the number of states of a pattern's automaton, with counts expanded."""
    if _IGNORES_SPACES.search(pattern):
        return math.inf
    levels = [0.0]
    last = 0.0
    for match in _ATOM.finditer(pattern):
        if match["open"]:
            levels.append(1.0)
            last = 0.0
        elif match["close"] and len(levels) > 1:
            last = levels.pop()
            levels[-1] += last
        elif match["count"]:
            times = max(int(match["low"] or 1), int(match["high"] or 1)) - 1
            levels[-1] += last * times
            last *= times + 1
        elif match.group() in _REPETITIONS:
            # A count behind it repeats the same part again.
            levels[-1] += _OPTIONAL if match.group() == "?" else 1
        else:
            last = _atom_cost(match.group())
            levels[-1] += last
    return sum(levels) * (_BOTH_CASES if _IGNORES_CASE.search(pattern) else 1)


def replacement_cost(pattern: str) -> float:
    r"""Return the units for replacing the classes of a pattern, such as ``\d`` and ``\s``.

    A pattern is compiled only once, so these units are no part of the weight.
    """
    replaced = [name for name in _ESCAPED.findall(pattern) if name in _REPLACEMENT_CHARS]
    length = len(pattern) + sum(_REPLACEMENT_CHARS[name] for name in replaced)
    return len(replaced) * length / _CHARS_PER_UNIT


def _atom_cost(atom: str) -> float:
    """Return the units of a character or a class; classes of Unicode have many ranges."""
    units = 1.0 + len(atom) / 2 + _PROPERTY * len(re.findall(r"\\[pP]", atom))
    if atom == ".":
        units += _ANY
    if atom[:2] == "[^" or not atom.isascii() or re.search(r"\\[DSWux]", atom):
        units += _NEGATED
    return units

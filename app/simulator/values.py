"""Plausible JSON values for a key or a JSON schema.

The values are taken from the facts of a prompt. If no fact fits, a value is drawn at random, with
the prompt as the seed. This module makes the arguments of tool calls and the JSON answers.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from app.simulator.facts import NUMBER, Facts, normalised, number_in
from app.simulator.prose import paragraph

_MAX_DEPTH = 6
_MAX_ITEMS = 1000
_MAX_VALUES = 5000
_MAX_CHARS = 100_000
_TEXT_CHARS = 160
_TYPE_WORDS = {
    "object": {"properties", "additionalProperties", "required", "minProperties"},
    "array": {"items", "prefixItems", "minItems"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
_BOUNDS = _TYPE_WORDS["number"] | {"minItems", "maxItems", "minLength", "maxLength", "format"}
_REMARK = re.compile(r"\{\"[^{}]*\}$")
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


def value_of_key(key: str, facts: Facts) -> Any:
    """Make a value that fits the name of a key."""
    name = normalised(key)
    for words, make in _KINDS:
        if words & set(name.split()):
            return make(key, facts)
    if name.split()[:1] and name.split()[0] in _BOOLEAN_STARTS:
        return _boolean(key, facts)
    labelled = facts.label(key)
    return (labelled or next(iter(facts.quoted), " ".join(facts.words[:2])))[:_TEXT_CHARS]


def value_of_schema(schema: Mapping[str, Any], facts: Facts) -> Any:
    """Make a value that fits a JSON schema; `$ref`s inside the schema are resolved.

    The keywords `pattern`, `uniqueItems`, `not` and `if` are ignored.
    """
    return _SchemaValues(facts, schema).value("", schema, 0)


class _SchemaValues:
    """Walks through a schema and, from a depth of 6 on, chooses options that end the recursion."""

    def __init__(self, facts: Facts, root: Mapping[str, Any]) -> None:
        self._facts = facts
        self._root = root
        # The number of values is limited, because a schema may have endless recursion.
        self._left = _MAX_VALUES

    def value(self, name: str, schema: Any, depth: int) -> Any:
        """Make a value for the property `name`."""
        self._left -= 1
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._enumerated(name, schema["enum"])
        kind = schema.get("type") or _implied_type(schema)
        if isinstance(kind, list):
            kind = next((item for item in kind if item != "null"), "null")
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(name, schema, depth)
        return self._scalar(name, schema, str(kind))

    def _scalar(self, name: str, schema: Mapping[str, Any], kind: str) -> Any:
        if kind in ("number", "integer"):
            return self._bounded(name, schema, whole=kind == "integer")
        if kind == "boolean":
            return _boolean(name, self._facts)
        return None if kind == "null" else self._string(name, schema)

    def _array(self, name: str, schema: Mapping[str, Any], depth: int) -> list[Any]:
        first: Sequence[Any] = schema.get("prefixItems") or ()
        usual = 0 if depth >= _MAX_DEPTH or schema.get("items") is False else 1
        count = _size(schema, "Items", max(usual, len(first)))
        items = schema.get("items") or {"type": "string"}
        return [
            self.value(name, first[index] if index < len(first) else items, depth + 1)
            for index in range(count)
        ]

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        rest = schema.get("additionalProperties")
        if self._left < 0 or depth >= 2 * _MAX_DEPTH:
            return {}
        keys: list[str] = list(schema.get("required") or (properties if depth < _MAX_DEPTH else ()))
        if not properties and isinstance(rest, Mapping):
            keys += [key for key in self._free_keys(schema, depth) if key not in keys]
        other = rest if isinstance(rest, Mapping) else {}
        return {key: self.value(key, properties.get(key, other), depth + 1) for key in keys}

    def _free_keys(self, schema: Mapping[str, Any], depth: int) -> list[str]:
        """Choose the keys of a map: two keys, within the bounds of the schema."""
        count = _size(schema, "Properties", 0 if depth >= _MAX_DEPTH else 2)
        names = self._resolved(schema.get("propertyNames"), depth)
        offered = list(names.get("enum") or self._facts.words)
        offered += [f"key_{index}" for index in range(len(offered), count) if "enum" not in names]
        return offered[:count]

    def _resolved(self, schema: Any, depth: int) -> Mapping[str, Any]:
        """Follow a schema's references and choose one of the schema's options."""
        found: Mapping[str, Any] = schema if isinstance(schema, Mapping) else {}
        for _ in range(_MAX_DEPTH):
            reference = found.get("$ref")
            options = found.get("anyOf") or found.get("oneOf")
            if isinstance(reference, str) and reference.startswith("#"):
                found = _merged(_without(found, "$ref"), _pointed(self._root, reference))
            elif options:
                chosen = self._chosen(options, depth)
                found = _merged(_without(found, "anyOf", "oneOf"), chosen)
            elif parts := found.get("allOf"):
                found = _without(found, "allOf")
                for part in parts:
                    found = _merged(found, self._resolved(part, depth))
            else:
                break
        return {**_remarks(found), **found}

    def _chosen(self, options: Sequence[Any], depth: int) -> Any:
        """Return the first option that is not null.

        From a depth of 6 on, return null if null is an option.
        """
        null = {"type": "null"}
        if depth >= _MAX_DEPTH and null in options:
            return null
        return next((option for option in options if option != null), null)

    def _enumerated(self, name: str, options: Sequence[Any]) -> Any:
        stated = (self._facts.label(name) or "").lower()
        for option in options:
            if str(option).lower() == stated:
                return option
        return max(options[:_MAX_ITEMS], key=self._facts.mentions)

    def _bounded(self, name: str, schema: Mapping[str, Any], *, whole: bool) -> float:
        value = _stated_number(name, self._facts)
        if value is None:
            value = next(iter(self._facts.numbers), self._facts.draw(name) % 90 + 10)
        low, high = _number(schema, "minimum"), _number(schema, "maximum")
        above, below = _number(schema, "exclusiveMinimum"), _number(schema, "exclusiveMaximum")
        step = _number(schema, "multipleOf") or (1 if whole else None)
        # An exclusive bound is not allowed as a value, so the value keeps a distance from the
        # bound. The distance is one step. Without a step, the distance is at most half of the room
        # between the two bounds.
        room = below - above if above is not None and below is not None else 2
        apart = step or min(1, room / 2)
        if above is not None:
            low = max(above + apart, above + apart if low is None else low)
        if below is not None:
            high = min(below - apart, below - apart if high is None else high)
        value = value if high is None else min(value, high)
        value = value if low is None else max(value, low)
        if step:
            steps = math.floor(value / step)
            steps += low is not None and steps * step < low
            value = round(steps * step, 10)
        return int(value) if whole else value

    def _string(self, name: str, schema: Mapping[str, Any]) -> str:
        format_ = str(schema.get("format", ""))
        if format_.startswith("date"):
            time = "T09:00:00Z" if format_ == "date-time" else ""
            return _date(name, self._facts) + time
        if format_ in _FORMATS:
            return _FORMATS[format_](name, self._facts)
        value = self._facts.label(name) or value_of_key(name, self._facts)
        text = ", ".join(value) if isinstance(value, list) else str(value)
        text = text.ljust(min(int(_number(schema, "minLength") or 0), _MAX_CHARS), ".")
        most = _number(schema, "maxLength")
        return text[: max(_TEXT_CHARS, len(text)) if most is None else int(most)]


def _implied_type(schema: Mapping[str, Any]) -> str:
    """Return the type that the other keys of a schema imply."""
    return next((kind for kind, words in _TYPE_WORDS.items() if words & schema.keys()), "string")


def _number(schema: Mapping[str, Any], key: str) -> float | None:
    value = schema.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _size(schema: Mapping[str, Any], parts: str, usual: int) -> int:
    """Return the number of items or properties: the usual number, within the schema's bounds."""
    least, most = _number(schema, f"min{parts}"), _number(schema, f"max{parts}")
    return min(max(usual, int(least or 0)), _MAX_ITEMS, _MAX_ITEMS if most is None else int(most))


def _without(schema: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in keys}


def _merged(schema: Mapping[str, Any], other: Any) -> dict[str, Any]:
    """Merge two schemas.

    The properties and the required keys of both schemas are combined. For any other key, the second
    schema decides.
    """
    other = other if isinstance(other, Mapping) else {}
    both = {**schema, **other}
    if "properties" in schema and "properties" in other:
        both["properties"] = {**schema["properties"], **other["properties"]}
    if "required" in schema and "required" in other:
        both["required"] = list(dict.fromkeys([*schema["required"], *other["required"]]))
    return both


def _pointed(root: Mapping[str, Any], reference: str) -> Any:
    """Return the target of a reference such as `#/$defs/line`; for a missing target, return {}."""
    target: Any = root
    for word in reference.split("/")[1:]:
        part = word.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list) and part.isdigit() and int(part) < len(target):
            target = target[int(part)]
        else:
            target = target.get(part, {}) if isinstance(target, Mapping) else {}
    return target


def _remarks(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bounds that are written as JSON at the end of a description.

    Clients write bounds there because not every provider accepts bounds as keys of a schema.
    """
    found = _REMARK.search(str(schema.get("description", "")))
    try:
        remark = json.loads(found[0]) if found else {}
    except ValueError:
        return {}
    return {key: value for key, value in remark.items() if key in _BOUNDS}


def _stated_number(key: str, facts: Facts) -> float | None:
    found = re.search(NUMBER, facts.label(key) or "")
    return number_in(found[0]) if found else facts.number_near(key)


def _amount(key: str, facts: Facts) -> float:
    stated = _stated_number(key, facts)
    return facts.draw(key) % 500_000 / 100 + 20 if stated is None else stated


def _whole(key: str, facts: Facts) -> int:
    stated = _stated_number(key, facts)
    return facts.draw(key) % 90 + 10 if stated is None else int(stated)


def _share(key: str, facts: Facts) -> float:
    stated = _stated_number(key, facts)
    return (facts.draw(key) % 30 + 70) / 100 if stated is None or not 0 <= stated <= 1 else stated


def _boolean(key: str, facts: Facts) -> bool:
    stated = _TRUTHS.get((facts.label(key) or "").lower())
    return facts.pick(key, (True, True, True, False)) if stated is None else stated


def _date(key: str, facts: Facts) -> str:
    stated = re.search(r"\d{4}-\d{2}-\d{2}", facts.label(key) or "")
    if stated:
        return stated[0]
    if facts.dates:
        return facts.pick(key, facts.dates)
    return (date(2025, 1, 1) + timedelta(days=facts.draw(key) % 365)).isoformat()


def _identifier(key: str, facts: Facts) -> str:
    stated = facts.label(key) or next(iter(facts.codes), "")
    return stated[:_TEXT_CHARS] or f"{key[:3].upper()}-{facts.draw(key) % 9000 + 1000}"


def _party(key: str, facts: Facts) -> str:
    stated = facts.label(key) or next(iter(facts.names), "")
    return stated[:_TEXT_CHARS] or facts.words[0].capitalize()


def _email(key: str, facts: Facts) -> str:
    return facts.label(key) or next(iter(facts.emails), f"{facts.words[0]}@example.com")


def _currency(key: str, facts: Facts) -> str:
    found = re.search(r"\b(?:USD|EUR|GBP|CHF|JPY|CAD|AUD)\b", facts.text)
    return facts.label(key) or (found[0] if found else "USD")


def _several(key: str, facts: Facts) -> list[str]:
    stated = facts.label(key)
    return [part.strip() for part in stated.split(",")] if stated else facts.words[:3]


def _sentence(key: str, facts: Facts) -> str:
    return facts.label(key) or paragraph(facts).partition(". ")[0] + "."


def _choice(*choices: str) -> Callable[[str, Facts], str]:
    def choose(key: str, facts: Facts) -> str:
        stated = (facts.label(key) or "").lower()
        return stated if stated in choices else facts.pick(key, choices)

    return choose


_FORMATS: Mapping[str, Callable[[str, Facts], str]] = {
    "email": _email,
    "uuid": lambda name, facts: str(UUID(int=facts.draw(name) % 2**128, version=4)),
    "uri": lambda name, facts: f"https://example.com/{facts.draw(name) % 10_000}",
    "time": lambda *_: "09:00:00Z",
}
_BOOLEAN_STARTS = frozenset(("is", "has", "can", "needs", "requires", "should", "was"))
_KINDS: tuple[tuple[frozenset[str], Callable[[str, Facts], Any]], ...] = (
    (
        frozenset(
            "valid approved compliant passed eligible duplicate matches matched flagged ok".split()
        ),
        _boolean,
    ),
    (frozenset(("confidence", "probability", "ratio", "similarity")), _share),
    (frozenset(("date", "due", "deadline")), _date),
    (frozenset(("email", "mail")), _email),
    (frozenset(("currency",)), _currency),
    (frozenset(("sentiment",)), _choice("positive", "neutral", "negative")),
    (frozenset(("severity", "priority", "risk", "urgency")), _choice("low", "medium", "high")),
    (frozenset(("status", "verdict", "result")), _choice("approved", "approved", "review")),
    (frozenset(("decision", "recommendation", "action")), _choice("approve", "proceed", "review")),
    (frozenset(("id", "number", "code", "sku", "reference")), _identifier),
    (
        frozenset(
            "amount total subtotal price cost balance tax value budget salary revenue".split()
        ),
        _amount,
    ),
    (
        frozenset("count quantity qty score days years stock units level age points".split()),
        _whole,
    ),
    (
        frozenset("vendor supplier customer company candidate name person employee".split()),
        _party,
    ),
    (
        frozenset(
            "items skills issues risks reasons findings recommendations keywords violations tags "
            "actions steps suppliers errors warnings topics questions".split()
        ),
        _several,
    ),
    (
        frozenset(
            "summary reason notes comment explanation description analysis rationale".split()
        ),
        _sentence,
    ),
)

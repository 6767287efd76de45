"""Plausible JSON values for a key or a JSON schema, taken from a prompt's facts or drawn from them.

Arguments of tool calls and JSON answers are both made here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from app.simulator.facts import NUMBER, Facts, normalised, number_in
from app.simulator.prose import paragraph

_MAX_DEPTH = 6
_TEXT_CHARS = 160
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


def value_of_key(key: str, facts: Facts) -> Any:
    """A value for a key that nothing but its name describes."""
    name = normalised(key)
    for words, make in _KINDS:
        if words & set(name.split()):
            return make(key, facts)
    if name.split()[:1] and name.split()[0] in _BOOLEAN_STARTS:
        return _boolean(key, facts)
    labelled = facts.label(key)
    return _short(labelled or next(iter(facts.quoted), " ".join(facts.words[:2])))


def value_of_schema(schema: Mapping[str, Any], facts: Facts) -> Any:
    """A value that fits a JSON schema, its own `$ref`s resolved."""
    return _SchemaValues(facts, schema).value("", schema, 0)


class _SchemaValues:
    """Walks one schema; recursive ones end at a depth of 6."""

    def __init__(self, facts: Facts, root: Mapping[str, Any]) -> None:
        self._facts = facts
        self._root = root

    def value(self, name: str, schema: Mapping[str, Any], depth: int) -> Any:
        """A value for the property `name`."""
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._enumerated(name, schema["enum"])
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((item for item in kind if item != "null"), "null")
        if kind == "object" or "properties" in schema:
            return self._object(schema, depth)
        if kind == "array":
            items = schema.get("items") or {"type": "string"}
            count = 0 if depth >= _MAX_DEPTH else max(1, int(schema.get("minItems", 1)))
            return [self.value(name, items, depth + 1) for _ in range(count)]
        return self._scalar(name, schema, str(kind))

    def _scalar(self, name: str, schema: Mapping[str, Any], kind: str) -> Any:
        if kind in ("number", "integer"):
            number = self._bounded(name, schema)
            return int(number) if kind == "integer" else number
        if kind == "boolean":
            return _boolean(name, self._facts)
        return None if kind == "null" else self._string(name, schema)

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        required: Sequence[str] = schema.get("required") or list(properties)
        if depth >= _MAX_DEPTH:
            return {}
        return {key: self.value(key, properties.get(key) or {}, depth + 1) for key in required}

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        for _ in range(_MAX_DEPTH):
            reference = schema.get("$ref")
            options = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
            if isinstance(reference, str) and reference.startswith("#/"):
                target: Any = self._root
                for part in reference[2:].split("/"):
                    target = target.get(part, {})
                schema = target
            elif options:
                schema = next((option for option in options if option.get("type") != "null"), {})
            else:
                break
        return schema

    def _enumerated(self, name: str, options: Sequence[Any]) -> Any:
        stated = (self._facts.label(name) or "").lower()
        return next((option for option in options if str(option).lower() == stated), options[0])

    def _bounded(self, name: str, schema: Mapping[str, Any]) -> float:
        value = _stated_number(name, self._facts)
        if value is None:
            value = next(iter(self._facts.numbers), self._facts.draw(name) % 90 + 10)
        low, high = schema.get("minimum"), schema.get("maximum")
        value = value if low is None else max(value, low)
        return value if high is None else min(value, high)

    def _string(self, name: str, schema: Mapping[str, Any]) -> str:
        if str(schema.get("format", "")).startswith("date"):
            time = "T09:00:00Z" if schema["format"] == "date-time" else ""
            return _date(name, self._facts) + time
        value = self._facts.label(name) or value_of_key(name, self._facts)
        text = ", ".join(value) if isinstance(value, list) else str(value)
        return text[: schema.get("maxLength", _TEXT_CHARS)]


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
    return _short(stated) if stated else f"{key[:3].upper()}-{facts.draw(key) % 9000 + 1000}"


def _party(key: str, facts: Facts) -> str:
    stated = facts.label(key) or next(iter(facts.names), "")
    return _short(stated) if stated else facts.words[0].capitalize()


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


def _short(text: str) -> str:
    return text[:_TEXT_CHARS]


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

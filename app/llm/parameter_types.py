"""Checks the types of parameters, nested ones included, against those of the providers' SDKs.

The table ``parameter_types.json`` has the types that the official SDKs declare; it is written by
``make parameter-types``. The types of parameters that only compatible servers have are here. A type
has one of these forms:

- ``text``, ``integer``, ``number``, ``boolean``, ``null``, ``object`` (with any keys), ``value``
- ``{"values": [...]}``: one of some texts or numbers
- ``{"list": T}``, ``{"map": T}``: a list, or an object with any keys, whose parts have one type
- ``{"fields": {name: T}, "required": [...]}``: an object with these keys and no others
- ``{"either": [T, ...]}``: a value of one of the types
"""

import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from app.domain.suggestions import did_you_mean, listed, shortened

#: The types that the SDKs declare, by request form and parameter.
TABLE = Path(__file__).with_suffix(".json")
Type = Any
#: The request forms; the protocol of Anthropic has only one form.
CHAT, RESPONSES, MESSAGES = "chat", "responses", "messages"

# Prices decide which tiers, speeds and regions a request may name; see ``app.costs.pricing``.
_PRICED = dict.fromkeys(("service_tier", "speed", "inference_geo"), "text")
_SAMPLING = {"temperature": "number", "top_p": "number", "top_k": "integer"}
_REASONING = {"values": ["none", "minimal", "low", "medium", "high", "xhigh", "max"]}
# Texts only: gateways choose models by lists and objects in the metadata.
_METADATA = {"map": "text"}
_OF_SERVERS: Mapping[str, Type] = {
    **_SAMPLING,
    "chat_template_kwargs": "object",
    "enable_thinking": "boolean",
    "ignore_eos": "boolean",
    "include_reasoning": "boolean",
    "min_p": "number",
    "min_tokens": "integer",
    "output_config": "object",
    "random_seed": "integer",
    "reasoning_format": "text",
    "reasoning_split": "boolean",
    "repetition_penalty": "number",
    "safe_prompt": "boolean",
    "stop_token_ids": {"list": "integer"},
    "thinking": {"either": ["boolean", "text", "object"]},
    "thinking_budget": "integer",
    "thinking_mode": "text",
    "top_a": "number",
    "typical_p": "number",
}
# OpenRouter's form of the parameter, in chat completions.
_REASONING_IN_CHAT = {
    "fields": {
        "effort": {"either": [_REASONING, "null"]},
        "enabled": "boolean",
        "exclude": "boolean",
        "max_tokens": "integer",
        "summary": "text",
    },
    "required": [],
}
_NOUNS = {
    "text": ("a text", "texts"),
    "integer": ("a whole number", "whole numbers"),
    "number": ("a number", "numbers"),
    "boolean": ("true or false", "true or false"),
    "null": ("null", "null"),
    "object": ("an object", "objects"),
    "value": ("a value", "values"),
}


@cache
def types_of(form: str) -> Mapping[str, Type]:
    """Return the types of a request form's parameters, by name.

    Args:
        form: ``CHAT``, ``RESPONSES`` or ``MESSAGES``.
    """
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    chat, responses, messages = (table[name] for name in (CHAT, RESPONSES, MESSAGES))
    if form == MESSAGES:
        # The client translates these parameters of OpenAI, or leaves them out.
        others = {name: type_ for name, type_ in chat.items() if name.startswith("prompt_cache_")}
        found = {**others, "stop": chat["stop"], **_SAMPLING, **messages}
    elif form == RESPONSES:
        found = {**_OF_SERVERS, **chat, **responses}
        # The client translates the form of chat completions.
        found["tool_choice"] = {"either": [chat["tool_choice"], responses["tool_choice"]]}
    else:
        found = {**_OF_SERVERS, **responses, "reasoning": _REASONING_IN_CHAT, **chat}
    return {**found, **_PRICED, "metadata": _METADATA}


def problem_in(form: str, given: Mapping[str, Any], skipped: Iterable[str] = ()) -> str | None:
    """Return the first parameter with a wrong type, in one line; None if all types are right.

    Args:
        form: The request form.
        given: Parameters by name. A parameter without a type is not checked.
        skipped: Names of parameters for whose types the operator vouches.

    Example:
        >>> problem_in("responses", {"reasoning": {"Effort": "low"}})[:52]
        "reasoning.Effort in llm_config is no known key: use "
    """
    types = types_of(form)
    for name, value in given.items():
        if name in types and name not in skipped:
            problem = _problem(types[name], value, name)
            if problem is not None:
                return problem
    return None


def _problem(type_: Type, value: Any, path: str) -> str | None:
    if isinstance(type_, str):
        return None if _is_simple(type_, value) else _wrong(type_, value, path)
    if "either" in type_:
        return _problem_in_union(type_["either"], value, path)
    if "values" in type_:
        return _problem_in_choice(type_, value, path)
    if "list" in type_ and isinstance(value, list | tuple):
        parts = ((f"{path}[{place}]", part) for place, part in enumerate(value))
        return _first(type_["list"], parts)
    if "list" not in type_ and isinstance(value, Mapping):
        return _problem_in_object(type_, value, path)
    return _wrong(type_, value, path)


def _problem_in_choice(type_: Type, value: Any, path: str) -> str | None:
    known = type_["values"]
    # True equals 1, and a list cannot be looked up.
    if any(type(value) is type(one) and value == one for one in known):
        return None
    meant = did_you_mean(plain(value), map(str, known)) if isinstance(value, str) else ""
    return _wrong(type_, value, path) + meant


def _problem_in_object(type_: Type, value: Mapping[Any, Any], path: str) -> str | None:
    if "map" not in type_:
        return _problem_in_fields(type_, value, path)
    for key in value:
        if not isinstance(key, str):
            return f"{_under(path, key)} in llm_config is no known key: keys are texts"
    return _first(type_["map"], ((_under(path, key), part) for key, part in value.items()))


def _first(type_: Type, parts: Iterable[tuple[str, Any]]) -> str | None:
    problems = (_problem(type_, part, path) for path, part in parts)
    return next((problem for problem in problems if problem is not None), None)


def _problem_in_fields(type_: Type, value: Mapping[Any, Any], path: str) -> str | None:
    fields = type_["fields"]
    for key in value:
        if key not in fields:
            return (
                f"{_under(path, key)} in llm_config is no known key: use {listed(fields)}"
                f"{did_you_mean(plain(key), fields)}"
            )
    for name in type_["required"]:
        if name not in value:
            return f"{path} in llm_config has no {name!r}: give {_described(fields[name])}"
    parts = ((_problem(fields[key], part, _under(path, key))) for key, part in value.items())
    return next((problem for problem in parts if problem is not None), None)


def _problem_in_union(types: list[Type], value: Any, path: str) -> str | None:
    given = [type_ for type_ in types if type_ != "null"]
    if len(given) == 1 and value is not None:
        return _problem(given[0], value, path)
    if any(_problem(type_, value, path) is None for type_ in types):
        return None
    objects = [type_ for type_ in types if isinstance(type_, dict) and "fields" in type_]
    if isinstance(value, Mapping) and objects:
        fitting = [type_ for type_ in objects if _fits_kind(type_, value)]
        return _problem(fitting[0], value, path) if fitting else _no_kind(objects, value, path)
    if isinstance(value, list | tuple):
        for type_ in types:
            if isinstance(type_, dict) and "list" in type_:
                return _problem(type_, value, path)
    choices = [type_["values"] for type_ in types if isinstance(type_, dict) and "values" in type_]
    known = map(str, chain.from_iterable(choices))
    meant = did_you_mean(plain(value), known) if isinstance(value, str) else ""
    return _wrong({"either": types}, value, path) + meant


def _no_kind(objects: list[Type], value: Mapping[Any, Any], path: str) -> str | None:
    """Return the problem of an object whose ``type`` is missing, or is that of no known object."""
    kinds = list(dict.fromkeys(kind for type_ in objects for kind in _kinds(type_)))
    if "type" in value:
        return _problem_in_choice({"values": kinds}, value["type"], f"{path}.type")
    keys = [name for type_ in objects for name in type_["fields"]]
    only = {"fields": {**dict.fromkeys(keys, "value"), "type": {"values": kinds}}}
    return _problem_in_fields({**only, "required": ["type"]}, value, path)


def _kinds(type_: Type) -> list[Any]:
    kind = type_["fields"].get("type")
    return kind["values"] if isinstance(kind, dict) and "values" in kind else []


def _fits_kind(type_: Type, value: Mapping[Any, Any]) -> bool:
    kinds = _kinds(type_)
    return not kinds or ("type" in value and value["type"] in kinds)


def _is_simple(type_: str, value: Any) -> bool:
    if type_ == "text":
        return isinstance(value, str)
    if type_ == "object":
        return isinstance(value, Mapping)
    if type_ in ("boolean", "null"):
        return isinstance(value, bool) if type_ == "boolean" else value is None
    if type_ == "value":
        return True
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (
        type_ == "number" and isinstance(value, float) and math.isfinite(value)
    )


def _wrong(type_: Type, value: Any, path: str) -> str:
    return f"{path} in llm_config is {shortened(value)}: give {_described(type_)}"


def _described(type_: Type, *, plural: bool = False) -> str:
    if isinstance(type_, str):
        return _NOUNS[type_][plural]
    if "values" in type_:
        return f"{'values from' if plural else 'one of'} {listed(type_['values'])}"
    if "list" in type_:
        return f"{'lists' if plural else 'a list'} of {_described(type_['list'], plural=True)}"
    if "map" in type_:
        return f"{'objects' if plural else 'an object'} of {_described(type_['map'], plural=True)}"
    if "either" in type_:
        return " or ".join(dict.fromkeys(_alternatives(type_["either"], plural)))
    return f"{'objects' if plural else 'an object'} with {listed(type_['fields'])}"


def _alternatives(types: list[Type], plural: bool) -> Iterator[str]:
    objects = [type_ for type_ in types if isinstance(type_, dict) and "fields" in type_]
    kinds = dict.fromkeys(kind for type_ in objects for kind in _kinds(type_))
    for type_ in types:
        if type_ in objects and kinds:
            yield f"{'objects' if plural else 'an object'} whose type is one of {listed(kinds)}"
        elif type_ != "null":
            yield _described(type_, plural=plural)


def _under(path: str, key: Any) -> str:
    plain_key = isinstance(key, str) and key.isascii() and key.isidentifier()
    return f"{path}.{key}" if plain_key and len(key) <= 100 else f"{path}[{shortened(key)}]"  # noqa: PLR2004


def plain(name: object) -> str:
    """Return a name with ordinary characters: no full-width letters and no invisible ones."""
    text = unicodedata.normalize("NFKC", str(name)[:200])
    return "".join(char for char in text if unicodedata.category(char) not in ("Cf", "Cc")).strip()

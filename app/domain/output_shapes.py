"""The parts that an output can have, as far as an ``output_schema`` or a sub-workflow tells them.

A shape is the known structure of a value. ``None`` stands for a value of unknown structure: every
path into such a value is accepted. A JSON Schema usually permits more keys than it lists. A model
is asked only for the listed keys, so a path to a key that the schema does not list is a mistake,
unless the schema permits further keys explicitly.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from app.domain.agent import Agent
from app.domain.kinds import WORKFLOW
from app.domain.schemas import schema_of
from app.domain.sub_workflow import embedded
from app.domain.suggestions import did_you_mean, listed
from app.domain.workflow import Workflow

_JOINT, _EITHER = ("allOf",), ("anyOf", "oneOf")
_SCALARS = frozenset({"number", "integer", "boolean", "null"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """A value that fits a part of a JSON Schema; references lead into the whole schema."""

    part: Any
    whole: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Items:
    """A list, such as the output of an agent with a ``for_each``."""

    element: "Shape"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """An object with exactly these keys, such as the output of a sub-workflow."""

    shapes: Mapping[str, "Shape"]


Shape = Schema | Items | Fields | None


def shape_of(agent: Agent) -> Shape:
    """Return the shape of an agent's output; for a ``for_each``, the list of all outputs."""
    one: Shape = None
    if agent.kind == WORKFLOW:
        inner = embedded(agent)
        if inner is not None:
            one = Fields(shapes={each.name: shape_of(each) for each in inner.agents})
    elif agent.output_schema is not None:
        schema = schema_of(agent.output_schema)
        one = Schema(part=schema, whole=schema)
    return one if agent.for_each is None else Items(element=one)


def input_shape(workflow: Workflow) -> Shape:
    """Return the shape of the input of a workflow's runs."""
    schema = schema_of(workflow.input_schema)
    return None if schema is None else Schema(part=schema, whole=schema)


def keys_of(shape: Shape) -> dict[str, Shape]:
    """Return the shapes of the keys that a schema lists."""
    listed_keys = _listed(shape) if isinstance(shape, Schema) else ()
    return {key: part_of_shape(shape, (key,)) for key in listed_keys}


def find_missing(shape: Shape, path: Sequence[Any], seen: str) -> str | None:
    """Find the first step of a path that leads to a part which a value does not have.

    Args:
        shape: The shape of the value.
        path: Keys and indices.
        seen: The value's name, for the message.

    Returns:
        The problem, such as ``'judge' has no field 'verdikt'; its fields are 'verdict'; did you
        mean 'verdict'?``, or None if the value may have the part.
    """
    for step in path:
        problem = _problem(shape, step, seen)
        if problem is not None:
            return problem
        shape = part_of_shape(shape, (step,))
        seen += f".{step}" if isinstance(step, str) else f"[{step}]"
    return None


def part_of_shape(shape: Shape, path: Sequence[Any]) -> Shape:
    """Return the shape of the part that a path leads to; None if it is not known."""
    for step in path:
        match shape:
            case Items(element=element):
                shape = None if isinstance(step, str) else element
            case Fields(shapes=shapes):
                shape = shapes.get(step) if isinstance(step, str) else None
            case Schema():
                shape = _either(list(_offers(shape, step)), shape.whole)
            case _:
                return None
    return shape


def is_no_list(shape: Shape) -> bool:
    """Whether a value certainly is not a list; a string may contain a list as JSON."""
    if isinstance(shape, Schema):
        types = _types(shape)
        return bool(types) and not types & {"array", "string"}
    return isinstance(shape, Fields)


def _problem(shape: Shape, step: Any, seen: str) -> str | None:
    is_key = isinstance(step, str)
    match shape:
        case Items() if is_key:
            return f"{seen!r} is a list, so it has no field {step!r}"
        case Fields(shapes=shapes) if step not in shapes:
            return _no_field(seen, step, shapes)
        case Schema() if not any(True for _ in _offers(shape, step)):
            return _not_in_schema(shape, step, seen)
    return None


def _not_in_schema(shape: Schema, step: Any, seen: str) -> str | None:
    is_key = isinstance(step, str)
    if is_key and (fields := list(dict.fromkeys(_listed(shape)))):
        return _no_field(seen, step, fields)
    types = _types(shape)
    if not types or not types <= _SCALARS | ({"array"} if is_key else {"object"}):
        return None
    part = f"field {step!r}" if is_key else f"element [{step}]"
    return f"{seen!r} is of the type {' or '.join(sorted(types))}, so it has no {part}"


def _no_field(seen: str, step: Any, fields: Sequence[str] | Mapping[str, Shape]) -> str:
    if not isinstance(step, str):
        return f"{seen!r} is an object, so it has no element [{step}]"
    return (
        f"{seen!r} has no field {step!r}; its fields are {listed(fields)}"
        f"{did_you_mean(step, fields)}"
    )


def _offers(shape: Schema, step: Any) -> Iterator[Shape]:
    """Yield the shapes that the schema gives to a key or an index; None is an unknown shape."""
    for part in _parts(shape):
        inside: list[Any] = []
        if not isinstance(step, str):
            is_list = "items" in part or "array" in _types_of(part, set())
            inside = [part.get("items", True)] if is_list else []
        elif step in (properties := _mapping(part, "properties")):
            inside = [properties[step]]
        elif patterns := _mapping(part, "patternProperties"):
            inside = [each for pattern, each in patterns.items() if _fits(pattern, step)]
        elif part.get("additionalProperties"):
            inside = [part["additionalProperties"]]
        for each in inside:
            is_known = isinstance(each, Mapping) and each
            yield Schema(part=each, whole=shape.whole) if is_known else None


def _either(shapes: Sequence[Shape], whole: Any) -> Shape:
    """Return the shape of a value that fits one of several schemas."""
    parts = [shape.part for shape in shapes if isinstance(shape, Schema)]
    if not parts or len(parts) < len(shapes):
        return None
    return Schema(part=parts[0] if len(parts) == 1 else {"anyOf": parts}, whole=whole)


def _listed(shape: Schema) -> Iterator[str]:
    for part in _parts(shape):
        yield from _mapping(part, "properties")


def _types(shape: Schema) -> set[str]:
    """Return the types that the value can have; empty if they are not known."""
    found: set[str] = set()
    for part in _parts(shape):
        types = _types_of(part, set())
        if not types and not any(key in part for key in ("$ref", *_JOINT, *_EITHER)):
            return set()
        found |= types
    return found


def _types_of(part: Mapping[str, Any], default: set[str]) -> set[str]:
    types = part.get("type")
    if types is None:
        return default
    return {types} if isinstance(types, str) else set(types) if isinstance(types, list) else set()


def _parts(shape: Schema) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and all schemas that apply, or may apply, to the same value."""
    waiting, met = [shape.part], set()
    while waiting:
        part = waiting.pop()
        if not isinstance(part, Mapping) or id(part) in met:
            continue
        met.add(id(part))
        yield part
        if "$ref" in part:
            waiting.append(_target(part["$ref"], shape.whole))
        for keyword in (*_JOINT, *_EITHER):
            found = part.get(keyword)
            waiting += found if isinstance(found, list) else []
        waiting += [part.get(keyword) for keyword in ("then", "else")]


def _target(reference: Any, whole: Any) -> Any:
    """Return the part of a schema that a reference leads to; None if there is no such part."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    target = whole
    for step in unquote(reference[1:]).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list) and key.isdecimal() and int(key[:9]) < len(target):
            target = target[int(key[:9])]
        elif isinstance(target, Mapping) and key in target:
            target = target[key]
        else:
            return None
    return target


def _mapping(part: Mapping[str, Any], keyword: str) -> Mapping[str, Any]:
    found = part.get(keyword)
    return found if isinstance(found, Mapping) else {}


def _fits(pattern: str, key: str) -> bool:
    # Patterns of users are matched by a library with linear time elsewhere. Here a pattern that
    # is not a plain beginning counts as a match, so no path is refused by mistake.
    plain = re.fullmatch(r"\^?([\w-]+)", pattern)
    return plain is None or plain[1] in key

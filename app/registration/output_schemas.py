"""Checks JSON Schemas at registration, and applies them to outputs and to inputs of runs.

Patterns are matched in linear time. No schema is ever fetched, because a ``$ref`` must refer to
a part of its own schema. A schema from outside can still need much time, so its cost is estimated
before it is compiled. If the estimate is small, the process itself applies the schema. Otherwise
the sandbox applies the schema, in which time and memory are limited.
"""

from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

import jsonschema_rs

from app.domain.json_text import read_json, write_json
from app.domain.json_values import is_small
from app.domain.suggestions import did_you_mean, shortened
from app.errors import OutputInvalid, WorkflowError
from app.registration.schema_cost import cost_of
from app.sandbox.processes import Sandbox, SandboxLimit
from app.sandbox.program import first_problem, schema_validator, shown
from app.sandbox.turns import Turn

MAX_SCHEMA_BYTES = 100_000
#: Largest number of units that a schema may need for one value, with all references followed.
MAX_EXPANDED = 100_000
#: Largest number of units for compiling the patterns of a schema; these units take about 0.1 s.
MAX_PATTERNS = 200_000
#: If a schema has at most this weight, and its weight multiplied by the size of the value is at
#: most this work, the process itself applies the schema.
INLINE_WEIGHT = 10_000
INLINE_WORK = 2_000_000
#: Largest number of problems that are found in one value.
MAX_PROBLEMS = 20


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse a dict that is not a JSON Schema, or that is too expensive to apply.

    Raises:
        WorkflowError: If the schema is too long, too expensive or not valid; the message has the
            problem and its place.
    """
    document = write_json(schema, sort_keys=True)
    if len(document) > MAX_SCHEMA_BYTES:
        raise WorkflowError(f"has {len(document):,} bytes, the limit is {MAX_SCHEMA_BYTES:,}")
    cost = cost_of(schema)
    if cost.patterns > MAX_PATTERNS:
        raise WorkflowError(
            f"has patterns of over {MAX_PATTERNS:,} steps: lower the numbers of repetitions, or "
            "give maxLength"
        )
    if cost.expanded > MAX_EXPANDED:
        raise WorkflowError(
            f"is applied in over {MAX_EXPANDED:,} steps to a single value, because parts of it "
            "refer to other parts again and again, or because a list of enum is very long: refer "
            "to each part once, and shorten the list"
        )
    _compiled(document)


class OutputSchemas:
    """Applies schemas to outputs, and to inputs of runs.

    Args:
        sandbox: Applies a schema if the schema or the output is large.

    Example:
        schemas = OutputSchemas(Sandbox())
        problem = await schemas.find_problem(5, {"type": "string"}, "output", turn)
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def find_problem(
        self, value: Any, schema: Mapping[str, Any], name: str, turn: Turn
    ) -> str | None:
        """Find the first place where a value does not fit a schema, and the reason.

        Args:
            value: A JSON value.
            schema: The schema.
            name: Name of the value; the path begins with this name.
            turn: The run for which the schema is applied.

        Returns:
            The problem, such as ``output.items[0].total: 'x' is not of type "number"``, or None if
            the value fits.

        Raises:
            OutputInvalid: If the check exceeds a limit.
        """
        document = write_json(schema, sort_keys=True)
        if _is_cheap(document, value):
            found = first_problem(_validator(document), value)
        else:
            found = await self._apart(value, schema, turn, name)
        return None if found is None else f"{_path(name, found[0])}: {found[1]}"

    async def find_problems(
        self, value: Any, schema: Mapping[str, Any], name: str, turn: Turn
    ) -> list[tuple[str, str]]:
        """Find the places where a value does not fit a schema; see ``find_problem``.

        Returns:
            The path and the problem of each place, such as ``("input.mails[3]", "'body' is a
            required property; did you mean 'boddy'?")``. There are at most ``MAX_PROBLEMS``. If the
            sandbox applies the schema, there is at most one.
        """
        document = write_json(schema, sort_keys=True)
        if not _is_cheap(document, value):
            found = await self._apart(value, schema, turn, name)
            return [] if found is None else [(_path(name, found[0]), found[1])]
        errors = _validator(document).iter_errors(value)
        return [
            (_path(name, error.instance_path), shown(error.message) + _hint(error))
            for error in islice(errors, MAX_PROBLEMS)
        ]

    async def _apart(
        self, value: Any, schema: Mapping[str, Any], turn: Turn, name: str
    ) -> tuple[list[str | int], str] | None:
        task = {"schema": schema, "value": value}
        try:
            kind, found = await self._sandbox.run("schema", task, turn)
        except SandboxLimit as error:
            raise OutputInvalid(
                f"the check of the {name} against {name}_schema {error}: simplify the schema, or "
                f"{'give' if name == 'input' else 'ask for'} a shorter {name}"
            ) from error
        if kind == "ERROR":
            raise OutputInvalid(f"{name}_schema cannot be applied: {found}")
        return None if found is None else (found[0], found[1])


def _is_cheap(document: bytes, value: Any) -> bool:
    """Whether this process itself may apply a schema to a value."""
    weight = _weight(document)
    return weight <= INLINE_WEIGHT and is_small(value, int(INLINE_WORK / weight))


def _hint(error: jsonschema_rs.ValidationError) -> str:
    """Return the nearest key of the value, if a required key is missing."""
    missing = getattr(error.kind, "property", None)
    value = error.instance
    return did_you_mean(str(missing), value) if missing and isinstance(value, dict) else ""


@lru_cache(maxsize=256)
def _weight(document: bytes) -> float:
    return cost_of(read_json(document)).weight


@lru_cache(maxsize=128)
def _validator(document: bytes) -> Any:
    return _compiled(document)


def _compiled(document: bytes) -> Any:
    try:
        return schema_validator(read_json(document), _refuse)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        place = _path("", getattr(error, "instance_path", ()))
        message = str(error).splitlines()[0]
        raise WorkflowError(
            f"is not a JSON Schema{f' at {place}' if place else ''}: {shown(message)}"
        ) from error


def _refuse(uri: str) -> Any:
    raise ValueError(f"{shortened(uri)} is outside the schema: put it under $defs")


def _path(name: str, parts: Any) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return f"{name}{path}".removeprefix(".")

"""Checks the JSON Schemas of outputs at registration, and applies the schemas to outputs.

Patterns are matched in linear time. No schema is ever fetched, because a ``$ref`` must refer to
a part of its own schema. A schema from outside can still need much time, so its cost is estimated
before it is compiled. If the estimate is small, the process itself applies the schema. Otherwise
the sandbox applies the schema, in which time and memory are limited.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema_rs

from app.domain.json_text import read_json, write_json
from app.domain.json_values import is_small
from app.domain.suggestions import shortened
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
    """Applies schemas to outputs.

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
        weight = _weight(document)
        if weight <= INLINE_WEIGHT and is_small(value, int(INLINE_WORK / weight)):
            found = first_problem(_validator(document), value)
        else:
            found = await self._apart(value, schema, turn)
        return None if found is None else f"{_path(name, found[0])}: {found[1]}"

    async def _apart(
        self, value: Any, schema: Mapping[str, Any], turn: Turn
    ) -> tuple[list[str | int], str] | None:
        task = {"schema": schema, "value": value}
        try:
            kind, found = await self._sandbox.run("schema", task, turn)
        except SandboxLimit as error:
            raise OutputInvalid(
                f"the check of the output against output_schema {error}: simplify the schema, or "
                "ask for a shorter output"
            ) from error
        if kind == "ERROR":
            raise OutputInvalid(f"output_schema cannot be applied: {found}")
        return None if found is None else (found[0], found[1])


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

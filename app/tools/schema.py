"""Makes a tool's description and JSON Schema from a function's signature and docstring."""

import contextlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, create_model
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError

from app.domain.json_values import find_json_problem
from app.domain.tool_context import ToolContext
from app.errors import WorkflowError
from app.tools.contexts import is_context, type_hints

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
# Fields have a prefix, so that an argument may be called schema, json or _private.
_PREFIX = "argument_"
_SECTION = re.compile(r"(?:Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Notes?):\s*$")
_ARGUMENTS = ("Args:", "Arguments:", "Parameters:")
_ARGUMENT = re.compile(r"(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


class _Schema(GenerateJsonSchema):
    """JSON Schema without titles, because each title only repeats a name and costs a token."""

    # A default without a JSON form is left out of the schema; the function still uses the default.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def encode_default(self, dft: Any) -> Any:
        default = super().encode_default(dft)
        if found := find_json_problem(default, "default"):  # such as an infinite limit
            raise PydanticSerializationError(" ".join(found))
        return default


def check_signature(function: Callable[..., Any], name: str) -> None:
    """Refuse parameters that no JSON object can fill, and a second ToolContext.

    Raises:
        WorkflowError: If a parameter is refused; the message names the parameter.
    """
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in _BY_NAME:
            raise WorkflowError(
                f"tool {name!r}: parameter {str(parameter)!r} cannot be given by name: "
                "use plain parameters"
            )
        if parameter.annotation is parameter.empty:
            raise WorkflowError(
                f"tool {name!r}: parameter {parameter.name!r} has no type hint: "
                "add one, because models need the types"
            )
    # A hint may name a class that the module defines later, so ``arguments_model`` looks again.
    with contextlib.suppress(NameError, TypeError):
        _context_in(type_hints(function, ToolContext), name)


def context_parameter(function: Callable[..., Any], name: str) -> str | None:
    """Return the name of the parameter that gets the ToolContext, or None.

    Raises:
        WorkflowError: If a type hint is wrong, or if two parameters ask for the context.
    """
    return _context_in(_hints_of(function, name), name)


def arguments_model(function: Callable[..., Any], name: str) -> type[BaseModel]:
    """Make a model that validates the arguments of a function; a ToolContext is no argument.

    Raises:
        WorkflowError: If a type hint is wrong, or if the type has no JSON form.
    """
    hints = _hints_of(function, name)
    context = _context_in(hints, name)
    descriptions = described(inspect.getdoc(function) or "")[1]
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == context:
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        field = Field(default, alias=parameter.name)
        if description := descriptions.get(parameter.name):
            field = Field(default, alias=parameter.name, description=description)
        fields[_PREFIX + parameter.name] = (hints[parameter.name], field)
    try:
        return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    except (PydanticUserError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise WorkflowError(f"tool {name!r}: its arguments have no schema: {reason}") from error


def json_schema(model: type[BaseModel], name: str) -> dict[str, Any]:
    """Return the JSON Schema of a model from ``arguments_model``.

    Raises:
        WorkflowError: If a type has no JSON form, or the schema is over a limit of JSON values.
    """
    try:
        schema = model.model_json_schema(schema_generator=_Schema)
    except PydanticUserError as error:
        reason = str(error).splitlines()[0]
        raise WorkflowError(f"tool {name!r}: its arguments have no schema: {reason}") from error
    schema.pop("title", None)
    if found := find_json_problem(schema, "parameters"):
        raise WorkflowError(f"tool {name!r}: {' '.join(found)}")
    return schema


def given_arguments(arguments: BaseModel) -> dict[str, Any]:
    """Return the given arguments by parameter name; other parameters keep their defaults."""
    given = arguments.model_fields_set
    return {name.removeprefix(_PREFIX): getattr(arguments, name) for name in given}


def described(docstring: str) -> tuple[str, dict[str, str]]:
    """Split a Google-style docstring into the description and a text per argument."""
    sections = [("", [""])]
    for line in docstring.splitlines():
        if _SECTION.match(line):
            sections.append((line.strip(), []))
        else:
            sections[-1][1].append(line)
    description = "\n".join(sections[0][1]).strip()
    lines = [line for title, part in sections if title in _ARGUMENTS for line in part]
    return description, _argument_texts([line for line in lines if line.strip()])


def _hints_of(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return type_hints(function, ToolContext)
    except (NameError, TypeError) as error:
        raise WorkflowError(f"tool {name!r}: a type hint is wrong: {error}") from error


def _context_in(hints: Mapping[str, Any], name: str) -> str | None:
    asking = [
        parameter
        for parameter, hint in hints.items()
        if parameter != "return" and is_context(hint, ToolContext)
    ]
    if len(asking) > 1:
        raise WorkflowError(
            f"tool {name!r}: its parameters {' and '.join(map(repr, asking))} are both a "
            "ToolContext: keep one of them"
        )
    return asking[0] if asking else None


def _argument_texts(lines: list[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    name = ""
    indent = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    for line in lines:
        match = _ARGUMENT.match(line.strip())
        if match and not line[indent : indent + 1].isspace():
            name = match[1]
            texts[name] = match[2]
        elif name:
            texts[name] = f"{texts[name]} {line.strip()}".strip()
    return texts

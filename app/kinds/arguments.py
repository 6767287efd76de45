"""Passes each input to the parameter of the same name. Pydantic checks the types of the inputs."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from app.domain.prompt import parsed_text
from app.domain.suggestions import did_you_mean, listed
from app.domain.tool_context import ToolContext
from app.errors import InputRefused, UnknownFunction
from app.kinds.base import AgentContext
from app.tools.contexts import is_context, type_hints

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
#: The classes by whose type hints a parameter gets a context and no input.
CONTEXTS = (AgentContext, ToolContext)
MAX_PROBLEMS_SHOWN = 5


class Arguments:
    """The parameters of a function.

    Args:
        function: The function. A parameter without a type hint takes any JSON value, a parameter of
            the type ``AgentContext`` or ``ToolContext`` gets this context, and ``**others`` gets
            all remaining inputs.
        path: ``module:name`` of the function, for messages.

    Raises:
        UnknownFunction: If a parameter cannot be given by name, if pydantic does not know a type
            hint, or if two parameters ask for the same context.

    Example:
        Arguments(totals, "shop:totals").bind({"lines": [], "order": 7}, context)  # {"lines": []}
    """

    def __init__(self, function: Callable[..., Any], path: str) -> None:
        self._path = path
        self._adapters: dict[str, TypeAdapter[Any]] = {}
        self._optional: set[str] = set()
        self._contexts: dict[type, str] = {}
        self._takes_all = False
        try:
            hints = type_hints(function, *CONTEXTS)
            for parameter in inspect.signature(function).parameters.values():
                self._add(parameter, hints.get(parameter.name, Any))
        except (NameError, TypeError, ValueError, PydanticUserError) as error:
            reason = str(error).splitlines()[0]
            raise UnknownFunction(
                f"function {path!r} cannot be called with inputs: {reason}"
            ) from error

    def _add(self, parameter: inspect.Parameter, hint: Any) -> None:
        context = next((each for each in CONTEXTS if is_context(hint, each)), None)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            self._takes_all = True
        elif context is not None and parameter.kind in _BY_NAME:
            other = self._contexts.setdefault(context, parameter.name)
            if other != parameter.name:
                raise TypeError(
                    f"its parameters {other!r} and {parameter.name!r} are both a "
                    f"{context.__name__}: keep one of them"
                )
        elif parameter.kind in _BY_NAME:
            self._adapters[parameter.name] = TypeAdapter(hint)
            if parameter.default is not parameter.empty:
                self._optional.add(parameter.name)
        elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise TypeError(f"its parameter {parameter.name!r} cannot be given by name")

    def bind(self, inputs: Mapping[str, Any], context: AgentContext) -> dict[str, Any]:
        """Return the arguments for a call of the function.

        Args:
            inputs: JSON values by name; an input without a parameter is left out. A string, such as
                a model's answer, is parsed if the string does not fit the parameter's type but is
                valid JSON.
            context: Value for a parameter of the type ``AgentContext``. The context has the value
                for a parameter of the type ``ToolContext``.

        Raises:
            InputRefused: If an argument is missing, or does not have the parameter's type.
        """
        given: dict[str, Any] = {}
        for name, adapter in self._adapters.items():
            if name in inputs:
                given[name] = self._fitted(name, adapter, inputs[name])
            elif name not in self._optional:
                raise InputRefused(
                    f"{self._path} takes {name!r}, which is neither an input nor the output of an "
                    f"agent it depends on; known: {listed(inputs)}{did_you_mean(name, inputs)}"
                )
        if self._takes_all:
            given |= {name: value for name, value in inputs.items() if name not in given}
        values = {AgentContext: context, ToolContext: context.tool_context}
        return given | {name: values[asked] for asked, name in self._contexts.items()}

    def _fitted(self, name: str, adapter: TypeAdapter[Any], value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            parsed = parsed_text(value) if isinstance(value, str) else value
            if parsed is not value:
                return self._fitted(name, adapter, parsed)
            problems = [
                f"{'.'.join([name, *map(str, problem['loc'])])}: {problem['msg']}"
                for problem in error.errors(include_url=False, include_context=False)
            ]
            raise InputRefused(
                f"{self._path} refuses its inputs: {'; '.join(problems[:MAX_PROBLEMS_SHOWN])}"
            ) from error

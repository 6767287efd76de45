"""``@tool``: makes a typed Python function something that a model may ask for."""

import asyncio
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, overload

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from app.domain.suggestions import shortened
from app.errors import ToolError, WorkflowError
from app.tools.schema import (
    arguments_model,
    check_signature,
    described,
    given_arguments,
    json_schema,
)
from app.tools.threads import run_in_thread

DEFAULT_TIMEOUT_S = 60.0
MAX_PROBLEMS_SHOWN = 10
# What both providers accept as a tool's name.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ToolOutput(NamedTuple):
    """What goes back to the model.

    Attributes:
        text: The result, or what went wrong.
        is_error: Whether it is the latter.
    """

    text: str
    is_error: bool


class Tool:
    """A function that a model may ask for; calling it calls the function.

    Args:
        function: A function with type hints, sync or async.
        name: Name for the model; None takes the function's.
        timeout_s: Seconds a call may take. A sync function's thread cannot be stopped: it goes on
            in the background, and its result is dropped.
        idempotent: Whether a call may be repeated after a worker died during it.

    Raises:
        WorkflowError: If the name or the signature cannot be told to a model.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        idempotent: bool = False,
    ) -> None:
        if not inspect.isroutine(function):
            raise WorkflowError(f"@tool makes tools of functions, not of {shortened(function)}")
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name or function.__name__
        self.timeout_s = timeout_s
        self.idempotent = idempotent
        if not _NAME.fullmatch(self.name) and self.name != "<lambda>":
            raise WorkflowError(f"tool name {self.name!r}: use up to 64 letters, digits, _ and -")
        check_signature(function, self.name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, as if it were not decorated."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.name!r}>"

    @property
    def import_path(self) -> str:
        """Where the function is: ``module:name``."""
        return f"{self.function.__module__}:{self.function.__qualname__}"

    @property
    def description(self) -> str:
        """What the model is told: the docstring up to its sections."""
        return described(inspect.getdoc(self.function) or "")[0]

    @functools.cached_property
    def parameters(self) -> dict[str, Any]:
        """JSON Schema of the arguments.

        Raises:
            WorkflowError: If a type hint has none.
        """
        return json_schema(self._arguments, self.name)

    def reference(self) -> dict[str, Any]:
        """How the tool is stored with an agent, as JSON values.

        Raises:
            WorkflowError: If workers could not import the function.
        """
        if self.function.__module__ == "__main__" or not self.function.__qualname__.isidentifier():
            raise WorkflowError(
                f"tool {self.name!r} ({self.import_path}) cannot be imported by workers: move it "
                "into a module, say my_tools.py, and list it under imports: in the configuration"
            )
        return {
            "name": self.name,
            "import": self.import_path,
            "description": self.description,
            "parameters": self.parameters,
        }

    async def call(self, arguments: str) -> ToolOutput:
        """Run the function for a model.

        Args:
            arguments: JSON text as the model wrote it.

        Returns:
            The result as text (JSON unless it is a text already), or what the model did wrong.

        Raises:
            ToolError: If the function raised it, to say that no other arguments would help.
        """
        try:
            given = given_arguments(self._arguments.model_validate_json(arguments or "{}"))
        except ValidationError as error:
            return ToolOutput(f"{self.name} was not run: {_problems(error)}", is_error=True)
        try:
            async with asyncio.timeout(self.timeout_s) as deadline:
                result = await self._run(given)
            return ToolOutput(_as_text(result), is_error=False)
        except ToolError:
            raise
        # Whatever a tool raises, sys.exit() included, is for the model to read.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            if deadline.expired():
                text = f"{self.name} took longer than {self.timeout_s:g} s"
            else:
                text = f"{self.name} failed: {type(error).__name__}: {error}"
            return ToolOutput(text, is_error=True)

    @functools.cached_property
    def _arguments(self) -> type[BaseModel]:
        return arguments_model(self.function, self.name)

    async def _run(self, arguments: Mapping[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**arguments)
        result = await run_in_thread(functools.partial(self.function, **arguments))
        return await result if inspect.isawaitable(result) else result


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...


@overload
def tool(
    *,
    name: str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    idempotent: bool = False,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    idempotent: bool = False,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function a tool: ``@tool``, or ``@tool(timeout_s=5)``.

    The type hints become the JSON Schema of its arguments, the docstring its description, and a
    Google-style ``Args:`` section describes the arguments.

    Args:
        function: The function, when used without parentheses.
        name: Name for the model; None takes the function's.
        timeout_s: Seconds a call may take.
        idempotent: Whether a call may be repeated after a worker died during it.

    Returns:
        The tool, or the decorator that makes it.

    Raises:
        WorkflowError: If the name or the signature cannot be told to a model.
    """
    options: dict[str, Any] = {"name": name, "timeout_s": timeout_s, "idempotent": idempotent}
    if function is None:
        return functools.partial(Tool, **options)
    return Tool(function, **options)


def _as_text(result: Any) -> str:
    return result if isinstance(result, str) else to_json(result).decode()


def _problems(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}".removeprefix(": ")
        for problem in problems[:MAX_PROBLEMS_SHOWN]
    ]
    return "; ".join(shown)

"""``@tool``: makes a tool for models from a typed Python function."""

import asyncio
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, overload

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from app.concurrency.user_code import (
    TookTooLong,
    UserCodeFailed,
    result_of,
    run_in_thread,
    within,
)
from app.domain.bounds import YEAR_S, Bounds, find_problem
from app.domain.finite import Finite
from app.domain.json_text import read_json, write_json
from app.domain.json_values import is_plain
from app.domain.suggestions import shortened
from app.domain.tool_context import ToolContext
from app.errors import InvalidJson, ToolError, WorkflowError
from app.tools.schema import (
    arguments_model,
    check_signature,
    context_parameter,
    described,
    given_arguments,
    json_schema,
)

DEFAULT_TIMEOUT_S = 60.0
DEFAULT_OUTPUT_BYTES = 100_000
#: Delay before a failed call is tried again; the delay doubles with each try.
RETRY_DELAY_S = 0.5
MAX_PROBLEMS_SHOWN = 10
#: A result with more parts is refused, because nothing could stop its writing.
MAX_PARTS = 10_000_000
BOUNDS = {
    "timeout_s": Bounds(high=YEAR_S, positive=True),
    "retries": Bounds(high=100, whole=True),
    "max_output_bytes": Bounds(low=1, high=100_000_000, whole=True, optional=True),
}
# The tool names that both providers accept.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ToolOutput(NamedTuple):
    """The answer to a model's tool call.

    Attributes:
        text: The result, or the error.
        is_error: Whether the text is an error.
    """

    text: str
    is_error: bool


class Tool:
    """A function that a model may ask for; a program calls the tool like the function itself.

    A sync function runs in a thread that cannot be stopped. After ``timeout_s`` the thread goes on,
    and the function's result is dropped. If a tool may take long, write an async function, because
    an async function is cancelled.

    Args:
        function: A function with type hints, sync or async.
        name: Name for the model; None means the name of the function.
        timeout_s: Seconds that each try of a call may take.
        retries: Number of times that a call is tried again after it failed or took too long, before
            the model gets the error. Leave the number at 0 for a function that is not safe to
            repeat.
        idempotent: Whether a call may be repeated if its worker died during the call. If the call
            may not be repeated, the model is told that the outcome is unknown.
        max_output_bytes: Largest result, in UTF-8; a longer result is cut. None means the
            configuration's ``tools.max_output_bytes``.
        more: Text that is added to the description, such as the limits of a configuration.

    Raises:
        WorkflowError: If the name or the signature does not fit a model's tool, or a number is
            out of range.

    Example:
        @tool(timeout_s=5, idempotent=True)
        async def get_weather(city: str) -> dict[str, float]:
            "Return the weather of a city."
            return await weather_of(city)

        Agent(..., tools=[get_weather])
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = 0,
        idempotent: bool = False,
        max_output_bytes: int | None = None,
        more: str = "",
    ) -> None:
        if not inspect.isroutine(function):
            raise WorkflowError(f"@tool makes tools of functions, not of {shortened(function)}")
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name or function.__name__
        self.timeout_s = timeout_s
        self.retries = retries
        self.idempotent = idempotent
        self.max_output_bytes = max_output_bytes
        self._more = more
        if found := find_problem(vars(self), BOUNDS):
            raise WorkflowError(f"tool {self.name!r}: {' '.join(found)}")
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
        """``module:name`` of the function."""
        return f"{self.function.__module__}:{self.function.__qualname__}"

    @property
    def description(self) -> str:
        """Description for the model: the docstring up to its sections."""
        return f"{described(inspect.getdoc(self.function) or '')[0]} {self._more}".strip()

    @functools.cached_property
    def parameters(self) -> dict[str, Any]:
        """JSON Schema of the arguments.

        Raises:
            WorkflowError: If a type hint has no JSON Schema.
        """
        return json_schema(self._arguments, self.name)

    def reference(self) -> dict[str, Any]:
        """Return the form in which the tool is stored with an agent, as JSON values.

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

    @functools.cached_property
    def context_parameter(self) -> str | None:
        """Name of the parameter that gets the ``ToolContext``, or None.

        Raises:
            WorkflowError: If a type hint is wrong, or if two parameters ask for the context.
        """
        return context_parameter(self.function, self.name)

    async def call(
        self,
        arguments: str,
        *,
        max_output_bytes: int = DEFAULT_OUTPUT_BYTES,
        context: ToolContext | None = None,
    ) -> ToolOutput:
        """Run the function for a model.

        Args:
            arguments: The model's JSON text, unchanged.
            max_output_bytes: Largest result of a tool that sets no limit of its own.
            context: The value of a parameter of the type ``ToolContext``. Without a context, this
                parameter keeps its default.

        Returns:
            The result as a string (JSON, unless the result is a string already), or the error.

        Raises:
            ToolError: If the function raised a ToolError, because no other arguments would help.
        """
        limit = self.max_output_bytes or max_output_bytes
        asked = self.context_parameter
        own = {} if asked is None or context is None else {asked: context}
        try:
            self._arguments  # noqa: B018  the first access takes longer than the reading
            # The types of the parameters may have validators of their own.
            reading = self._result_of(functools.partial(self._read, arguments))
            given = await within(reading, timeout_s=self.timeout_s)
        except TookTooLong:
            return self._late()
        except UserCodeFailed as failure:
            return ToolOutput(f"{self.name} was not run: {failure}", is_error=True)
        if isinstance(given, str):
            return ToolOutput(f"{self.name} was not run: {given}", is_error=True)
        for failed in range(self.retries):
            output = await self._try(given | own, limit)
            if not output.is_error:
                return output
            await asyncio.sleep(RETRY_DELAY_S * 2**failed)
        return await self._try(given | own, limit)

    @functools.cached_property
    def _arguments(self) -> type[BaseModel]:
        return arguments_model(self.function, self.name)

    async def _try(self, given: Mapping[str, Any], limit: int) -> ToolOutput:
        try:
            text = await within(self._run(given), timeout_s=self.timeout_s)
        except TookTooLong:
            return self._late()
        except UserCodeFailed as failed:
            if isinstance(failed.agent_error, ToolError):
                raise failed.agent_error from None
            return ToolOutput(cut(f"{self.name} failed: {failed}", limit), is_error=True)
        return ToolOutput(cut(text, limit), is_error=False)

    def _late(self) -> ToolOutput:
        return ToolOutput(f"{self.name} took longer than {self.timeout_s:g} s", is_error=True)

    def _read(self, arguments: str) -> dict[str, Any] | str:
        """Return the arguments of the function, or the reason why the function cannot take them."""
        try:
            # Pydantic alone would also accept NaN, and would read 1e400 as infinity.
            read = write_json(read_json(arguments or "{}", "arguments"))
            return given_arguments(self._arguments.model_validate_json(read))
        except InvalidJson as error:
            return str(error)
        except ValidationError as error:
            return _problems(error)

    async def _run(self, given: Mapping[str, Any]) -> str:
        result = await self._result_of(functools.partial(self.function, **given))
        write = functools.partial(_as_text, result)
        # A method of a user may write the result.
        text: str = write() if is_plain(result) else await self._result_of(write)
        return text

    async def _result_of(self, function: Callable[[], Any]) -> Any:
        return await result_of(function)


class BuiltinTool(Tool):
    """A tool of AgentChord, which runs on the loop of its caller and uses the objects there."""

    async def _result_of(self, function: Callable[[], Any]) -> Any:
        try:
            if inspect.iscoroutinefunction(function):
                return await function()
            return await run_in_thread(function)
        except Exception as error:
            raise UserCodeFailed(error) from error


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...


@overload
def tool(
    *,
    name: str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    retries: int = 0,
    idempotent: bool = False,
    max_output_bytes: int | None = None,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    retries: int = 0,
    idempotent: bool = False,
    max_output_bytes: int | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Turn a function into a tool: ``@tool``, or ``@tool(timeout_s=5)``.

    The type hints become the JSON Schema of the arguments. The docstring becomes the description of
    the tool, and its Google-style section ``Args:`` describes the arguments. A parameter of the
    type ``ToolContext`` is no argument: it gets the context of the call.

    Args:
        function: The function, if ``@tool`` has no parentheses.
        name: Name for the model; None means the name of the function.
        timeout_s: Seconds that each try of a call may take.
        retries: Number of times that a failed call is tried again before the model gets the error.
        idempotent: Whether a call may be repeated if its worker died during the call.
        max_output_bytes: Largest result; a longer result is cut. None means the configuration's
            limit.

    Returns:
        The tool, or the decorator that makes it.

    Raises:
        WorkflowError: If the name or the signature does not fit a model's tool.
    """
    make = functools.partial(
        Tool,
        name=name,
        timeout_s=timeout_s,
        retries=retries,
        idempotent=idempotent,
        max_output_bytes=max_output_bytes,
    )
    return make if function is None else make(function)


def cut(text: str, max_bytes: int) -> str:
    """Cut a text to a number of bytes in UTF-8, and add a note at the end."""
    # Each character has at least a byte, so only this part of a long text has to be encoded.
    kept = text[:max_bytes].encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")
    if len(kept) == len(text):
        return text
    return f"{kept}\n[cut: these are the first {len(kept):,} of {len(text):,} characters]"


def _as_text(result: Any) -> str:
    # A text of a subclass becomes a plain text.
    if isinstance(result, str):
        return str.__str__(result)
    return to_json(Finite(most=MAX_PARTS).value(result)).decode()


def _problems(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}".removeprefix(": ")
        for problem in problems[:MAX_PROBLEMS_SHOWN]
    ]
    return "; ".join(shown)

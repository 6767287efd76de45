"""Function agents, which call a sync or async Python function of a module that the workers load."""

import importlib
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from app.domain.suggestions import did_you_mean, listed, shortened
from app.errors import AgentError, FunctionFailed, UnknownFunction
from app.kinds.arguments import Arguments
from app.kinds.base import AgentContext, Config
from app.kinds.config import check_keys, refuse
from app.tools.exports import exports_of, is_private
from app.tools.threads import run_in_thread

GROUP = "agentchord.functions"
KEYS = ("function", "arguments")
MAX_REASON_CHARS = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """A function that agents call, with its parameters."""

    call: Callable[..., Any]
    arguments: Arguments


class FunctionKind:
    """Agents that call a function; ``config`` names the function, and may contain fixed arguments.

    A worker imports only modules that the operator listed, because a stored path is data. Data must
    not choose the code that a worker loads. A listed module offers the public functions that the
    module defines, or lists in ``__all__``. An installed package may also offer functions, as entry
    points.

    A sync function cannot be stopped: after the agent's timeout, the function's thread continues.
    For long work, write an async function.

    Args:
        imports: Names of modules, such as ``my_functions``.

    Example:
        Agent(name="totals", kind="function", config={"function": "app.examples.functions:totals"})
    """

    def __init__(self, imports: Sequence[str] = ()) -> None:
        self._imports = tuple(imports)
        self._found: dict[str, Function] = {}

    def validate(self, config: Config) -> None:
        """Check the form of the settings; the workers look up the function later."""
        check_keys(config, KEYS, required=("function",))
        path = config["function"]
        module, colon, name = path.partition(":") if isinstance(path, str) else ("", "", "")
        words = [*module.split("."), name] if colon else [module]
        if not all(word.replace("-", "_").isidentifier() for word in words):
            refuse(
                "function",
                f"is {shortened(path)}: write package.module:name, or the name of an entry point "
                f"of the group {GROUP}",
            )
        if is_private(name):
            refuse("function", f"is {shortened(path)}: no workflow can name a private function")
        if not isinstance(config.get("arguments", {}), Mapping):
            refuse("arguments", f"is {shortened(config['arguments'])}: give a dict by parameter")

    async def run(self, context: AgentContext) -> Any:
        """Call the function with the inputs that its parameters name."""
        path = context.config["function"]
        if path not in self._found:
            self._found[path] = await run_in_thread(partial(self._load, path))
        function = self._found[path]
        inputs = {**context.inputs, **context.config.get("arguments", {})}
        call = partial(function.call, **function.arguments.bind(inputs, context))
        if inspect.iscoroutinefunction(function.call):
            return await await_safely(call, path)
        result = await run_in_thread(partial(call_safely, call, path))
        # A decorator may have wrapped an async function in a sync function, which returns an
        # awaitable.
        return await await_safely(lambda: result, path) if inspect.isawaitable(result) else result

    def _load(self, path: str) -> Function:
        call = self._import(path) if ":" in path else self._entry_point(path)
        if not callable(call):
            raise UnknownFunction(f"{path!r} is a {type(call).__name__}, not a function")
        return Function(call=call, arguments=Arguments(call, path))

    def _import(self, path: str) -> Any:
        module, _, name = path.partition(":")
        if module not in self._imports:
            raise UnknownFunction(
                f"function {path!r} is in a module that the workers do not load: "
                f"list {module!r} under imports: in the configuration"
            )
        # The import of a user's module may raise any error, or call sys.exit().
        try:
            found = importlib.import_module(module)
        except (Exception, SystemExit) as error:
            raise UnknownFunction(
                f"module {module!r} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        offered = exports_of(found)
        if name in offered:
            return offered[name]
        if name in vars(found):
            raise UnknownFunction(
                f"module {module!r} does not offer {name!r} to workflows: define a public function "
                "with this name in the module, or list the name in __all__ of the module"
            )
        raise UnknownFunction(
            f"module {module!r} has no function {name!r}{did_you_mean(name, offered)}"
        )

    def _entry_point(self, name: str) -> Any:
        offered = entry_points(group=GROUP)
        if name not in offered.names:
            raise UnknownFunction(
                f"there is no function {name!r}: installed packages offer {listed(offered.names)}"
                f"{did_you_mean(name, offered.names)}"
            )
        try:
            return offered[name].load()
        except (Exception, SystemExit) as error:
            raise UnknownFunction(
                f"function {name!r} cannot be loaded: {type(error).__name__}: {error}"
            ) from error


def call_safely(call: Callable[[], Any], what: str) -> Any:
    """Call a function of a user or a plugin.

    Raises:
        AgentError: If the function fails. An AgentError of the function stays the same; any other
            error becomes FunctionFailed.
    """
    try:
        return call()
    except AgentError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(what, error) from error


async def await_safely(call: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Await a function of a user or a plugin; convert errors in the way of ``call_safely``.

    A SystemExit of the function would otherwise end the worker's loop.
    """
    try:
        return await call()
    except AgentError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(what, error) from error


def _failed(what: str, error: BaseException) -> FunctionFailed:
    reason = f"{type(error).__name__}: {error}"
    return FunctionFailed(f"{what} failed: {reason[:MAX_REASON_CHARS]}")

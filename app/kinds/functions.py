"""Function agents, which call a sync or async Python function of a module that the workers load."""

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from typing import Any, NoReturn

from app.concurrency.user_code import UserCodeFailed, call, result_of
from app.domain.suggestions import did_you_mean, listed, shortened
from app.errors import FunctionFailed, UnknownFunction
from app.kinds.arguments import Arguments
from app.kinds.base import AgentContext, Config, private
from app.kinds.config import check_keys, refuse
from app.tools.exports import exports_of, is_private

GROUP = "agentchord.functions"
KEYS = ("function", "arguments")


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
        try:
            if path not in self._found:
                self._found[path] = await result_of(partial(self._load, path))
            function = self._found[path]
            # The types of the parameters may have validators of their own, so a thread binds.
            arguments = await result_of(partial(_bound, function.arguments, context))
            return await result_of(partial(function.call, **arguments))
        except UserCodeFailed as error:
            raise_as_agent_error(path, error)

    def _load(self, path: str) -> Function:
        found = self._import(path) if ":" in path else self._entry_point(path)
        if not callable(found):
            raise UnknownFunction(f"{path!r} is a {type(found).__name__}, not a function")
        return Function(call=found, arguments=Arguments(found, path))

    def _import(self, path: str) -> Any:
        module, _, name = path.partition(":")
        if module not in self._imports:
            raise UnknownFunction(
                f"function {path!r} is in a module that the workers do not load: "
                f"list {module!r} under imports: in the configuration"
            )
        try:
            found = call(partial(importlib.import_module, module))
        except UserCodeFailed as error:
            raise UnknownFunction(f"module {module!r} cannot be imported: {error}") from error.error
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
            return call(offered[name].load)
        except UserCodeFailed as error:
            raise UnknownFunction(f"function {name!r} cannot be loaded: {error}") from error.error


def function_names(imports: Sequence[str]) -> list[str]:
    """Return the names of all functions that agents can call; modules that fail are left out.

    Args:
        imports: Names of the modules that the process loads.
    """
    names: list[str] = []
    for module in imports:
        with contextlib.suppress(UserCodeFailed):
            offered = exports_of(call(partial(importlib.import_module, module)))
            names += [f"{module}:{name}" for name, value in offered.items() if callable(value)]
    return [*names, *sorted(entry_points(group=GROUP).names)]


def _bound(arguments: Arguments, context: AgentContext) -> dict[str, Any]:
    own = private(context)
    return arguments.bind({**own.inputs, **own.config.get("arguments", {})}, own)


def raise_as_agent_error(what: str, failed: UserCodeFailed) -> NoReturn:
    """Raise the error of an agent whose code failed: its own ``AgentError``, or FunctionFailed."""
    if failed.agent_error is not None:
        raise failed.agent_error from None
    raise FunctionFailed(f"{what} failed: {failed}") from failed.error

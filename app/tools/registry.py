"""The tools of this process: built-in tools, and tools of the modules in the configuration."""

import contextlib
import importlib
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from app.concurrency.user_code import UserCodeFailed, call
from app.domain.server_tools import OPTIONS, SERVER
from app.domain.suggestions import did_you_mean, listed
from app.errors import ConfigurationError, ToolError, WorkflowError
from app.tools.exports import exports_of
from app.tools.tool import Tool


class ToolRegistry:
    """Finds tools by the references that are stored with agents.

    Only modules that the operator listed are ever imported, because a stored reference is data, and
    data must not choose the code that a worker loads. A module offers the tools that it defines, or
    lists in ``__all__``.

    Args:
        imports: Names of modules, such as ``my_tools``. The modules are imported at the first use,
            or by ``load``.
        builtin: Tools of AgentChord or another source, by name. A tool that lacks a setting
            is replaced by a string that names the setting. If a module has a tool of the same
            name, the module's tool is used.

    Example:
        tools = ToolRegistry(["my_tools"], builtin_tools(settings.tools, sandbox))
        output = await tools.resolve("get_weather").call('{"city": "Oslo"}')
    """

    def __init__(
        self, imports: Sequence[str] = (), builtin: Mapping[str, Tool | str] | None = None
    ) -> None:
        self._imports = tuple(imports)
        self._builtin = dict(builtin or {})

    def load(self) -> None:
        """Import the modules now, so that a mistake is reported at the start.

        Raises:
            ConfigurationError: If a module cannot be imported, or two tools share a name.
        """
        self._tools  # noqa: B018 the first access loads the modules

    def names(self) -> list[str]:
        """Return the references by which agents can name the tools of this process."""
        builtin = [name for name, tool in self._builtin.items() if isinstance(tool, Tool)]
        return list(dict.fromkeys([*self._tools, *builtin]))

    def resolve(self, reference: str | Mapping[str, Any]) -> Tool:
        """Return the tool of a reference.

        Args:
            reference: A tool's name, its ``module:name``, or the result of ``Tool.reference``.

        Returns:
            The tool; all calls return the same object.

        Raises:
            ToolError: If no loaded module has the tool.
            ConfigurationError: If a module cannot be loaded.
        """
        if isinstance(reference, Mapping):
            reference = str(reference.get("import") or reference.get("name"))
        tool = self._tools.get(reference) or self._builtin.get(reference)
        if isinstance(tool, Tool):
            return tool
        if tool is not None:
            raise ToolError(f"tool {reference!r} is not configured: {tool}")
        module, separator, _ = reference.partition(":")
        if separator and module not in self._imports:
            raise ToolError(
                f"tool {reference!r} is in a module that the workers do not load: "
                f"list {module!r} under imports: in the configuration"
            )
        names = [tool.name for tool in self._tools.values()]
        raise ToolError(
            f"there is no tool {reference!r}; the workers load "
            f"{listed(dict.fromkeys(names))}"
            f"{did_you_mean(reference, [*self._tools, *self._builtin])}"
            + (
                f"; the provider's own tool is {{{SERVER!r}: {reference!r}}}"
                if reference in OPTIONS
                else ""
            )
        )

    @cached_property
    def _tools(self) -> dict[str, Tool]:
        tools: dict[str, Tool] = {}
        for module in self._imports:
            for tool in _tools_of(module):
                other = tools.setdefault(tool.name, tool)
                if other is not tool:
                    raise ConfigurationError(
                        f"imports: {other.import_path} and {tool.import_path} both have the name "
                        f"{tool.name!r}: give one of them another name, as in @tool(name=...)"
                    )
                tools[tool.import_path] = tool
        return tools


def _tools_of(module: str) -> list[Tool]:
    try:
        return call(partial(_offered, module))
    except UserCodeFailed as error:
        raise ConfigurationError(
            f"imports: module {module!r} cannot be imported ({error}): "
            "check that its folder is on PYTHONPATH"
        ) from error.error


def _offered(module: str) -> list[Tool]:
    offered = exports_of(importlib.import_module(module))
    tools = [value for value in offered.values() if isinstance(value, Tool)]
    for tool in tools:
        # The types of a user may compute their schemas, so this is not left to an event loop.
        with contextlib.suppress(WorkflowError):  # told when an agent uses the tool
            tool.parameters  # noqa: B018
    return tools

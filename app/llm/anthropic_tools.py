"""Writes the agent's own tools, and tools that run at the provider, for Anthropic's API."""

from collections.abc import Mapping
from typing import Any

from app.domain.claude import claude_version
from app.domain.server_tools import WEB_FETCH, WEB_SEARCH, ServerTool
from app.llm.parameters import ParameterRefused

# Claude 4.6 and newer take the newest version of each tool; older models take the first version.
_FIRST_WITH_NEWEST = (4, 6)
_VERSIONS = {
    WEB_SEARCH: ("web_search_20250305", "web_search_20260318"),
    WEB_FETCH: ("web_fetch_20250910", "web_fetch_20260318"),
}


def own_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return the API's form of one of the agent's own tools."""
    wire = {name: tool[name] for name in ("name", "description", "cache_control") if name in tool}
    return wire | {"input_schema": tool.get("parameters") or {"type": "object"}}


def server_tool(model: str, tool: ServerTool) -> dict[str, Any]:
    """Return the API's form of a tool that runs at the provider; see ``Dialect.server_tool``."""
    if "search_context_size" in tool.options:
        raise ParameterRefused(
            "Anthropic's web_search takes no search_context_size: remove it, and lower max_uses"
        )
    version = claude_version(model)
    is_newest = version is not None and version >= _FIRST_WITH_NEWEST
    wire: dict[str, Any] = {"type": _VERSIONS[tool.name][is_newest], "name": tool.name}
    wire["max_uses"] = tool.max_uses
    if is_newest:
        # By default, programs that the model writes call the newest tools. Such a program can use a
        # tool many times, and the answer does not have the results that the program drops.
        wire["allowed_callers"] = ["direct"]
    for name in ("allowed_domains", "blocked_domains"):
        if name in tool.options:
            wire[name] = list(tool.options[name])
    if place := tool.options.get("user_location"):
        wire["user_location"] = {"type": "approximate", **place}
    if tool.name == WEB_FETCH:
        wire["max_content_tokens"] = tool.max_result_tokens
        wire["citations"] = {"enabled": bool(tool.options.get("citations", False))}
    return wire

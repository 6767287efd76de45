"""Writes tools for Anthropic's API: the agent's own tools, and tools that run at the provider."""

import re
from collections.abc import Mapping
from typing import Any

from app.domain.claude import claude_version
from app.domain.server_tools import CODE_EXECUTION, WEB_FETCH, WEB_SEARCH, ServerTool
from app.llm.parameters import ParameterRefused

# Claude 4.6 and newer take the newest version of each tool; older models take the first version.
_FIRST_WITH_NEWEST = (4, 6)
_VERSIONS = {
    WEB_SEARCH: ("web_search_20250305", "web_search_20260318"),
    WEB_FETCH: ("web_fetch_20250910", "web_fetch_20260318"),
    # All models take all versions; the newest web tools need a version since January 2026.
    CODE_EXECUTION: ("code_execution_20250825", "code_execution_20260521"),
}
_WEB_TOOL = re.compile(r"web_(?:search|fetch)_(\d{8})")
# If a request has a web tool of this version or a newer version, the provider bills no containers.
_FIRST_WITH_FREE_CONTAINERS = "20260209"


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
    if tool.name == CODE_EXECUTION:
        return _code_execution(tool, is_newest=is_newest)
    wire: dict[str, Any] = {"type": _VERSIONS[tool.name][is_newest], "name": tool.name}
    wire["max_uses"] = tool.max_uses
    if is_newest:
        # By default, programs that the model writes call the newest tools. A program can use a tool
        # many times. The answer does not have the results that the program drops.
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


def bills_containers(body: Mapping[str, Any]) -> bool:
    """Return whether Anthropic bills the containers of a request's programs.

    Containers are free in a request with the newest web tools, also if the model uses only the
    programs; see https://platform.claude.com/docs/en/agents-and-tools/tool-use/code-execution-tool.
    """
    found = (_WEB_TOOL.fullmatch(str(tool.get("type"))) for tool in body.get("tools") or ())
    return not any(each and each[1] >= _FIRST_WITH_FREE_CONTAINERS for each in found)


def _code_execution(tool: ServerTool, *, is_newest: bool) -> dict[str, Any]:
    if tool.limits_uses:
        raise ParameterRefused(
            "Anthropic's code_execution takes no max_uses: remove it. The hold counts ten rounds "
            "of programs, after which Anthropic pauses an answer"
        )
    if "memory" in tool.options:
        raise ParameterRefused(
            "Anthropic's containers have one size, of 5 GB: remove memory from code_execution"
        )
    return {"type": _VERSIONS[CODE_EXECUTION][is_newest], "name": CODE_EXECUTION}

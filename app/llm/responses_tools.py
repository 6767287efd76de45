"""Writes tools for the Responses API: the agent's own tools, and tools that run at the provider."""

from collections.abc import Mapping
from typing import Any

from app.domain.server_tools import CODE_EXECUTION, WEB_SEARCH, ServerTool
from app.llm.parameters import ParameterRefused


def tool_item(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return the API's form of a tool; the schema is unchanged unless the tool says ``strict``."""
    item = {name: tool[name] for name in ("name", "description") if name in tool}
    parameters = tool.get("parameters") or {"type": "object", "properties": {}}
    strict = bool(tool.get("strict", False))  # the API's own default would be strict
    return {"type": "function", **item, "parameters": parameters, "strict": strict}


def server_item(model: str, tool: ServerTool) -> dict[str, Any]:  # noqa: ARG001 see ``Dialect``
    """Return the API's form of a tool that runs at the provider; see ``Dialect.server_tool``."""
    if tool.name == CODE_EXECUTION:
        # If the container of the conversation's last program is active, the provider uses this
        # container again.
        container = {"type": "auto"}
        if memory := tool.options.get("memory"):
            container["memory_limit"] = memory
        return {"type": "code_interpreter", "container": container}
    if tool.name != WEB_SEARCH:
        raise ParameterRefused(
            f"{tool.name} is no tool of OpenAI's: give {WEB_SEARCH}, which opens pages, too, or "
            "the workers' tool fetch_page"
        )
    if "blocked_domains" in tool.options:
        raise ParameterRefused("OpenAI's web_search takes no blocked_domains: give allowed_domains")
    item: dict[str, Any] = {"type": "web_search"}
    if domains := tool.options.get("allowed_domains"):
        item["filters"] = {"allowed_domains": list(domains)}
    if place := tool.options.get("user_location"):
        item["user_location"] = {"type": "approximate", **place}
    if size := tool.options.get("search_context_size"):
        item["search_context_size"] = size
    return item

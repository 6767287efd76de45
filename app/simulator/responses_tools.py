"""Searches of the web in OpenAI's Responses API: the tool in requests, and the searches' items."""

from collections.abc import Mapping
from typing import Any

from app.simulator.chat import Answer, Refusal, Reply, ServerCall, count_tokens
from app.simulator.wire import compact, objects_in, token_limit


def searches_in(body: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Read the name of the tool web_search in a request, and the tool's largest number of uses."""
    kinds = [tool.get("type") for tool in objects_in(body, "tools")]
    most = token_limit(body, "max_tool_calls") or 10
    return (("web_search", most),) if "web_search" in kinds else ()


def past_search(index: int, item: Mapping[str, Any]) -> int:
    """Count the tokens of an earlier search, whose results the provider has not kept."""
    for name in ("action", "status"):
        if not item.get(name):
            raise Refusal(
                400,
                f"Missing required parameter: 'input[{index}].{name}'.",
                code="missing_required_parameter",
                param=f"input[{index}].{name}",
            )
    return count_tokens(compact(item["action"]))


def annotations_of(reply: Reply) -> list[dict[str, Any]]:
    """Return the citations of a text that follows the searches."""
    return [
        {
            "type": "url_citation",
            "start_index": 0,
            "end_index": len(reply.text),
            "url": call.page,
            "title": f"Page {call.id}",
        }
        for call in reply.server_calls
        if not call.failed
    ]


def search_item(call: ServerCall) -> dict[str, Any]:
    """Return the item of one search; the API never shows the text that the model has read."""
    query = call.arguments["query"]
    sources = [] if call.failed else [{"type": "url", "url": call.page}]
    return {
        "id": f"ws_{call.id}",
        "type": "web_search_call",
        "status": "failed" if call.failed else "completed",
        "action": {"type": "search", "query": query, "queries": [query], "sources": sources},
    }


def search_tokens(item: Mapping[str, Any]) -> int:
    """Count the tokens that the model has generated for a search."""
    query = compact({"query": item["action"]["query"]})
    return count_tokens("web_search") + count_tokens(query)


def tool_usage(answer: Answer) -> dict[str, Any]:
    """Return the part of an answer that counts the searches."""
    if not answer.request.server_tools:
        return {}
    return {"tool_usage": {"web_search": {"num_requests": answer.usage.web_searches}}}

"""The tools that run at OpenAI: the tools' part of requests, and the tools' items in answers."""

from collections.abc import Mapping
from typing import Any

from app.simulator.chat import Answer, Refusal, Reply, ServerCall, count_tokens
from app.simulator.wire import compact, field, objects_in, token_limit

#: The names of the tools by their types.
NAMES = {"web_search": "web_search", "code_interpreter": "code_execution"}
PROGRAM = "code_interpreter_call"
_GIGABYTES = {"1g": 1, "4g": 4, "16g": 16, "64g": 64}


def server_tools_in(body: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Read the tools of a request that run at OpenAI: the tools' names and most uses."""
    kinds = [tool.get("type") for tool in objects_in(body, "tools")]
    most = token_limit(body, "max_tool_calls") or 10
    return tuple((name, most) for kind, name in NAMES.items() if kind in kinds)


def gigabytes_in(body: Mapping[str, Any]) -> int:
    """Read the size of a new container.

    Raises:
        Refusal: If the size is unknown, or the container is not of the type "auto".
    """
    for tool in objects_in(body, "tools"):
        if tool.get("type") == "code_interpreter":
            container = field(tool, "container", dict)
            size = container.get("memory_limit") or "1g"
            if container.get("type") != "auto" or size not in _GIGABYTES:
                raise Refusal(400, f"Invalid value: {compact(container)}.", param="tools")
            return _GIGABYTES[size]
    return 1


def containers_in(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the containers in which earlier programs ran."""
    if not isinstance(body.get("input"), list):
        return ()
    items = (item for item in objects_in(body, "input") if item.get("type") == PROGRAM)
    return tuple(str(item.get("container_id")) for item in items)


def past_program(index: int, item: Mapping[str, Any]) -> int:
    """Count the tokens of an earlier program and of its outputs, if they come back."""
    _check_past(index, item, ("id", "code", "container_id", "status"))
    if "outputs" not in item:
        raise _missing(index, "outputs")
    logs = (str(output.get("logs", "")) for output in objects_in(item, "outputs"))
    return sum(map(count_tokens, (str(item["code"]), *logs)))


def past_search(index: int, item: Mapping[str, Any]) -> int:
    """Count the tokens of an earlier search, whose results the provider has not kept."""
    _check_past(index, item, ("action", "status"))
    return count_tokens(compact(item["action"]))


def _check_past(index: int, item: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if not item.get(name):
            raise _missing(index, name)


def _missing(index: int, name: str) -> Refusal:
    return Refusal(
        400,
        f"Missing required parameter: 'input[{index}].{name}'.",
        code="missing_required_parameter",
        param=f"input[{index}].{name}",
    )


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
        if not call.failed and call.name == "web_search"
    ]


def item_of(call: ServerCall, answer: Answer) -> dict[str, Any]:
    """Return the item of one use; the API never shows what the model has read of a page."""
    if call.name == "code_execution":
        outputs = [] if call.failed else [{"type": "logs", "logs": call.text}]
        return {
            "id": f"ci_{call.id}",
            "type": PROGRAM,
            "status": "failed" if call.failed else "completed",
            "code": call.arguments["code"],
            "container_id": answer.container,
            "outputs": outputs if answer.request.shows_outputs else None,
        }
    query = call.arguments["query"]
    sources = [] if call.failed else [{"type": "url", "url": call.page}]
    return {
        "id": f"ws_{call.id}",
        "type": "web_search_call",
        "status": "failed" if call.failed else "completed",
        "action": {"type": "search", "query": query, "queries": [query], "sources": sources},
    }


def use_tokens(item: Mapping[str, Any]) -> int:
    """Count the tokens that the model has generated for a search or a program."""
    if item["type"] == PROGRAM:
        return count_tokens("code_execution") + count_tokens(compact({"code": item["code"]}))
    query = compact({"query": item["action"]["query"]})
    return count_tokens("web_search") + count_tokens(query)


def tool_usage(answer: Answer) -> dict[str, Any]:
    """Return the part of an answer that counts the searches."""
    if all(name != "web_search" for name, _ in answer.request.server_tools):
        return {}
    return {"tool_usage": {"web_search": {"num_requests": answer.usage.web_searches}}}

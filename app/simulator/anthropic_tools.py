"""The tools that run at Anthropic: their part of requests, and the tools' blocks in answers."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.simulator.chat import Refusal, ServerCall, count_tokens
from app.simulator.wire import compact, field, refuse_others, token_limit

_TYPE = re.compile(r"(web_search|web_fetch|code_execution)_(\d{8})")
# Rounds of programs after which an answer is paused.
_MOST_ROUNDS = 10
# From this version on, programs of the model call the tools, unless the request says otherwise. The
# pattern below matches the models that write no programs that call tools.
_FIRST_FOR_PROGRAMS = "20260209"
_WITHOUT_PROGRAMS = re.compile(r"haiku-[34]|claude-3|(?:sonnet|opus)-4-[0-4]|-4-20\d{6}")


def server_tool(tool: Mapping[str, Any], model: str) -> tuple[str, int] | None:
    """Read a tool's name and its largest number of uses; return None for a tool of the client.

    Raises:
        Refusal: If Anthropic does not have this tool, or does not offer the tool for this model.
    """
    if "input_schema" in tool or tool.get("type") in (None, "custom"):
        return None
    kind = str(tool["type"])
    found = _TYPE.fullmatch(kind)
    if found is None or field(tool, "name", str) != found[1]:
        raise Refusal(400, f"tools: Input tag {kind!r} does not match any of the expected tags.")
    if found[1] == "code_execution":
        refuse_others(
            tool, ("type", "name"), f"tools.{kind}.{{name}}: Extra inputs are not permitted"
        )
        return found[1], _MOST_ROUNDS
    is_direct = tool.get("allowed_callers") == ["direct"]
    if found[2] >= _FIRST_FOR_PROGRAMS and not is_direct and _WITHOUT_PROGRAMS.search(model):
        raise Refusal(400, f"{model!r} does not support programmatic tool calling.")
    if "allowed_domains" in tool and "blocked_domains" in tool:
        raise Refusal(400, "tools: Only one of allowed_domains and blocked_domains can be given.")
    return found[1], token_limit(tool, "max_uses") or 10


def has_free_containers(tools: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether containers cost nothing, because the request also has the newest web tools."""
    found = (_TYPE.fullmatch(str(tool.get("type"))) for tool in tools)
    return any(
        each and each[1] != "code_execution" and each[2] >= _FIRST_FOR_PROGRAMS for each in found
    )


def past_tokens(blocks: Sequence[Mapping[str, Any]]) -> int | None:
    """Count the tokens of the tools' blocks in an earlier answer; None if there are no blocks."""
    uses = [block for block in blocks if block.get("type") == "server_tool_use"]
    texts = [text for block in blocks for text in _texts(block)]
    if not uses:
        return None
    said = (str(use.get("name", "")) for use in uses)
    given = (compact(use.get("input")) for use in uses)
    return sum(map(count_tokens, (*said, *given, *texts)))


def blocks_of(call: ServerCall) -> list[dict[str, Any]]:
    """Return the blocks of one use: the use and its result."""
    id_ = f"srvtoolu_{call.id}"
    if call.name == "code_execution":
        return _program(call, id_)
    use = {"type": "server_tool_use", "id": id_, "name": call.name, "input": dict(call.arguments)}
    kind = f"{call.name}_tool_result"
    result: Any = {"type": f"{kind}_error", "error_code": "unavailable"}
    if not call.failed:
        result = _pages(call) if call.name == "web_search" else _document(call)
    return [use, {"type": kind, "tool_use_id": id_, "content": result}]


def _program(call: ServerCall, id_: str) -> list[dict[str, Any]]:
    name = "bash_code_execution"
    command = {"command": call.arguments["code"]}
    result: dict[str, Any] = {"type": f"{name}_tool_result_error", "error_code": "unavailable"}
    if not call.failed:
        result = {"type": f"{name}_result", "stdout": call.text, "stderr": ""}
        result |= {"return_code": 0, "content": []}
    return [
        {"type": "server_tool_use", "id": id_, "name": name, "input": command},
        {"type": f"{name}_tool_result", "tool_use_id": id_, "content": result},
    ]


def citations_of(calls: Sequence[ServerCall]) -> list[dict[str, Any]]:
    """Return the citations of a text that follows the searches."""
    return [
        {
            "type": "web_search_result_location",
            "url": call.page,
            "title": f"Page {call.id}",
            "encrypted_index": call.id,
            "cited_text": call.text[:150],
        }
        for call in calls
        if call.name == "web_search" and not call.failed
    ]


def _pages(call: ServerCall) -> list[dict[str, Any]]:
    return [
        {
            "type": "web_search_result",
            "url": call.page,
            "title": f"Page {call.id}",
            "encrypted_content": call.text,
            "page_age": None,
        }
    ]


def _document(call: ServerCall) -> dict[str, Any]:
    source = {"type": "text", "media_type": "text/plain", "data": call.text}
    document = {"type": "document", "source": source, "title": f"Page {call.id}"}
    return {"type": "web_fetch_result", "url": call.page, "content": document}


def _texts(block: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a result, which the model reads again."""
    content = block.get("content")
    if block.get("type") == "web_search_tool_result" and isinstance(content, list):
        yield from (str(page.get("encrypted_content", "")) for page in content)
    if block.get("type") == "bash_code_execution_tool_result" and isinstance(content, Mapping):
        yield str(content.get("stdout", ""))
    if block.get("type") == "web_fetch_tool_result" and isinstance(content, Mapping):
        document = content.get("content")
        source = document.get("source") if isinstance(document, Mapping) else None
        yield str(source.get("data", "")) if isinstance(source, Mapping) else ""

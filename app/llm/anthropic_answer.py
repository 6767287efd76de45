"""Reads a message of Anthropic's API, also in the forms that compatible servers write."""

from collections.abc import Mapping
from typing import Any

from app.llm.answers import Answer
from app.llm.base import ToolCall
from app.llm.citations import cited
from app.llm.models import anthropic_thinks_unasked
from app.llm.usage import anthropic_counts
from app.llm.wire import (
    PROTOCOL_ERRORS,
    content_text,
    error_in,
    joined,
    list_in,
    read_json,
    write_json,
)

#: Types of blocks that have nothing beside the text and the calls of the answer.
SHOWN = frozenset({"text", "tool_use"})
# The names of all tools that run programs have this part. The types of the results have it, too.
_PROGRAM = "code_execution"


def read_message(answer: Mapping[str, Any]) -> Answer:
    """Read a message.

    Raises:
        Exception: One of ``PROTOCOL_ERRORS``, if the answer is no message.
    """
    blocks = _blocks(answer)
    calls = [_read_call(block) for block in blocks if block.get("type") == "tool_use"]
    text = joined(block.get("text") or "" for block in blocks if block.get("type") == "text")
    is_shown = all(block.get("type") in SHOWN for block in blocks)
    usage = answer.get("usage")
    raw_usage = usage if isinstance(usage, dict) else {}
    details = answer.get("stop_details")
    explanation = details.get("explanation") if isinstance(details, dict) else None
    return Answer(
        text=text,
        calls=calls,
        word=answer.get("stop_reason") or None,
        model=answer.get("model"),
        counts=anthropic_counts(raw_usage, produced=bool(text or calls)),
        raw_usage=raw_usage,
        original=None if is_shown else blocks,
        refusal=content_text(explanation or None) or None,
        error=error_in(answer.get("error")),
        facts={
            "stop_sequence": answer.get("stop_sequence"),
            "service_tier": raw_usage.get("service_tier"),
            "speed": raw_usage.get("speed"),
            "inference_geo": raw_usage.get("inference_geo"),
            "citations": cited(
                part for block in blocks for part in list_in(block.get("citations"))
            ),
        },
        web_searches=sum(map(_is_search, blocks)),
        containers=_containers(answer),
        ran_programs=any(map(_is_of_program, blocks)),
        shown=blocks,
        hides=not is_shown,
    )


def hides(body: Mapping[str, Any]) -> bool:
    """Return whether the answer to a request may leave out a part of the generated text."""
    thinking = body.get("thinking")
    asked = thinking is not None and thinking.get("type") != "disabled"
    return asked or (thinking is None and anthropic_thinks_unasked(body["model"]))


def tool_input(arguments: str) -> dict[str, Any]:
    """Convert a call's arguments to an object, because the API requires an object in any case."""
    try:
        value = read_json((arguments or "{}").encode("utf-8", "surrogatepass"))
    except PROTOCOL_ERRORS:
        value = None
    return value if isinstance(value, dict) else {"arguments": arguments}


def _is_search(block: Mapping[str, Any]) -> bool:
    """Return whether a block has the results of a search; a search that failed is free."""
    is_result = block.get("type") == "web_search_tool_result"
    return is_result and isinstance(block.get("content"), list)


def _containers(answer: Mapping[str, Any]) -> list[str]:
    """Return the id of the container in which the programs of a message ran."""
    container = answer.get("container")
    id_ = container.get("id") if isinstance(container, Mapping) else None
    return [id_] if id_ and isinstance(id_, str) else []


def _is_of_program(block: Mapping[str, Any]) -> bool:
    """Return whether a block is a program, or the result of a program.

    The usage of many answers does not count programs. A stream that ends with a call of the agent's
    own tool does not name the container of the programs.
    """
    named = f"{block.get('type')} {block.get('name')}"
    return _PROGRAM in named and block.get("type") != "tool_use"


def _blocks(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the blocks of a message; only a message that tells its end may have no blocks."""
    content = answer.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not content and not answer.get("stop_reason") and not answer.get("error"):
        raise ValueError("an answer without content")
    blocks = [block for block in content or () if block]
    if not all(isinstance(block, dict) for block in blocks):
        raise TypeError("a block of the content is not an object")
    return blocks


def _read_call(block: Mapping[str, Any]) -> ToolCall:
    id_, given = block.get("id"), block.get("input")
    arguments = given if isinstance(given, str) else write_json({} if given is None else given)
    return ToolCall(
        id=id_ if isinstance(id_, str) else "",
        name=joined([block["name"]]),
        arguments=arguments or "{}",
    )

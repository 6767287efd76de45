"""The simulated model, whose reply depends only on the request.

If the request offers tools and the question has no tool results yet, the reply has tool calls. If
the prompt asks for JSON, the reply is JSON. Otherwise, the reply has a few sentences about the
prompt.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.simulator.chat import ChatRequest, Reply, Tool, ToolCall
from app.simulator.facts import Facts, digest_of
from app.simulator.instructed import schema_in
from app.simulator.markers import NOTHING, Marker, without_markers
from app.simulator.pages import server_calls
from app.simulator.prose import chosen_from, paragraph
from app.simulator.values import value_of_key, value_of_schema
from app.simulator.wire import compact

BYTES_PER_TOKEN = 4
_MAX_CALLS = 3
_RESULT_CHARS = 240
_NAME = r"[`\"']?([A-Za-z_]\w*)[`\"']?(?:\s*\([^)]*\))?"
_ASKS_JSON = re.compile(
    r"\b(?:respond|reply|answer|return|output|produce|provide|give|as|in|valid|only)\b[^.\n]{0,40}\bjson\b"
    r"|\bjson\b[^.\n]{0,40}\b(?:keys?|fields?|properties)\b",
    re.IGNORECASE,
)
_KEYS = re.compile(
    rf"\b(?:keys?|fields?|properties)\b\s*:?\s*({_NAME}(?:\s*(?:,\s*(?:and\s+)?|\band\s+){_NAME})*)",
    re.IGNORECASE,
)
_TEMPLATE = re.compile(r"\bjson\b[^{]{0,80}(\{.*?\})", re.IGNORECASE | re.DOTALL)
_REFUSAL = "I'm sorry, but I can't help with that."
_DEFAULT_KEYS = ("status", "summary", "confidence")


def reply_to(
    request: ChatRequest,
    *,
    marker: Marker = NOTHING,
    output_tokens: int | None = None,
    signature: str = "",
) -> Reply:
    """Make the reply to a request.

    Args:
        request: the request.
        marker: the merged markers of the prompt.
        output_tokens: size of a text reply; None keeps the natural length of the text.
        signature: string at the start of a reply in plain text; a short reply may contain only the
            beginning of this string.

    Returns:
        A reply with at most `request.max_tokens` tokens, including reasoning tokens.
    """
    limit = request.max_tokens
    reasoning = marker.reasoning_tokens or 0
    if limit is not None:
        reasoning = min(reasoning, limit)
        limit -= reasoning
    if marker.refused:
        return Reply(text=_REFUSAL, tool_calls=(), reasoning_tokens=0, cut=False, refused=True)
    used = server_calls(request, marker)
    if limit is not None:
        limit = max(limit - sum(call.output_tokens for call in used), 0)
    pauses = (marker.pauses or 0) if request.provider == "anthropic" else 0
    if used and request.server_turns < pauses:
        return Reply(
            text="",
            tool_calls=(),
            reasoning_tokens=reasoning,
            cut=False,
            server_calls=used,
            paused=True,
        )
    instructed, prompt = schema_in(without_markers(request.prompt))
    schema = instructed if request.schema is None else request.schema
    facts = Facts("\n".join([prompt, *request.tool_results]))
    calls = _calls(request, facts, marker.tool_turns or 1)
    if calls and marker.cut_calls:
        # The last call loses its end, so half of the last call's arguments are missing.
        *whole, last = calls
        half = replace(last, arguments=last.arguments[: len(last.arguments) // 2])
        return Reply(
            text="",
            tool_calls=(*whole, half),
            reasoning_tokens=reasoning,
            cut=True,
            server_calls=used,
        )
    reply = Reply(text="", tool_calls=calls, reasoning_tokens=0, cut=False)
    if calls and (limit is None or reply.output_tokens <= limit):
        return replace(reply, reasoning_tokens=reasoning, server_calls=used)
    size = marker.output_tokens or output_tokens
    text = _text(request, schema, facts, size, signature) if marker.reply is None else marker.reply
    if request.questions <= (marker.invalid_turns or 0):
        text = _spoiled(text)
    text = text[len(request.said) :]
    shown = text if limit is None else _first_bytes(text, limit * BYTES_PER_TOKEN)
    return Reply(
        text=shown,
        tool_calls=(),
        reasoning_tokens=reasoning,
        cut=bool(calls) or shown != text,
        server_calls=used,
    )


def _calls(request: ChatRequest, facts: Facts, turns: int) -> tuple[ToolCall, ...]:
    if not request.tools or request.tool_choice == "none" or request.tool_turns >= turns:
        return ()
    named = [tool for tool in request.tools if tool.name == request.tool_choice]
    mentioned = [
        tool for tool in request.tools if re.search(rf"\b{re.escape(tool.name)}\b", facts.text)
    ]
    chosen: list[Tool] = named or mentioned[:_MAX_CALLS] or [request.tools[0]]
    return tuple(_call(index, tool, request, facts) for index, tool in enumerate(chosen))


def _call(index: int, tool: Tool, request: ChatRequest, facts: Facts) -> ToolCall:
    arguments = value_of_schema({"type": "object", **tool.schema}, facts)
    name = digest_of(f"{request.tool_turns}/{index}/{tool.name}/{request.prompt}")
    return ToolCall(id=name, name=tool.name, arguments=compact(arguments))


def _text(
    request: ChatRequest,
    schema: Mapping[str, Any] | None,
    facts: Facts,
    size: int | None,
    signature: str,
) -> str:
    if schema is not None:
        return _padded(compact(value_of_schema(schema, facts)), size)
    if request.wants_json or _ASKS_JSON.search(facts.text):
        keys, rest = _keys_in(facts.text)
        stated = Facts(rest)
        return _padded(compact({key: value_of_key(key, stated) for key in keys}), size)
    choice = chosen_from(facts)
    if choice is not None:
        return choice
    text = paragraph(facts)
    if request.tool_results:
        quoted = "; ".join(result.strip()[:_RESULT_CHARS] for result in request.tool_results)
        text = f"According to the tools: {quoted}. {text}"
    text = f"{signature} {text}" if signature else text
    return text if size is None else _sized(text, size)


def _spoiled(text: str) -> str:
    """Give the first value of a JSON answer a type that does not fit the answer's schema."""
    try:
        value = json.loads(text)
    except ValueError:
        return f"Not JSON: {text}"
    if isinstance(value, dict) and value:
        return compact({**value, next(iter(value)): {"invalid": [None]}})
    return compact({"invalid": [value]})


def _keys_in(text: str) -> tuple[list[str], str]:
    """Return the keys that the prompt asks for, and the prompt without the list of keys."""
    listed = _KEYS.search(text)
    if listed:
        keys = [name for name in re.findall(_NAME, listed[1]) if name.lower() != "and"]
        return keys, text.replace(listed[0], "")
    template = _TEMPLATE.search(text)
    keys = re.findall(r"[\"'](\w+)[\"']\s*:", template[1]) if template else []
    return keys or list(_DEFAULT_KEYS), text.replace(template[0], "") if template else text


def _sized(text: str, tokens: int) -> str:
    """Repeat or cut a text, so that it has exactly this number of tokens."""
    wanted = tokens * BYTES_PER_TOKEN
    have = len(text.encode("utf-8", "replace")) + 1
    return _first_bytes(" ".join([text] * (wanted // have + 1)), wanted)


def _padded(document: str, tokens: int | None) -> str:
    """Pad JSON to at least this number of tokens; longer JSON is not cut and stays valid."""
    missing = (tokens or 0) * BYTES_PER_TOKEN - len(document.encode("utf-8", "replace"))
    return document + " " * max(0, missing)


def _first_bytes(text: str, size: int) -> str:
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= size else encoded[:size].decode("utf-8", "ignore")

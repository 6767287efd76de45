"""Tokens of a request before it is sent: a strict upper bound for holds, a guess for limits.

No tokenizer: both providers' tokenizers work on bytes, so a text has at most as many tokens as
UTF-8 bytes, and prose has about a quarter of that.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import BadRequest
from app.llm.base import Message, ToolCall
from app.llm.models import claude_version

# Both providers wrap messages and tools in tokens of their own: 3 to 4 a message; with tools, a
# system prompt of up to 530 (Anthropic, Claude 3 Opus) and some words around each tool.
_REQUEST_TOKENS = 16
_MESSAGE_TOKENS = 16
_TOOLS_TOKENS = 600
_TOOL_TOKENS = 64
# Text around the JSON Schema of an answer, of the provider or of the instruction.
_SCHEMA_TOKENS = 600
_EXPECTED_MESSAGE_TOKENS = 4
# Bytes of usual text per token, by how the model's name goes on after a gateway's prefix. Claude
# since 4.7 has a tokenizer that needs up to 1.35 times the tokens of the one before.
_BYTES_PER_TOKEN = 4.0
_CLAUDE_BYTES_PER_TOKEN = 3.6
_NEW_CLAUDE_BYTES_PER_TOKEN = 2.9
_OLD_TOKENIZER = (4, 6)


def upper_bound_tokens(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None = None,
    params: Mapping[str, Any] | None = None,
) -> int:
    """Return the input tokens that a request cannot exceed.

    Args:
        messages: As in ``LLMClient.complete_with_tools``.
        tools: The tools sent with them.
        params: Further parameters that the prompt may grow by: ``system``, an output schema.

    Returns:
        Tokens; one per byte, and room for what the provider adds.

    Raises:
        BadRequest: If a message holds anything but text.
    """
    tokens = _REQUEST_TOKENS + sum(_MESSAGE_TOKENS + _bytes_of(message) for message in messages)
    if tools:
        tokens += _TOOLS_TOKENS + sum(_TOOL_TOKENS + _json_bytes(tool) for tool in tools)
    if params and "output_schema" in params:
        tokens += _SCHEMA_TOKENS
    return tokens + (_json_bytes(params) if params else 0)


def expected_tokens(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None = None,
    params: Mapping[str, Any] | None = None,
    *,
    model: str = "",
) -> int:
    """Return the input tokens that a request will probably have.

    Args:
        messages: As in ``LLMClient.complete_with_tools``.
        tools: The tools sent with them.
        params: As in ``upper_bound_tokens``.
        model: Model name, which decides the tokenizer.

    Returns:
        Tokens, at least 1.

    Raises:
        BadRequest: If a message holds anything but text.
    """
    size = sum(_bytes_of(message) for message in messages)
    size += sum(_json_bytes(tool) for tool in tools or ())
    size += _json_bytes(params) if params else 0
    return 1 + int(size / bytes_per_token(model)) + _EXPECTED_MESSAGE_TOKENS * len(messages)


def usual_tokens(expected: int, model: str) -> int:
    """Convert an expected number of tokens to a tokenizer with a token per 4 bytes."""
    return int(expected * bytes_per_token(model) / _BYTES_PER_TOKEN)


def bytes_per_token(model: str) -> float:
    """Return the UTF-8 bytes of usual text that a model reads as one token."""
    if "claude" not in model:
        return _BYTES_PER_TOKEN
    version = claude_version(model)
    old = version is not None and version <= _OLD_TOKENIZER
    return _CLAUDE_BYTES_PER_TOKEN if old else _NEW_CLAUDE_BYTES_PER_TOKEN


def text_bytes(text: str) -> int:
    """Return the UTF-8 bytes of a text, which are also the most tokens it can have."""
    # isascii() reads a flag of the string: usual text is not copied to be measured.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _bytes_of(message: Message) -> int:
    size = _content_bytes(message.get("content"))
    if calls := message.get("tool_calls"):
        size += sum(_call_bytes(call) for call in calls)
    if call_id := message.get("tool_call_id"):
        size += text_bytes(call_id)
    if blocks := message.get("blocks"):
        size += _json_bytes(blocks)
    return size


def _content_bytes(content: Any) -> int:
    if content is None:
        return 0
    if isinstance(content, str):
        return text_bytes(content)
    if not isinstance(content, Sequence):
        raise BadRequest(
            f"a message's content is {type(content).__name__}: text only", reached=False
        )
    size = 0
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise BadRequest(
                f"a message has a part of type {kind!r}: only text can be priced before a call",
                reached=False,
            )
        size += _MESSAGE_TOKENS + text_bytes(part["text"])
    return size


def _call_bytes(call: ToolCall) -> int:
    # A provider may show the arguments to its model parsed and written anew, with \u escapes.
    return _MESSAGE_TOKENS + len(call.id) + len(call.name) + len(json.dumps(call.arguments))


def _json_bytes(value: Any) -> int:
    """Return the bytes of a value as JSON in its longest usual form: escapes and spaces."""
    return len(json.dumps(value, default=str))

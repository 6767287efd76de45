"""Counts tokens before a request is sent: a strict upper bound for holds, an estimate for limits.

This module uses no tokenizer. The tokenizers of both providers work on bytes, so a text never has
more tokens than UTF-8 bytes. Usual prose has about one token for four bytes. The tokens of images
and PDFs follow from the providers' formulas (``app.media``).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.claude import claude_version
from app.domain.server_tools import is_server_tool
from app.errors import BadRequest
from app.llm import parts
from app.llm.base import Message, ToolCall
from app.llm.parts import is_media, media_in

# Both providers add tokens of their own: 3 to 4 tokens to each message, and a few tokens to each
# tool. If there are tools, the provider also adds a system prompt of up to 530 tokens (Anthropic,
# Claude 3 Opus).
_REQUEST_TOKENS = 16
_MESSAGE_TOKENS = 16
_TOOLS_TOKENS = 600
_TOOL_TOKENS = 64
# A tool of the provider has long instructions of the provider's own: about 2,000 tokens for
# Anthropic's web_search (recorded requests).
_SERVER_TOOL_TOKENS, _EXPECTED_SERVER_TOOL_TOKENS = 4000, 2000
#: Tokens that a tool call of an answer has in addition to its name and arguments.
CALL_TOKENS = 64
# Tokens that the provider or the instruction adds around the JSON Schema of an answer.
_SCHEMA_TOKENS = 600
_EXPECTED_MESSAGE_TOKENS = 4
# The server, and not the model, writes these texts of an answer.
_NOT_GENERATED = frozenset({"role", "type", "id", "call_id", "index", "status", "phase"})
# Bytes of usual text per token. The model's name decides between these numbers, also if the name
# has the prefix of a gateway. Since version 4.7, Claude has a new tokenizer, which splits a text
# into up to 1.35 times as many tokens as the old tokenizer.
_BYTES_PER_TOKEN = 4.0
_CLAUDE_BYTES_PER_TOKEN = 3.6
_NEW_CLAUDE_BYTES_PER_TOKEN = 2.9
_OLD_TOKENIZER = (4, 6)


def upper_bound_tokens(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None = None,
    params: Mapping[str, Any] | None = None,
    *,
    model: str = "",
) -> int:
    """Return the most input tokens that a request can have.

    Args:
        messages: As in ``LLMClient.complete_with_tools``.
        tools: The tools that are sent with the messages.
        params: Further parameters that add to the prompt, such as ``system`` and an output schema.
        model: Model name, which determines the tokens of images and PDFs.

    Returns:
        Number of tokens: one per byte of text, the most tokens of each image and PDF, and an
        allowance for the tokens that the provider adds.

    Raises:
        BadRequest: If a message has a part that is no text, image or PDF.
    """
    tokens = _REQUEST_TOKENS + sum(_MESSAGE_TOKENS + _bytes_of(message) for message in messages)
    if tools:
        tokens += _TOOLS_TOKENS + sum(_TOOL_TOKENS + json_bytes(tool) for tool in tools)
        tokens += _SERVER_TOOL_TOKENS * sum(map(is_server_tool, tools))
    if params and "output_schema" in params:
        tokens += _SCHEMA_TOKENS
    tokens += sum(_MESSAGE_TOKENS + parts.bound_tokens(part, model) for part in media_in(messages))
    return tokens + (json_bytes(params) if params else 0)


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
        tools: The tools that are sent with the messages.
        params: As in ``upper_bound_tokens``.
        model: Model name, which determines the tokenizer, and the tokens of images and PDFs.

    Returns:
        Number of tokens, at least 1.

    Raises:
        BadRequest: If a message has a part that is no text, image or PDF.
    """
    size = sum(_bytes_of(message) for message in messages)
    size += sum(json_bytes(tool) for tool in tools or ())
    size += json_bytes(params) if params else 0
    tokens = 1 + int(size / bytes_per_token(model)) + _EXPECTED_MESSAGE_TOKENS * len(messages)
    tokens += _EXPECTED_SERVER_TOOL_TOKENS * sum(map(is_server_tool, tools or ()))
    return tokens + media_tokens(messages, model)


def media_tokens(messages: Sequence[Message], model: str) -> int:
    """Return the tokens that the images and PDFs of a request will probably have."""
    return sum(parts.expected_tokens(part, model) for part in media_in(messages))


def usual_tokens(expected: int, model: str) -> int:
    """Convert an expected number of tokens to the number at 4 bytes per token."""
    return int(expected * bytes_per_token(model) / _BYTES_PER_TOKEN)


def bytes_per_token(model: str) -> float:
    """Return the UTF-8 bytes of usual text that a model reads as one token."""
    if "claude" not in model:
        return _BYTES_PER_TOKEN
    version = claude_version(model)
    old = version is not None and version <= _OLD_TOKENIZER
    return _CLAUDE_BYTES_PER_TOKEN if old else _NEW_CLAUDE_BYTES_PER_TOKEN


def text_bytes(text: str) -> int:
    """Return a text's number of UTF-8 bytes; this is also an upper bound of the text's tokens."""
    # isascii() only reads a flag of the string, so usual text is not copied.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def json_bytes(value: Any) -> int:
    """Return the size of a value as JSON in the longest usual form, with escapes and spaces."""
    return len(json.dumps(value, default=str))


def generated_bytes(value: Any) -> int:
    """Return the number of bytes of all texts that a model has generated in a part of an answer."""
    if isinstance(value, str):
        return text_bytes(value)
    if isinstance(value, dict):
        parts = (part for key, part in value.items() if key not in _NOT_GENERATED)
        return sum(map(generated_bytes, parts))
    if isinstance(value, list):
        return sum(map(generated_bytes, value))
    return 0 if value is None else len(str(value))


def _bytes_of(message: Message) -> int:
    size = _content_bytes(message.get("content"))
    if calls := message.get("tool_calls"):
        size += sum(_call_bytes(call) for call in calls)
    if call_id := message.get("tool_call_id"):
        size += text_bytes(call_id)
    if original := message.get("original"):
        # The provider that wrote the message gets the original. Any other provider gets the rest.
        size = max(size, json_bytes(original))
    return size


def _content_bytes(content: Any) -> int:
    if content is None:
        return 0
    if isinstance(content, str):
        return text_bytes(content)
    if not isinstance(content, Sequence):
        raise BadRequest(
            f"a message's content is {type(content).__name__}: give text", reached=False
        )
    size = 0
    for part in content:
        if is_media(part):
            size += text_bytes(part.get("name") or "")
            continue
        if not isinstance(part, Mapping) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise BadRequest(
                f"a message has a part of type {kind!r}: only text, images and PDFs "
                "can be priced before a call",
                reached=False,
            )
        size += _MESSAGE_TOKENS + text_bytes(part["text"])
    return size


def _call_bytes(call: ToolCall) -> int:
    # A provider may parse the arguments and write them again for its model, with \u escapes.
    return _MESSAGE_TOKENS + len(call.id) + len(call.name) + len(json.dumps(call.arguments))

"""Hints that make a provider keep the beginning of a prompt, where an agent asks for that.

All requests of an agent begin with the same tools and instructions; in a conversation with tools,
each request also begins with the whole of the one before.
"""

import hashlib
import re
from typing import Any

import orjson

_KEY_CHARS = 32
_USUAL_LEAST = 1024
# Models of Anthropic whose least cacheable prompt has another length.
_ANTHROPIC_LEAST = (
    (re.compile(r"claude-(?:opus-4-[56]|haiku-4-5)"), 4096),
    (re.compile(r"claude-(?:sonnet-4-6|3-5-haiku|3-haiku)"), 2048),
)


def least_openai(model: str) -> int:  # noqa: ARG001 see Dialect
    """Return the tokens below which OpenAI caches nothing, as its pages say (2026)."""
    return _USUAL_LEAST


def least_anthropic(model: str) -> int:
    """Return the tokens below which Anthropic caches nothing, as its pages say (2026)."""
    return next((least for name, least in _ANTHROPIC_LEAST if name.match(model)), _USUAL_LEAST)


def ask_openai(body: dict[str, Any]) -> None:
    """Route requests that begin alike to the server that knows the beginning.

    Caching itself is not asked for: this protocol's servers do it by themselves or not at all.

    Args:
        body: A request with ``prompt_cache``, which is removed from it.
    """
    if not body.pop("prompt_cache", None):
        return
    instructions = [each["content"] for each in body["messages"] if each["role"] == "system"]
    common = orjson.dumps([body["model"], instructions, body.get("tools")])
    body.setdefault("prompt_cache_key", hashlib.sha256(common).hexdigest()[:_KEY_CHARS])


def ask_anthropic(body: dict[str, Any]) -> None:
    """Mark the end of the instructions, or else of the tools, and of a conversation with tools.

    Args:
        body: A request with ``prompt_cache``, which is removed from it. A request that has a
            ``cache_control`` of its own in its instructions stays as it is.
    """
    lifetime = body.pop("prompt_cache", None)
    if not lifetime or "cache_control" in str(body.get("system")):
        return
    mark = {"type": "ephemeral"} | ({"ttl": lifetime} if lifetime == "1h" else {})
    if system := body.get("system"):
        blocks = [{"type": "text", "text": system}] if isinstance(system, str) else list(system)
        body["system"] = [*blocks[:-1], {**blocks[-1], "cache_control": mark}]
    elif tools := body.get("tools"):
        body["tools"] = [*tools[:-1], {**tools[-1], "cache_control": mark}]
    if body.get("tools"):
        body.setdefault("cache_control", mark)

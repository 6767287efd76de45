"""Hints with which providers cache the beginning of a prompt; agents must ask for the hints.

All requests of an agent begin with the same tools and instructions. In a conversation with tools,
each request also begins with the whole previous request.
"""

import hashlib
import re
from typing import Any

from app.domain.json_text import write_json

_KEY_CHARS = 32
_USUAL_LEAST = 1024
# The least number of tokens is different for these models of Anthropic.
_ANTHROPIC_LEAST = (
    (re.compile(r"claude-(?:opus-4-[56]|haiku-4-5)"), 4096),
    (re.compile(r"claude-(?:sonnet-4-6|3-5-haiku|3-haiku)"), 2048),
)


def least_openai(model: str) -> int:  # noqa: ARG001 see Dialect
    """Return the fewest prompt tokens that OpenAI caches, from its documentation (2026)."""
    return _USUAL_LEAST


def least_anthropic(model: str) -> int:
    """Return the fewest prompt tokens that Anthropic caches, from its documentation (2026)."""
    return next((least for name, least in _ANTHROPIC_LEAST if name.match(model)), _USUAL_LEAST)


def ask_openai(body: dict[str, Any]) -> None:
    """Add a key that routes requests with the same beginning to the same server.

    The request does not ask for caching, because the servers of this protocol either cache unasked
    or never cache.

    Args:
        body: A request; its key ``prompt_cache`` is removed.
    """
    if not body.pop("prompt_cache", None):
        return
    # Chat completions have the instructions among their messages.
    messages = body.get("messages", ())
    instructions = [each["content"] for each in messages if each["role"] == "system"]
    instructions += [body["instructions"]] if "instructions" in body else []
    common = write_json([body["model"], instructions, body.get("tools")])
    body.setdefault("prompt_cache_key", hashlib.sha256(common).hexdigest()[:_KEY_CHARS])


def ask_anthropic(body: dict[str, Any]) -> None:
    """Mark those parts of a request that Anthropic shall cache.

    The marks are at the end of the instructions, and at the end of a conversation with tools. If
    there are no instructions, the first mark is at the end of the tools.

    Args:
        body: A request; its key ``prompt_cache`` is removed. No mark is added if the instructions
            already have a ``cache_control``.
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

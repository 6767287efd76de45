"""Converts the usage objects of all request forms to ``Usage``, whose counts do not overlap."""

from collections.abc import Mapping
from typing import Any

from app.domain.usage import Usage


def openai_usage(raw: Mapping[str, Any]) -> Usage:
    """Read the usage of a chat completion; its prompt_tokens include cached and written tokens.

    Raises:
        ValueError: If a count is not a number of tokens.
    """
    prompt = _count(raw["prompt_tokens"])
    details = raw.get("prompt_tokens_details") or {}
    cached = min(_count(details.get("cached_tokens")), prompt)
    written = min(_count(details.get("cache_write_tokens")), prompt - cached)
    output_details = raw.get("completion_tokens_details") or {}
    return Usage(
        input_tokens=prompt - cached - written,
        cached_tokens=cached,
        cache_write_tokens=written,
        output_tokens=_count(raw.get("completion_tokens")),
        reasoning_tokens=_count(output_details.get("reasoning_tokens")),
    )


def responses_usage(raw: Mapping[str, Any]) -> Usage:
    """Read the usage of a response; its input_tokens include cached and written tokens.

    Raises:
        ValueError: If a count is not a number of tokens.
    """
    prompt = _count(raw["input_tokens"])
    details = raw.get("input_tokens_details") or {}
    cached = min(_count(details.get("cached_tokens")), prompt)
    written = min(_count(details.get("cache_write_tokens")), prompt - cached)
    output_details = raw.get("output_tokens_details") or {}
    return Usage(
        input_tokens=prompt - cached - written,
        cached_tokens=cached,
        cache_write_tokens=written,
        output_tokens=_count(raw.get("output_tokens")),
        reasoning_tokens=_count(output_details.get("reasoning_tokens")),
    )


def anthropic_usage(raw: Mapping[str, Any]) -> Usage:
    """Read the usage of a message; its input_tokens exclude cached and written tokens.

    Raises:
        ValueError: If a count is not a number of tokens.
    """
    written = _count(raw.get("cache_creation_input_tokens"))
    by_lifetime = raw.get("cache_creation") or {}
    written_1h = min(_count(by_lifetime.get("ephemeral_1h_input_tokens")), written)
    output_details = raw.get("output_tokens_details") or {}
    return Usage(
        input_tokens=_count(raw["input_tokens"]),
        cached_tokens=_count(raw.get("cache_read_input_tokens")),
        cache_write_tokens=written - written_1h,
        cache_write_1h_tokens=written_1h,
        output_tokens=_count(raw["output_tokens"]),
        reasoning_tokens=_count(output_details.get("thinking_tokens")),
    )


def _count(value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"the usage counts {value!r} tokens")
    return value

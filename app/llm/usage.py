"""Converts the usage objects of both protocols to ``Usage``, whose counts do not overlap."""

from collections.abc import Mapping
from typing import Any

from app.domain.usage import Usage

#: Counts of searches: Perplexity's queries, and the sources that xAI bills.
_SEARCHES = ("num_search_queries", "num_sources_used")
#: Types of Anthropic's iterations whose tokens are in the totals of the usage.
_IN_TOTALS = frozenset({"message", "fallback_message"})


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
    usage = Usage(
        input_tokens=prompt - cached - written,
        cached_tokens=cached,
        cache_write_tokens=written,
        output_tokens=_count(raw.get("completion_tokens")),
        reasoning_tokens=_count(output_details.get("reasoning_tokens")),
        web_searches=_web_searches(raw),
    )
    return usage if raw.get("citation_tokens") is None else _with_citations(usage, raw)


def anthropic_usage(raw: Mapping[str, Any]) -> Usage:
    """Read the usage of a message; its input_tokens exclude cached and written tokens.

    The totals leave out the requests with which the provider summarised the conversation, and other
    requests of its own; they are in ``iterations``, and the provider bills them.

    Raises:
        ValueError: If a count is not a number of tokens.
    """
    usage = _message_usage(raw)
    for iteration in raw.get("iterations") or ():
        if iteration.get("type") not in _IN_TOTALS:
            usage += _message_usage(iteration)
    return usage


def _message_usage(raw: Mapping[str, Any]) -> Usage:
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
        web_searches=_web_searches(raw),
    )


def _with_citations(usage: Usage, raw: Mapping[str, Any]) -> Usage:
    """Add the tokens that Perplexity counts beside the completion: citations and reasoning."""
    reasoning = _count(raw.get("reasoning_tokens"))
    return usage + Usage(
        output_tokens=reasoning,
        reasoning_tokens=reasoning,
        citation_tokens=_count(raw["citation_tokens"]),
    )


def _web_searches(raw: Mapping[str, Any]) -> int:
    """Read the searches that the provider made; each provider counts them under another name."""
    tools = raw.get("server_tool_use") or {}
    counts = [tools.get("web_search_requests"), *map(raw.get, _SEARCHES)]
    return max(map(_count, counts))


def _count(value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"the usage counts {value!r} tokens")
    return value

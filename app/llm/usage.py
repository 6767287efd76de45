"""Converts the usage objects of all protocols to ``Usage``, whose counts do not overlap.

A count that is missing, or that cannot be read, is never taken for zero: ``Counts`` tells which
parts the provider has counted, and the rest of the tokens is estimated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from app.domain.usage import Usage

# More tokens than any call has; a larger number is no count.
_MOST_TOKENS = 10**9
# Counts of searches: Perplexity's queries, and the sources that xAI bills.
_SEARCHES = ("num_search_queries", "num_sources_used")
# Types of Anthropic's iterations whose tokens are in the totals of the usage.
_IN_TOTALS = frozenset({"message", "fallback_message"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """The tokens that a provider has counted.

    Attributes:
        usage: The tokens; a part that was not counted is 0.
        prompt: Whether the provider has counted the prompt.
        output: Whether the provider has counted the output.
    """

    usage: Usage = field(default_factory=Usage)
    prompt: bool = False
    output: bool = False

    @property
    def whole(self) -> bool:
        """Whether the provider has counted everything."""
        return self.prompt and self.output

    def bounded(self, *, prompt_tokens: int, output_tokens: int) -> Usage:
        """Return the tokens, with upper bounds in place of the parts that were not counted.

        Args:
            prompt_tokens: Upper bound of the prompt's tokens.
            output_tokens: Upper bound of the generated tokens.
        """
        usage = self.usage
        if not self.prompt:
            usage = replace(usage, input_tokens=max(prompt_tokens, usage.input_tokens))
        if not self.output:
            usage = replace(usage, output_tokens=max(output_tokens, usage.output_tokens))
        return usage


def openai_counts(raw: Any, *, produced: bool) -> Counts:
    """Read the usage of a chat completion; its prompt_tokens include cached and written tokens.

    Some servers count reasoning beside completion_tokens, so that only the total contains it, and
    some count it beside the total, too. Some count sound in the prompt beside prompt_tokens.

    Args:
        raw: The usage object, or anything that a server has put in its place.
        produced: Whether the answer has any output; a count of zero is then no count.
    """
    if not isinstance(raw, dict):
        return Counts()
    details = _part(raw, "prompt_tokens_details")
    output_details = _part(raw, "completion_tokens_details")
    prompt, completion = count_of(raw.get("prompt_tokens")), count_of(raw.get("completion_tokens"))
    total = count_of(raw.get("total_tokens"))
    reasoning = _first(output_details.get("reasoning_tokens"), raw.get("reasoning_tokens"))
    citations = count_of(raw.get("citation_tokens"))
    if completion is None and prompt and total:
        completion = max(total - prompt, 0)
    if completion is not None and prompt is not None:
        beside = (total or 0) - prompt - completion
        if beside > 0 and beside == count_of(details.get("audio_tokens")):
            prompt += beside
        else:
            completion += max(beside, 0)
        # Perplexity counts reasoning and citations beside the completion. Elsewhere, reasoning is a
        # part of the completion, unless it is larger.
        if reasoning > completion or citations is not None:
            completion += reasoning
    cached = _first(
        details.get("cached_tokens"),
        raw.get("cached_tokens"),
        raw.get("prompt_cache_hit_tokens"),
        raw.get("num_cached_tokens"),
        raw.get("cache_read_input_tokens"),
    )
    written = _first(details.get("cache_write_tokens"), raw.get("cache_creation_input_tokens"))
    cached = min(cached, prompt or 0)
    written = min(written, (prompt or 0) - cached)
    output = completion or 0
    return Counts(
        usage=Usage(
            input_tokens=(prompt or 0) - cached - written,
            cached_tokens=cached,
            cache_write_tokens=written,
            output_tokens=output,
            reasoning_tokens=min(reasoning, output),
            citation_tokens=citations or 0,
            web_searches=_web_searches(raw),
        ),
        prompt=bool(prompt),
        output=completion is not None and (completion > 0 or not produced),
    )


def responses_counts(raw: Any, *, produced: bool) -> Counts:
    """Read the usage of a response; its input_tokens include cached and written tokens.

    Args:
        raw: The usage object, or anything that a server has put in its place.
        produced: As in ``openai_counts``.
    """
    if not isinstance(raw, dict):
        return Counts()
    names = (
        ("prompt_tokens", "input_tokens"),
        ("completion_tokens", "output_tokens"),
        ("prompt_tokens_details", "input_tokens_details"),
        ("completion_tokens_details", "output_tokens_details"),
    )
    told = {chat: raw[name] for chat, name in names if name in raw}
    return openai_counts({**raw, **told}, produced=produced)


def anthropic_counts(raw: Any, *, produced: bool) -> Counts:
    """Read the usage of a message; its input_tokens exclude cached and written tokens.

    The totals leave out the requests with which the provider summarised the conversation, and other
    requests of its own; they are in ``iterations``, and the provider bills them.

    Args:
        raw: The usage object, or anything that a server has put in its place.
        produced: As in ``openai_counts``.
    """
    if not isinstance(raw, dict):
        return Counts()
    prompt, output = count_of(raw.get("input_tokens")), count_of(raw.get("output_tokens"))
    totals = _message_usage(raw)
    return Counts(
        usage=_with_iterations(raw),
        prompt=prompt is not None and totals.prompt_tokens > 0,
        output=output is not None and (output > 0 or not produced),
    )


def left_out_of(raw: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the iterations whose tokens are not in the totals of a message's usage."""
    return [each for each in _iterations(raw) if each.get("type") not in _IN_TOTALS]


def _with_iterations(raw: Mapping[str, Any]) -> Usage:
    """Read the totals and the iterations; all iterations together are a lower bound."""
    usage = sum(map(_message_usage, left_out_of(raw)), _message_usage(raw))
    iterations = _iterations(raw)
    if any(each.get("type") == "fallback_message" for each in iterations):
        return usage  # its message is a part of the totals, and so is the message that it replaced
    told = sum(map(_message_usage, iterations), Usage())
    return Usage(
        **{
            each.name: max(getattr(usage, each.name), getattr(told, each.name))
            for each in fields(Usage)
        }
    )


def _iterations(raw: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    given = raw.get("iterations")
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []


def _message_usage(raw: Mapping[str, Any]) -> Usage:
    by_lifetime = _part(raw, "cache_creation")
    by_hour = _first(by_lifetime.get("ephemeral_1h_input_tokens"))
    by_minutes = _first(by_lifetime.get("ephemeral_5m_input_tokens"))
    written = max(_first(raw.get("cache_creation_input_tokens")), by_hour + by_minutes)
    thinking = _first(_part(raw, "output_tokens_details").get("thinking_tokens"))
    output = _first(raw.get("output_tokens"))
    return Usage(
        input_tokens=_first(raw.get("input_tokens")),
        cached_tokens=_first(raw.get("cache_read_input_tokens")),
        cache_write_tokens=written - by_hour,
        cache_write_1h_tokens=by_hour,
        output_tokens=output,
        reasoning_tokens=min(thinking, output),
        web_searches=_web_searches(raw),
    )


def _web_searches(raw: Mapping[str, Any]) -> int:
    """Read the searches that the provider made; each provider counts them under another name."""
    requests = _part(raw, "server_tool_use").get("web_search_requests")
    return _first(requests, *map(raw.get, _SEARCHES))


def _part(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = raw.get(name)
    return part if isinstance(part, dict) else {}


def _first(*values: Any) -> int:
    """Return the largest of several spellings of the same count, or 0 if there is none."""
    return max((count for value in values if (count := count_of(value)) is not None), default=0)


def count_of(value: Any) -> int | None:
    """Return a number of tokens, which some servers write as 12.0; None if it is no such number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= _MOST_TOKENS and value == int(value) else None

"""Converts the usage objects of all protocols to ``Usage``, whose counts do not overlap.

A count that is missing, or that cannot be read, is never taken for zero. ``Counts`` tells which
parts the provider has counted. The rest of the tokens is estimated. The tokens that are read from a
usage are at least as many as each count in the usage; a discount is the only exception.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from app.domain.usage import Usage
from app.llm.wire import count_of, grown

# The spellings of the same count. Names in camel case are read as names with underscores.
_PROMPT = ("prompt_tokens", "input_tokens", "prompt_token_count")
_OUTPUT = ("completion_tokens", "output_tokens", "candidates_token_count")
_TOTAL = ("total_tokens", "total_token_count")
_REASONING = ("reasoning_tokens", "thinking_tokens")
_PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
# Cached tokens that are always a part of the prompt.
_CACHED = (
    "cached_tokens",
    "prompt_cache_hit_tokens",
    "num_cached_tokens",
    "cached_input_tokens",
    "cached_content_token_count",
)
# Anthropic and Amazon count these cached and written tokens beside the prompt; other providers
# count these tokens in the prompt.
_READ = ("cache_read_input_tokens",)
_WRITTEN = ("cache_creation_input_tokens", "cache_write_input_tokens")
# Kinds of tokens that are a part of the prompt or of the output.
_PROMPT_PARTS = ("text_tokens", "image_tokens", "video_tokens")
_OUTPUT_PARTS = (
    *("text_tokens", "image_tokens", "audio_tokens"),
    *("accepted_prediction_tokens", "rejected_prediction_tokens"),
)
# The counts of ``Usage`` that add up to the prompt.
_OF_PROMPT = ("input_tokens", "cached_tokens", "cache_write_tokens", "cache_write_1h_tokens")
# Counts of searches: Perplexity's queries, and the sources that xAI bills.
_SEARCHES = ("num_search_queries", "num_sources_used")
# Types of Anthropic's iterations whose tokens are in the totals of the usage.
_IN_TOTALS = frozenset({"message", "fallback_message"})
# Counts up to this size are believed unchanged; this many tokens cost a few dollars at most.
_USUAL_TOKENS = 100_000
# Each of these numbers is more than any call has: the tokens of a prompt that has no bound, the
# cited tokens, and the searches.
_MOST_PROMPT, _MOST_CITED, _MOST_SEARCHES = 20_000_000, 10_000_000, 1000
_NEXT_WORD = re.compile("(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """The tokens that a provider has counted.

    Attributes:
        usage: The tokens; a part that was not counted has the least possible number of tokens.
        prompt: Whether the provider has counted the prompt.
        output: Whether the provider has counted the output.
        total: The tokens of prompt and output together, if only this sum was counted; otherwise 0.
    """

    usage: Usage = field(default_factory=Usage)
    prompt: bool = False
    output: bool = False
    total: int = 0

    @property
    def whole(self) -> bool:
        """Whether the provider has counted everything."""
        return self.prompt and self.output

    def without_output(self) -> "Counts":
        """Return the counts of an answer that is known to have no output."""
        return self if self.total else replace(self, output=True)

    def plausible(self, *, prompt_bound: Callable[[], int], max_tokens: int) -> "Counts":
        """Return the counts, but leave out counts that are too large for the request.

        A prompt may have 4 times its bound, because servers add tokens. An output may be twice
        ``max_tokens``, because some models count their reasoning apart from ``max_tokens``. Prompt
        and output may each have 10,000 tokens more.

        Args:
            prompt_bound: Returns the upper bound of the prompt's tokens, or 0 if there is no bound.
                This function is called only for large counts, because it must read the whole
                prompt.
            max_tokens: Largest number of tokens that the model may generate.
        """
        usage = self.usage
        largest = max(usage.total_tokens, self.total, usage.citation_tokens)
        if largest <= _USUAL_TOKENS and usage.web_searches <= _MOST_SEARCHES:
            return self
        bound = prompt_bound()
        most_prompt = max(_USUAL_TOKENS, 4 * bound + 10_000) if bound else _MOST_PROMPT
        most_output = max(_USUAL_TOKENS, 2 * max_tokens + 10_000)
        counts = self
        if usage.prompt_tokens > most_prompt:
            none = dict.fromkeys(_OF_PROMPT, 0)
            counts = replace(counts, usage=replace(counts.usage, **none), prompt=False)
        if usage.output_tokens > most_output:
            usage = replace(counts.usage, output_tokens=0, reasoning_tokens=0)
            counts = replace(counts, usage=usage, output=False)
        if self.total > most_prompt + most_output:
            counts = replace(counts, total=0)
        usage = counts.usage
        cited, searches = usage.citation_tokens, usage.web_searches
        if cited > _MOST_CITED or searches > _MOST_SEARCHES:
            cited, searches = min(cited, _MOST_CITED), min(searches, _MOST_SEARCHES)
            usage = replace(usage, citation_tokens=cited, web_searches=searches)
            counts = replace(counts, usage=usage, output=False)
        return counts

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
            rest = self.total - usage.prompt_tokens
            usage = replace(usage, output_tokens=max(output_tokens, usage.output_tokens, rest))
        return usage


def openai_counts(raw: Any, *, produced: bool) -> Counts:
    """Read the usage of a chat completion; its prompt_tokens include cached and written tokens.

    Some servers count reasoning beside completion_tokens, so that only the total contains the
    reasoning. Some servers count reasoning beside the total, too. Some servers count sound, cached
    or written tokens beside prompt_tokens.

    Args:
        raw: The usage object, or anything that a server has put in its place.
        produced: Whether the answer has any output. If the answer has output, a count of zero is no
            count.
    """
    if not isinstance(raw, dict):
        return Counts()
    raw = _named(raw)
    prompt, output, total = _told(raw, _PROMPT), _told(raw, _OUTPUT), _told(raw, _TOTAL) or 0
    details = _part(raw, *_PROMPT_DETAILS)
    read, (written, by_hour) = _most(raw, _READ), _written(raw)
    prompt = _whole_prompt(raw, prompt, beside=read + written, rest=total - (output or 0))
    inside = max(_most(raw, _CACHED), _most(details, _CACHED))
    if prompt and inside > prompt:
        prompt += inside  # no part is larger than the whole, so this server counts it beside
    output = _whole_output(raw, output)
    if output is None and prompt and total:
        output = max(total - prompt, 0)
    elif not prompt and output is not None and total > output:
        # The parts are a lower bound of the prompt, as is the rest of the total.
        prompt = max(total - output, _least_prompt(raw), read + written)
    reasoning, citations = _reasoning(raw), count_of(raw.get("citation_tokens"))
    if output is not None and prompt is not None:
        beside = total - prompt - output
        if beside > 0 and beside == count_of(details.get("audio_tokens")):
            prompt += beside
        else:
            output += max(beside, 0)
    # Perplexity counts reasoning and citations beside the completion. Elsewhere, reasoning is a
    # part of the completion, unless the reasoning is larger than the completion.
    if output is not None and (reasoning > output or citations is not None):
        output += reasoning
    least_output = max(output or 0, reasoning, _most(_part(raw, *_OUTPUT_DETAILS), _OUTPUT_PARTS))
    cached = max(inside, read)
    written = max(written, _most(details, ("cache_write_tokens", "cache_creation_tokens")))
    if prompt:
        cached = min(cached, prompt)
        written = min(written, prompt - cached)
        by_hour = min(by_hour, written)
        full = prompt - cached - written
    else:  # without the prompt's own count, no discount is certain
        full, cached = max(cached, _least_prompt(raw)), 0
    return Counts(
        usage=Usage(
            input_tokens=full,
            cached_tokens=cached,
            cache_write_tokens=written - by_hour,
            cache_write_1h_tokens=by_hour,
            output_tokens=least_output,
            reasoning_tokens=reasoning,
            citation_tokens=citations or 0,
            web_searches=_web_searches(raw),
        ),
        prompt=bool(prompt),
        output=output is not None and (least_output > 0 or not produced),
        total=0 if prompt or output is not None else total,
    )


def responses_counts(raw: Any, *, produced: bool) -> Counts:
    """Read the usage of a response; only the names differ from a chat completion's usage.

    Args:
        raw: The usage object, or anything that a server has put in its place.
        produced: As in ``openai_counts``.
    """
    return openai_counts(raw, produced=produced)


def anthropic_counts(raw: Any, *, produced: bool) -> Counts:
    """Read the usage of a message; its input_tokens exclude cached and written tokens.

    The totals leave out requests that the provider made itself, such as the requests that
    summarised the conversation. These requests are in ``iterations``. The provider bills these
    requests.

    Args:
        raw: The usage object, or anything that a server has put in its place.
        produced: As in ``openai_counts``.
    """
    if not isinstance(raw, dict):
        return Counts()
    raw = _named(raw)
    prompt, output, total = _told(raw, _PROMPT), _told(raw, _OUTPUT), _told(raw, _TOTAL) or 0
    own = _message_usage(raw)
    if output is None and prompt is not None and total:
        output = max(total - own.prompt_tokens, 0)
    elif prompt is None and output is not None and total > own.total_tokens:
        prompt = total - own.total_tokens
        own = replace(own, input_tokens=own.input_tokens + prompt)
    if output is not None:
        beside = max(total - own.prompt_tokens, own.output_tokens)
        own = replace(own, output_tokens=beside)
    return Counts(
        usage=_with_iterations(raw, own),
        prompt=prompt is not None and own.prompt_tokens > 0,
        output=output is not None and (own.output_tokens > 0 or not produced),
        total=0 if prompt is not None or output is not None else total,
    )


def dated_writes(raw: Any) -> int:
    """Return the written tokens of which a usage says that the cache keeps them for 5 minutes."""
    if not isinstance(raw, Mapping):
        return 0
    each = [raw, *_iterations(raw)]
    return sum(
        _most(_part(_named(one), "cache_creation"), ("ephemeral_5m_input_tokens",)) for one in each
    )


def left_out_of(raw: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the iterations whose tokens are not in the totals of a message's usage."""
    return [each for each in _iterations(raw) if each.get("type") not in _IN_TOTALS]


def _with_iterations(raw: Mapping[str, Any], own: Usage) -> Usage:
    """Add the iterations to the totals; all iterations together are a lower bound."""
    usage = sum(map(_message_usage, left_out_of(raw)), own)
    iterations = _iterations(raw)
    if any(each.get("type") == "fallback_message" for each in iterations):
        return usage  # the totals contain the fallback's message and the replaced message
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
    raw = _named(raw)
    written, by_hour = _written(raw)
    thinking, output = _reasoning(raw), _whole_output(raw, _told(raw, _OUTPUT)) or 0
    if thinking > output:  # as in a chat completion
        output += thinking
    least = max(
        _least_prompt(raw), _most(raw, _CACHED), _most(_part(raw, *_PROMPT_DETAILS), _CACHED)
    )
    return Usage(
        input_tokens=max(_most(raw, _PROMPT), least),
        cached_tokens=_most(raw, _READ),
        cache_write_tokens=written - by_hour,
        cache_write_1h_tokens=by_hour,
        output_tokens=max(output, _most(_part(raw, *_OUTPUT_DETAILS), _OUTPUT_PARTS)),
        reasoning_tokens=thinking,
        web_searches=_web_searches(raw),
    )


def _whole_prompt(
    raw: Mapping[str, Any], prompt: int | None, *, beside: int, rest: int
) -> int | None:
    """Return the prompt, including tokens that the server has counted beside the prompt.

    Args:
        raw: The usage.
        prompt: The prompt's own count.
        beside: Cached and written tokens, in the spelling of servers that count these tokens beside
            the prompt.
        rest: The total without the output.
    """
    if prompt is None:
        return None
    if beside > prompt or (beside and rest == prompt + beside):
        prompt += beside
    prompt += _most(raw, ("tool_use_prompt_token_count",))
    audio = _most(_part(raw, *_PROMPT_DETAILS), ("audio_tokens",))
    return max(prompt + audio if audio > prompt else prompt, _least_prompt(raw))


def _least_prompt(raw: Mapping[str, Any]) -> int:
    """Return the least tokens that the prompt has, by the counts of its parts."""
    details = _part(raw, *_PROMPT_DETAILS)
    hit_and_miss = _most(raw, ("prompt_cache_miss_tokens",))
    if hit_and_miss:
        hit_and_miss += _most(raw, ("prompt_cache_hit_tokens",))
    return max(
        hit_and_miss,
        _most(details, (*_PROMPT_PARTS, "audio_tokens")),
        _most(raw, ("tool_use_prompt_token_count",)),
    )


def _whole_output(raw: Mapping[str, Any], output: int | None) -> int | None:
    """Return the output, including the thoughts that Google counts beside the output."""
    return None if output is None else output + _most(raw, ("thoughts_token_count",))


def _reasoning(raw: Mapping[str, Any]) -> int:
    details = _part(raw, *_OUTPUT_DETAILS)
    told = max(_most(raw, _REASONING), _most(details, _REASONING))
    return max(told, _most(raw, ("thoughts_token_count",)))


def _written(raw: Mapping[str, Any]) -> tuple[int, int]:
    """Return the tokens that were written to a cache, and the part that stays for an hour."""
    by_lifetime = _part(raw, "cache_creation")
    by_hour = _most(by_lifetime, ("ephemeral_1h_input_tokens",))
    by_minutes = _most(by_lifetime, ("ephemeral_5m_input_tokens",))
    return max(_most(raw, _WRITTEN), by_hour + by_minutes), by_hour


def _web_searches(raw: Mapping[str, Any]) -> int:
    """Read the number of the provider's searches; each provider has another name for this count."""
    requests = _most(_part(raw, "server_tool_use"), ("web_search_requests",))
    return max(requests, _most(raw, _SEARCHES))


def _named(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a usage whose names are in lower case with underscores.

    Example:
        >>> _named({"promptTokenCount": 7})
        {'prompt_token_count': 7}
    """
    if all(map(str.islower, raw)):
        return raw
    named: dict[str, Any] = {}
    for name, value in raw.items():
        plain = _NEXT_WORD.sub("_", name).lower()
        named[plain] = grown(named.get(plain), value)
    return named


def _part(raw: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Return the object with one of these names; several objects with these names are merged."""
    found: Mapping[str, Any] = {}
    for name in names:
        if isinstance(part := raw.get(name), dict):
            found = grown(found, _named(part)) if found else _named(part)
    return found


def _told(raw: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """Return the largest count under several spellings of its name, or None without a count."""
    found: int | None = None
    for name in names:
        if name in raw and (count := count_of(raw[name])) is not None:
            found = max(found or 0, count)
    return found


def _most(raw: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return _told(raw, names) or 0

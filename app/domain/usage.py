"""The tokens and other billed counts of one call, in the same form for every provider."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Disjoint counts of one call; the first four counts add up to the prompt.

    Providers differ: OpenAI's prompt_tokens include cached tokens. Anthropic's input_tokens do not
    include cached tokens. The adapters in ``app.llm`` convert the counts of every provider to this
    form.

    Attributes:
        input_tokens: Prompt tokens at the full price. These tokens were neither read from a cache
            nor written to a cache.
        cached_tokens: Prompt tokens that were read from the provider's cache.
        cache_write_tokens: Prompt tokens that were written to a cache of 5 minutes.
        cache_write_1h_tokens: Prompt tokens that were written to a cache of 1 hour.
        output_tokens: Generated tokens, including the reasoning tokens.
        reasoning_tokens: The part of ``output_tokens`` that was reasoning.
        citation_tokens: Tokens of cited sources; these tokens are counted beside prompt and output.
        web_searches: Searches of the web that the provider made for the call.
        container_seconds: Longest time for which the containers of the model's programs may be
            billed, in seconds; a container of 4 GB counts four times if its provider has several
            sizes. No answer tells the real time.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    citation_tokens: int = 0
    web_searches: int = 0
    container_seconds: int = 0

    @property
    def prompt_tokens(self) -> int:
        """All tokens of the prompt, cached or not."""
        return (
            self.input_tokens
            + self.cached_tokens
            + self.cache_write_tokens
            + self.cache_write_1h_tokens
        )

    @property
    def total_tokens(self) -> int:
        """All tokens of the prompt and the output."""
        return self.prompt_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            cache_write_1h_tokens=self.cache_write_1h_tokens + other.cache_write_1h_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            citation_tokens=self.citation_tokens + other.citation_tokens,
            web_searches=self.web_searches + other.web_searches,
            container_seconds=self.container_seconds + other.container_seconds,
        )


#: The facts of an answer that change the price of the call.
SERVED = ("service_tier", "speed", "inference_geo")
#: Stands between the values of a fact, if an answer tells several values.
OR = " | "
# The ledger keeps 500 characters of a fact. A model or a tier with this name has no price, so the
# most expensive price applies.
_MOST_CHARS, _MORE = 400, "(more)"


def served_by(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the told facts that change the price of a call.

    A fact that is no text is told, too, but no price is known for it. So its text is kept, which is
    the name of no tier, speed or region.

    Args:
        facts: Facts of an answer, or the provider's own usage object.

    Example:
        >>> served_by({"service_tier": "priority", "speed": None, "refusal": "no"})
        {'service_tier': 'priority'}
    """
    told = {name: facts[name] for name in SERVED if facts.get(name) is not None}
    return {name: _text(fact) for name, fact in told.items()}


def either(told: Any, other: Any) -> Any:
    """Join the values that two parts of an answer tell for a model or for a fact of ``SERVED``.

    An answer may contradict itself. Then nothing tells which of its values is true, so all values
    are kept. The prices of all of them are compared, see ``app.costs.quote``.

    Args:
        told: The value so far, or the joined values so far; None if there is none.
        other: The value of another part. A value that says nothing is ignored.

    Example:
        >>> either(either("gpt-4", None), "gpt-4o-mini")
        'gpt-4 | gpt-4o-mini'
    """
    if not other or other == told:
        return told
    if not told:
        return other
    known = _text(told)
    joined = OR.join(dict.fromkeys([*each_of(known), *each_of(_text(other))]))
    if len(joined) <= _MOST_CHARS or joined == known:
        return joined
    return known if known.startswith(_MORE) else f"{_MORE}{OR}{known}"


def each_of(told: str) -> list[str]:
    """Return the values that ``either`` has joined.

    Example:
        >>> each_of("gpt-4 | gpt-4o-mini")
        ['gpt-4', 'gpt-4o-mini']
    """
    return told.split(OR)


def _text(fact: object) -> str:
    return fact if isinstance(fact, str) else f"({type(fact).__name__})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Partial:
    """The known part of an answer that broke off, or that was abandoned before its end.

    Attributes:
        usage: Tokens of the call; the numbers are upper bounds if the provider has not counted the
            tokens.
        prompt_counted: Whether the provider has counted the prompt; if not, ``input_tokens`` has
            all tokens of the prompt.
        final: Whether the usage is the provider's final usage, so that only the rest of the answer
            is lost.
        raw_usage: The provider's own usage object, as far as it arrived.
        served: The facts that change the price of the call, as in ``served_by``.
        model: Model that answered, or None if the model is not known yet.
        request_id: The provider's id of the request, or None.
        headers: Rate-limit headers of the answer, by their names in lower case.
    """

    usage: Usage
    prompt_counted: bool = False
    final: bool = False
    raw_usage: Mapping[str, Any] = field(default_factory=dict)
    served: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None
    request_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

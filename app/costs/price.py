"""The price of one model, and the cost of a call at this price, in exact decimal arithmetic."""

from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal

from app.domain.usage import Usage

RATES = ("input", "cached_input", "cache_write", "cache_write_1h", "output")
_ZERO = Decimal(0)
_HOUR_S = 3600
# Fees of containers are rounded up to this part of a dollar, because a second has no finite price.
_LEAST_FEE = Decimal("1e-12")


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """Dollars per token, and fees in dollars for each request or use.

    Attributes:
        version: Source of the price, such as ``genai-prices 0.2.3`` or ``operator``.
        input: Price of fresh prompt tokens.
        cached_input: Price of prompt tokens that were read from the provider's cache.
        cache_write: Price of prompt tokens that were written to the cache for 5 minutes.
        cache_write_1h: Price of prompt tokens that were written to the cache for an hour.
        output: Price of generated tokens.
        reasoning: Price of generated tokens that were reasoning; None means the price ``output``.
        citation: Price of the tokens of cited sources; some providers count these tokens beside the
            output.
        request: Fee for each request that the provider answers.
        web_search: Fee for each search of the web that the provider makes.
        container_hour: Fee for each hour of a container in which programs of the model run. If the
            provider has several sizes of containers, the fee is for 1 GB. None if the fee is not
            known.
        max_citation_tokens: Largest number of citation tokens of a call.
        max_web_searches: Largest number of searches that the model makes in a call although the
            request does not ask for searches.
        writes_unasked: Whether the provider writes to its cache although the request asks for no
            write, and charges the price of the write.
        above: Prices of long prompts, in ascending order. Each entry has a number of prompt tokens
            and a price. The price applies to the whole call if the call's prompt has more tokens
            than this number.
    """

    version: str
    input: Decimal
    cached_input: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal
    output: Decimal
    reasoning: Decimal | None = None
    citation: Decimal = _ZERO
    request: Decimal = _ZERO
    web_search: Decimal = _ZERO
    container_hour: Decimal | None = None
    max_citation_tokens: int = 0
    max_web_searches: int = 0
    writes_unasked: bool = False
    above: tuple[tuple[int, "Price"], ...] = ()

    def at(self, prompt_tokens: int) -> "Price":
        """Return the price that applies to a prompt with this number of tokens."""
        price = self
        for start, above in self.above:
            if prompt_tokens > start:
                price = above
        return price

    def halved(self) -> "Price":
        """Return the price of a batch: providers charge half of every rate for batches."""
        half = self.times(Decimal("0.5"))
        return replace(
            half,
            version=f"{self.version}, batch",
            above=tuple(
                (start, replace(price, version=f"{price.version}, batch"))
                for start, price in half.above
            ),
        )

    def times(self, factor: Decimal) -> "Price":
        """Return the price with multiplied rates of tokens; the fees stay as they are."""
        return replace(
            self,
            **{name: getattr(self, name) * factor for name in (*RATES, "citation")},
            reasoning=None if self.reasoning is None else self.reasoning * factor,
            above=tuple((start, price.times(factor)) for start, price in self.above),
        )

    def or_dearer(self, other: "Price") -> "Price":
        """Return a price in which each rate and each fee is the higher one of both prices."""
        starts = sorted({start for price in (self, other) for start, _ in price.above})
        above = ((start, _dearer(self.at(start + 1), other.at(start + 1))) for start in starts)
        return replace(_dearer(self, other), above=tuple(above))

    def cost(self, usage: Usage) -> Decimal:
        """Return the exact cost of an answered call in dollars, without rounding."""
        price = self.at(usage.prompt_tokens)
        return (
            usage.input_tokens * price.input
            + usage.cached_tokens * price.cached_input
            + usage.cache_write_tokens * price.cache_write
            + usage.cache_write_1h_tokens * price.cache_write_1h
            + _output_usd(price, usage)
            + usage.citation_tokens * price.citation
            + usage.web_searches * price.web_search
            + price.containers_usd(usage.container_seconds)
            + price.request
        )

    def containers_usd(self, seconds: int) -> Decimal:
        """Return the fee in dollars for a number of seconds of containers."""
        fee_usd = seconds * (self.container_hour or _ZERO) / _HOUR_S
        return fee_usd.quantize(_LEAST_FEE, ROUND_CEILING)

    def saving(self, usage: Usage) -> Decimal:
        """Return the dollars that the provider's cache saved; negative if the call cost more.

        The saving is the price of the whole prompt as fresh tokens, minus the real price of the
        prompt.
        """
        price = self.at(usage.prompt_tokens)
        return (
            usage.cached_tokens * (price.input - price.cached_input)
            + usage.cache_write_tokens * (price.input - price.cache_write)
            + usage.cache_write_1h_tokens * (price.input - price.cache_write_1h)
        )

    def worst_case(
        self,
        input_tokens: int,
        max_output_tokens: int,
        *,
        cache_writes: bool = False,
        web_searches: int = 0,
        container_seconds: int = 0,
    ) -> Decimal:
        """Return the most dollars that a call can cost.

        Args:
            input_tokens: Upper bound of the prompt's tokens.
            max_output_tokens: Upper bound of the generated tokens.
            cache_writes: Whether the request asks the provider to write to its cache.
            web_searches: Upper bound of the searches for which the request asks, such as the
                ``max_uses`` of its search tool. Searches that the model makes unasked are added.
            container_seconds: Upper bound of the seconds of containers.
        """
        reachable = [self, *(price for start, price in self.above if input_tokens > start)]
        return (
            input_tokens * max(self._prompt_rate(price, cache_writes) for price in reachable)
            + max_output_tokens * max(max(p.output, p.reasoning or _ZERO) for p in reachable)
            + self.max_citation_tokens * max(price.citation for price in reachable)
            + (web_searches + self.max_web_searches) * max(p.web_search for p in reachable)
            + max(price.containers_usd(container_seconds) for price in reachable)
            + max(price.request for price in reachable)
        )

    def _prompt_rate(self, price: "Price", cache_writes: bool) -> Decimal:
        """Return the highest rate that a prompt token may have at one of the prices."""
        rate = max(price.input, price.cached_input)
        if cache_writes:
            return max(rate, price.cache_write, price.cache_write_1h)
        return max(rate, price.cache_write) if self.writes_unasked else rate


def _output_usd(price: Price, usage: Usage) -> Decimal:
    if price.reasoning is None:
        return usage.output_tokens * price.output
    reasoning = min(usage.reasoning_tokens, usage.output_tokens)
    return (usage.output_tokens - reasoning) * price.output + reasoning * price.reasoning


def _dearer(one: Price, other: Price) -> Price:
    """Return ``one``, but each rate and fee is the higher one of both prices; ``above`` stays."""
    reasoning = None
    if (one.reasoning, other.reasoning) != (None, None):
        reasoning = max(
            price.output if price.reasoning is None else price.reasoning for price in (one, other)
        )
    return replace(
        one,
        **{
            name: max(getattr(one, name), getattr(other, name))
            for name in (*RATES, "citation", "request", "web_search")
        },
        reasoning=reasoning,
        container_hour=max(
            (price.container_hour for price in (one, other) if price.container_hour is not None),
            default=None,
        ),
        writes_unasked=one.writes_unasked or other.writes_unasked,
    )

"""The price of one model, and the cost of tokens at this price, in exact decimal arithmetic."""

from dataclasses import dataclass, replace
from decimal import Decimal

from app.domain.usage import Usage

RATES = ("input", "cached_input", "cache_write", "cache_write_1h", "output")


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """Dollars per token.

    Attributes:
        version: Source of the price, such as ``genai-prices 0.2.3`` or ``operator``.
        input: Price of fresh prompt tokens.
        cached_input: Price of prompt tokens that were read from the provider's cache.
        cache_write: Price of prompt tokens that were written to the cache for 5 minutes.
        cache_write_1h: Price of prompt tokens that were written to the cache for an hour.
        output: Price of generated tokens, reasoning included.
        writes_unasked: Whether the provider writes to its cache without a request for that, and
            charges the price of a write.
        above: Prices of long prompts, in ascending order. Each has a number of prompt tokens, and
            the price that applies to the whole call if its prompt has more tokens.
    """

    version: str
    input: Decimal
    cached_input: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal
    output: Decimal
    writes_unasked: bool = False
    above: tuple[tuple[int, "Price"], ...] = ()

    def at(self, prompt_tokens: int) -> "Price":
        """Return the price that applies to a prompt of that many tokens."""
        price = self
        for start, above in self.above:
            if prompt_tokens > start:
                price = above
        return price

    def halved(self) -> "Price":
        """Return the price of a batch, because providers charge half of every rate for batches."""
        return replace(
            self,
            version=f"{self.version}, batch",
            **{name: getattr(self, name) / 2 for name in RATES},
            above=tuple((start, price.halved()) for start, price in self.above),
        )

    def cost(self, usage: Usage) -> Decimal:
        """Return the exact cost of a call in dollars, without rounding."""
        price = self.at(usage.prompt_tokens)
        return (
            usage.input_tokens * price.input
            + usage.cached_tokens * price.cached_input
            + usage.cache_write_tokens * price.cache_write
            + usage.cache_write_1h_tokens * price.cache_write_1h
            + usage.output_tokens * price.output
        )

    def saving(self, usage: Usage) -> Decimal:
        """Return the dollars that the provider's cache saved; negative if the call cost more.

        The saving is the price of the whole prompt as fresh tokens, less the real price of the
        prompt.
        """
        price = self.at(usage.prompt_tokens)
        return (
            usage.cached_tokens * (price.input - price.cached_input)
            + usage.cache_write_tokens * (price.input - price.cache_write)
            + usage.cache_write_1h_tokens * (price.input - price.cache_write_1h)
        )

    def worst_case(
        self, input_tokens: int, max_output_tokens: int, *, cache_writes: bool = False
    ) -> Decimal:
        """Return the most dollars that a call can cost.

        Args:
            input_tokens: Upper bound of the prompt's tokens.
            max_output_tokens: Upper bound of the generated tokens.
            cache_writes: Whether the request asks the provider to write to its cache.
        """
        reachable = [self, *(price for start, price in self.above if input_tokens > start)]
        rates = [rate for price in reachable for rate in (price.input, price.cached_input)]
        if cache_writes:
            rates += [
                rate for price in reachable for rate in (price.cache_write, price.cache_write_1h)
            ]
        elif self.writes_unasked:
            rates += [price.cache_write for price in reachable]
        return input_tokens * max(rates) + max_output_tokens * max(p.output for p in reachable)

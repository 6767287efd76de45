"""The published prices: the data bundled with the genai-prices package, never fetched."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from app.costs.price import Price

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

_PER_MILLION = -6
# The usual price of cache writes, times the input price, where the list does not have it.
CACHE_WRITE_FACTOR = Decimal("1.25")
CACHE_WRITE_1H_FACTOR = Decimal(2)


class PriceList:
    """The models of genai-prices. Loading it takes about 0.3 s, at the first look-up."""

    @cached_property
    def version(self) -> str:
        """Name and version of the list."""
        import genai_prices

        return f"genai-prices {genai_prices.__version__}"

    def find(
        self, provider: str, model: str, variant: Mapping[str, str], at: datetime
    ) -> Price | None:
        """Look up the price of a model.

        Args:
            provider: Provider name. It has to be the list's own: a gateway called ``my-openai``
                has other prices than OpenAI.
            model: Model name, also a dated or aliased one.
            variant: What the request asks for that has a price of its own: ``service_tier``,
                ``speed``.
            at: Time of the request.

        Returns:
            The price, or None when the model, or the variant of it, has none. Its
            ``writes_unasked`` tells whether the list has a price of cache writes.
        """
        info = self._model(provider, model)
        if info is None or not all(_has_variant(info, *item, at) for item in variant.items()):
            return None
        listed = info.get_prices(at, variant)
        if listed.input_mtok is None or listed.output_mtok is None:
            return None
        starts = sorted({start for rate in vars(listed).values() for start in _starts(rate)})
        above = tuple((start, self._price(listed, start + 1)) for start in starts)
        return self._price(listed, 0, above)

    def context_window(self, provider: str, model: str) -> int | None:
        """Return the tokens that a model reads at once, or None when the list does not say."""
        info = self._model(provider, model)
        return info.context_window if info else None

    def models(self, provider: str) -> list[str]:
        """Return the names of a provider's models; empty when the provider is not known."""
        known = self._providers.get(provider)
        return [model.id for model in known.models] if known else []

    @cached_property
    def _providers(self) -> "dict[str, Provider]":
        # The data itself, by exact name: the package's own look-up can be switched to fetched
        # data by any library of the process, and takes "my-openai" for OpenAI.
        from genai_prices.data import providers

        return {provider.id: provider for provider in providers}

    def _model(self, provider: str, model: str) -> "ModelInfo | None":
        known = self._providers.get(provider)
        if known is None:
            return None
        return known.find_model(model, all_providers=list(self._providers.values()))

    def _price(
        self, listed: "ModelPrice", prompt_tokens: int, above: tuple[tuple[int, Price], ...] = ()
    ) -> Price:
        input_ = _rate(listed.input_mtok, prompt_tokens)
        output = _rate(listed.output_mtok, prompt_tokens)
        assert input_ is not None
        assert output is not None
        cached = _rate(listed.cache_read_mtok, prompt_tokens)
        write = _rate(listed.cache_write_mtok, prompt_tokens)
        write_1h = _rate(listed.cache_write_1h_mtok, prompt_tokens)
        return Price(
            version=self.version,
            input=input_,
            cached_input=input_ if cached is None else cached,
            cache_write=input_ * CACHE_WRITE_FACTOR if write is None else write,
            cache_write_1h=input_ * CACHE_WRITE_1H_FACTOR if write_1h is None else write_1h,
            output=output,
            writes_unasked=write is not None,
            above=above,
        )


def _has_variant(info: "ModelInfo", key: str, value: str, at: datetime) -> bool:
    return any(
        variant.when.get(key) == value
        and (variant.constraint is None or variant.constraint.active(at))
        for variant in info.price_variants or ()
    )


def _starts(rate: Any) -> list[int]:
    return [tier.start for tier in getattr(rate, "tiers", ())]


def _rate(rate: "Decimal | TieredPrices | None", prompt_tokens: int) -> Decimal | None:
    """Return dollars per token at a prompt size, from dollars per million."""
    if rate is None:
        return None
    if not isinstance(rate, Decimal):
        reached = [tier.price for tier in rate.tiers if prompt_tokens > tier.start]
        rate = reached[-1] if reached else rate.base
    return rate.scaleb(_PER_MILLION)

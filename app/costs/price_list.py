"""The published prices: the data in the installed genai-prices package; no data is fetched."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from app.costs.price import Price

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

_PER_MILLION = -6
# If the list has no price of cache writes, the usual price applies: the input price times this
# factor.
CACHE_WRITE_FACTOR = Decimal("1.25")
CACHE_WRITE_1H_FACTOR = Decimal(2)


class PriceList:
    """The models of genai-prices. The first look-up loads the package, which takes about 0.3 s."""

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
            provider: Provider name exactly as in the list, because the prices of a gateway called
                ``my-openai`` differ from those of OpenAI.
            model: Model name, which may have a date or be an alias.
            variant: Parameters of the request that have prices of their own: ``service_tier`` and
                ``speed``.
            at: Time of the request.

        Returns:
            The price, or None if the list has no price for the model or its variant. In the price,
            ``writes_unasked`` is true if the list has a price of cache writes.
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
        """Return the most tokens that a model reads; None if the list does not have the number."""
        info = self._model(provider, model)
        return info.context_window if info else None

    def models(self, provider: str) -> list[str]:
        """Return the names of a provider's models; empty if the list has no such provider."""
        known = self._providers.get(provider)
        return [model.id for model in known.models] if known else []

    @cached_property
    def _providers(self) -> "dict[str, Provider]":
        # This code reads the data itself, by exact name. Any library of the process can switch the
        # package's own look-up to fetched data, and that look-up treats "my-openai" like OpenAI.
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
    """Convert a rate from dollars per million tokens to dollars per token, for a prompt size."""
    if rate is None:
        return None
    if not isinstance(rate, Decimal):
        reached = [tier.price for tier in rate.tiers if prompt_tokens > tier.start]
        rate = reached[-1] if reached else rate.base
    return rate.scaleb(_PER_MILLION)

"""The cost of a call, by the operator's price, or the published price, or the default price."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from app.costs.price import Price
from app.costs.price_list import CACHE_WRITE_1H_FACTOR, CACHE_WRITE_FACTOR, PriceList
from app.domain.agent import provider_of_model
from app.domain.model_limits import limits_of
from app.domain.policies import CostConfig, starts_at
from app.domain.protocols import PROTOCOLS
from app.domain.providers import BUILT_IN, Provider
from app.domain.suggestions import did_you_mean
from app.domain.usage import Usage
from app.errors import UnknownModel

__all__ = ["Price", "Pricing"]

_PER_THOUSAND, _PER_MILLION = -3, -6
_ALWAYS = datetime.min.replace(tzinfo=UTC)
_BATCH = {"processing": "batch"}
_Dated = tuple[datetime, Price]
# A published price may change with the date or the hour, so a found price is kept only this long.
_FRESH_S = 60.0
_NO_PARAMS: Mapping[str, Any] = {}
_STANDARD = frozenset({"None", "auto", "default", "standard", "standard_only"})


class Pricing:
    """Prices of all models.

    Weakness: published prices come from the installed version of genai-prices, which has no
    discounts of single accounts, and no models that are newer than this version. The operator can
    give such prices with their dates in ``model_prices``, and ``agentchord costs reprice`` corrects
    calls that were booked at a wrong price.

    Args:
        config: The operator's own prices and the default prices. A key of ``model_costs`` and of
            ``model_prices`` is a model's name, or ``provider/model`` for the model of only one
            provider, or ``provider/*`` for those of a provider's models that have no price of their
            own.
        providers: The providers of this cluster. A provider's protocol determines whether prompts
            are written to a cache only on request; for an unknown provider, the more expensive case
            is assumed.

    Example:
        price = Pricing().price_of("openai", "gpt-4o-mini")
        dollars = price.cost(Usage(input_tokens=1200, output_tokens=300))
    """

    def __init__(
        self, config: CostConfig | None = None, providers: Sequence[Provider] = BUILT_IN
    ) -> None:
        config = config or CostConfig()
        self._cached_on_request = {
            provider.name
            for provider in providers
            if PROTOCOLS[provider.protocol].caches_on_request
        }
        self._own: dict[str, list[_Dated]] = {
            model: [(_ALWAYS, _own_price("operator", prices, _PER_THOUSAND))]
            for model, prices in config.model_costs.items()
        }
        self._own |= {model: _dated(prices) for model, prices in config.model_prices.items()}
        self._places = {
            name: f"costs.{section}: {name}"
            for section, names in (
                ("model_costs", config.model_costs),
                ("model_prices", config.model_prices),
            )
            for name in names
        }
        self._default: Price | None = None
        if config.default_input_cost is not None and config.default_output_cost is not None:
            defaults = {"input": config.default_input_cost, "output": config.default_output_cost}
            self._default = _own_price("operator default", defaults, _PER_THOUSAND)
        self._list = PriceList()
        self._found: dict[tuple[str, str, str, str, bool], Price] = {}
        self._fresh_until_s = 0.0

    def preload(self) -> None:
        """Load the published prices now, so that the first look-up does not wait for them."""
        self._list.models("")

    @property
    def own_models(self) -> tuple[str, ...]:
        """Names of the models with an operator's price, as they are in the configuration."""
        return tuple(self._own)

    def own_place(self, provider: str, model: str) -> str | None:
        """Return the place of a model's operator price in the configuration, or None."""
        names = (f"{provider}/{model}", model, f"{provider}/*")
        return next((place for name in names if (place := self._places.get(name))), None)

    def published(self, provider: str, model: str) -> Price | None:
        """Return a model's present published price, or None; an operator's price is ignored."""
        return self._list.find(provider, model, {}, datetime.now(UTC))

    def published_models(self, provider: str) -> list[str]:
        """Return the names of a provider's models in the price list."""
        return self._list.models(provider)

    def price_of(
        self,
        provider: str,
        model: str,
        params: Mapping[str, Any] = _NO_PARAMS,
        *,
        at: datetime | None = None,
        batch: bool = False,
    ) -> Price:
        """Return the price of a model.

        Args:
            provider: Provider name.
            model: Model name.
            params: The request's parameters; ``service_tier`` and ``speed`` change the price.
            at: Time of the request; None means the present time, within a minute.
            batch: Whether the request is part of a batch.

        Returns:
            The price.

        Raises:
            UnknownModel: If the model has no price.
        """
        tier, speed = str(params.get("service_tier")), str(params.get("speed"))
        if at is not None:
            return self._look_up(provider, model, tier, speed, batch, at)
        now_s = time.monotonic()
        if now_s >= self._fresh_until_s:
            self._found.clear()
            self._fresh_until_s = now_s + _FRESH_S
        key = (provider, model, tier, speed, batch)
        price = self._found.get(key)
        if price is None:
            price = self._found[key] = self._look_up(*key, datetime.now(UTC))
        return price

    def calculate_cost(
        self,
        model: str,
        input_tokens: int,
        output_tokens: int,
        *,
        cached_tokens: int = 0,
        cache_write_tokens: int = 0,
        cache_write_1h_tokens: int = 0,
        batch: bool = False,
    ) -> float:
        """Return the cost of a call in dollars, for display; the ledger uses ``Price.cost``.

        Args:
            model: Model name.
            input_tokens: Tokens of the prompt, without the cached and the written tokens.
            output_tokens: Generated tokens, reasoning included.
            cached_tokens: Tokens of the prompt that were read from the provider's cache.
            cache_write_tokens: Tokens of the prompt that were written to the cache for 5 minutes.
            cache_write_1h_tokens: Tokens of the prompt that were written to the cache for an hour.
            batch: Whether the call was part of a batch, at half the price.

        Raises:
            UnknownModel: If the model has no price.
        """
        usage = Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
            cache_write_tokens=cache_write_tokens,
            cache_write_1h_tokens=cache_write_1h_tokens,
        )
        return float(self.price_of(provider_of_model(model) or "", model, batch=batch).cost(usage))

    def max_output_tokens(self, provider: str, model: str) -> int | None:  # noqa: ARG002
        """Return the most tokens that a model generates in one answer; None if unknown."""
        return limits_of(model).max_output_tokens

    def context_window(self, provider: str, model: str) -> int | None:
        """Return the most tokens of prompt and answer in total; None if the number is unknown."""
        return limits_of(model).context_window or self._list.context_window(provider, model)

    def _look_up(
        self,
        provider: str,
        model: str,
        service_tier: str,
        speed: str,
        batch: bool,
        at: datetime,
    ) -> Price:
        names = (f"{provider}/{model}", model, f"{provider}/*")
        price = next((own for name in names if (own := self._own_at(name, at))), None)
        if price is None:
            asked = {"service_tier": service_tier, "speed": speed}
            variant = {name: value for name, value in asked.items() if value not in _STANDARD}
            if batch and (listed := self._list.find(provider, model, variant | _BATCH, at)):
                price, batch = replace(listed, version=f"{listed.version}, batch"), False
            else:
                price = self._list.find(provider, model, variant, at) or self._default
            if price is None:
                raise self._unknown(provider, model, variant)
        unasked = price.writes_unasked and provider not in self._cached_on_request
        return replace(price.halved() if batch else price, writes_unasked=unasked)

    def _own_at(self, name: str, at: datetime) -> Price | None:
        started = [price for start, price in self._own.get(name, ()) if start <= at]
        return started[-1] if started else None

    def _unknown(self, provider: str, model: str, variant: Mapping[str, str]) -> UnknownModel:
        if variant and self._list.find(provider, model, {}, datetime.now(UTC)):
            asked = ", ".join(f"{name} {value!r}" for name, value in variant.items())
            return UnknownModel(
                f"model {model!r} of {provider} has no price for {asked}: remove it from "
                "llm_config, or give the model's price under model_costs in the configuration"
            )
        known = [*self._own, *self._list.models(provider)]
        return UnknownModel(
            f"no price is known for model {model!r}{f' of {provider}' if provider else ''}: give "
            "it under model_costs in the configuration, in dollars per 1,000 tokens, or under "
            "model_prices, per million and with dates, or set "
            f"default_input_cost and default_output_cost{did_you_mean(model, known)}"
        )


def _dated(prices: Sequence[Mapping[str, float | str]]) -> list[_Dated]:
    """Return the prices of a model, each with the time from which it applies."""
    dated = []
    for given in prices:
        start = starts_at(given)
        version = "operator" if start is None else f"operator from {given['from']}"
        rates = {name: rate for name, rate in given.items() if name != "from"}
        dated.append((start or _ALWAYS, _own_price(version, rates, _PER_MILLION)))
    return sorted(dated, key=lambda one: one[0])


def _own_price(version: str, prices: Mapping[str, float | str], per: int) -> Price:
    # The conversion goes through str, because Decimal(0.1) is not exactly a tenth.
    rates = {name: Decimal(str(value)).scaleb(per) for name, value in prices.items()}
    input_ = rates["input"]
    return Price(
        version=version,
        input=input_,
        cached_input=rates.get("cached_input", input_),
        cache_write=rates.get("cache_write", input_ * CACHE_WRITE_FACTOR),
        cache_write_1h=rates.get("cache_write_1h", input_ * CACHE_WRITE_1H_FACTOR),
        output=rates["output"],
        writes_unasked="cache_write" in rates,
    )

"""What a call costs: the operator's prices first, then the published ones, then the defaults."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from app.costs.price import Price
from app.costs.price_list import CACHE_WRITE_1H_FACTOR, CACHE_WRITE_FACTOR, PriceList
from app.domain.agent import provider_of
from app.domain.model_limits import limits_of
from app.domain.policies import CostConfig
from app.domain.suggestions import did_you_mean
from app.domain.usage import Usage
from app.errors import UnknownModel, WorkflowError

__all__ = ["Price", "Pricing"]

_PER_THOUSAND = -3
# Published prices may change with the date or the hour, so a found one is kept for this long.
_FRESH_S = 60.0
_NO_PARAMS: Mapping[str, Any] = {}
_STANDARD = frozenset({"None", "auto", "default", "standard", "standard_only"})


class Pricing:
    """Prices of all models.

    Args:
        config: The operator's own prices, per 1,000 tokens, and the defaults. A key of
            ``model_costs`` is a model's name, or ``provider/model`` for one provider's only.
    """

    def __init__(self, config: CostConfig | None = None) -> None:
        config = config or CostConfig()
        self._own = {
            model: _own_price("operator", prices) for model, prices in config.model_costs.items()
        }
        self._default: Price | None = None
        if config.default_input_cost is not None and config.default_output_cost is not None:
            defaults = {"input": config.default_input_cost, "output": config.default_output_cost}
            self._default = _own_price("operator default", defaults)
        self._list = PriceList()
        self._found: dict[tuple[str, str, str, str], Price] = {}
        self._fresh_until_s = 0.0

    def preload(self) -> None:
        """Load the published prices now, which otherwise the first look-up waits for."""
        self._list.models("")

    def price_of(self, provider: str, model: str, params: Mapping[str, Any] = _NO_PARAMS) -> Price:
        """The price of a model now.

        Args:
            provider: Provider name.
            model: Model name.
            params: The request's parameters; ``service_tier`` and ``speed`` change the price.

        Returns:
            The price.

        Raises:
            UnknownModel: If nobody gives a price.
        """
        now_s = time.monotonic()
        if now_s >= self._fresh_until_s:
            self._found.clear()
            self._fresh_until_s = now_s + _FRESH_S
        key = (provider, model, str(params.get("service_tier")), str(params.get("speed")))
        price = self._found.get(key)
        if price is None:
            price = self._found[key] = self._look_up(*key)
        return price

    def cost(self, price: Price, usage: Usage) -> Decimal:
        """Dollars of a call, exact; see ``Price.cost``."""
        return price.cost(usage)

    def worst_case(
        self,
        price: Price,
        input_tokens: int,
        max_output_tokens: int,
        *,
        cache_writes: bool = False,
    ) -> Decimal:
        """Dollars that a call cannot exceed; see ``Price.worst_case``."""
        return price.worst_case(input_tokens, max_output_tokens, cache_writes=cache_writes)

    def calculate_cost(self, model: str, input_tokens: int, output_tokens: int) -> float:
        """Dollars of a call, for people: the ledger uses ``cost``.

        Args:
            model: Model name.
            input_tokens: Tokens of the prompt, none of them cached.
            output_tokens: Generated tokens.

        Raises:
            UnknownModel: If nobody gives a price.
        """
        try:
            provider = provider_of({"model": model})
        except WorkflowError:
            provider = ""
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        return float(self.price_of(provider, model).cost(usage))

    def max_output_tokens(self, provider: str, model: str) -> int | None:  # noqa: ARG002
        """Most tokens a model generates in one answer, or None when it is not known."""
        return limits_of(model).max_output_tokens

    def context_window(self, provider: str, model: str) -> int | None:
        """Tokens a model reads and writes at once, or None when it is not known."""
        return limits_of(model).context_window or self._list.context_window(provider, model)

    def _look_up(self, provider: str, model: str, service_tier: str, speed: str) -> Price:
        own = self._own.get(f"{provider}/{model}") or self._own.get(model)
        if own is not None:
            return own
        asked = {"service_tier": service_tier, "speed": speed}
        variant = {name: value for name, value in asked.items() if value not in _STANDARD}
        price = self._list.find(provider, model, variant, datetime.now(UTC)) or self._default
        if price is None:
            raise self._unknown(provider, model, variant)
        return price

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
            "it under model_costs in the configuration, in dollars per 1,000 tokens, or set "
            f"default_input_cost and default_output_cost{did_you_mean(model, known)}"
        )


def _own_price(version: str, prices: Mapping[str, float]) -> Price:
    # Through str, because Decimal(0.1) is not a tenth.
    rates = {name: Decimal(str(value)).scaleb(_PER_THOUSAND) for name, value in prices.items()}
    input_ = rates["input"]
    return Price(
        version=version,
        input=input_,
        cached_input=rates.get("cached_input", input_),
        cache_write=rates.get("cache_write", input_ * CACHE_WRITE_FACTOR),
        cache_write_1h=rates.get("cache_write_1h", input_ * CACHE_WRITE_1H_FACTOR),
        output=rates["output"],
        # Which provider an own price is for is not known here, so the dearer case is assumed.
        writes_unasked="cache_write" in rates,
    )

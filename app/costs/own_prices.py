"""The operator's own prices, from the configuration; they take precedence over published prices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from math import ceil, prod

from app.costs.price import Price
from app.costs.price_list import CACHE_WRITE_1H_FACTOR, CACHE_WRITE_FACTOR
from app.costs.quote import STANDARD
from app.domain.policies import (
    CONTAINER_HOURS,
    FACTORS,
    FEES,
    CostConfig,
    DatedPrices,
    factors_of,
    starts_at,
)
from app.domain.usage import SERVED

_PER_THOUSAND, _PER_MILLION = -3, -6
_ALWAYS = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnPrice:
    """A price of the operator.

    Attributes:
        price: The price at the provider's standard.
        bounds_searches: Whether the price has a fee for requests, or has a fee for searches with
            the largest number of searches. Only such a price is a price of a model that searches
            the web unasked.
        factors: The factor for each value of ``service_tier``, ``speed`` or ``inference_geo``. The
            price of tokens is multiplied by this factor. A value without a factor has no price.
    """

    price: Price
    bounds_searches: bool = False
    factors: Mapping[str, Mapping[str, Decimal]] = field(default_factory=dict)

    def by_way(self) -> dict[tuple[str, ...], Price]:
        """Return the prices by service tier, speed and region."""
        factors = [{STANDARD: Decimal(1), **self.factors.get(name, {})} for name in SERVED]
        prices = {}
        for key in product(*factors):
            factor = prod(by[value] for by, value in zip(factors, key, strict=True))
            prices[key] = self.price if factor == 1 else self.price.times(factor)
        return prices


class OwnPriceTable:
    """The prices of ``model_costs`` and ``model_prices``, and the default price.

    Args:
        config: The prices as they are in the configuration.

    Attributes:
        default: Price of the models that are in no table, or None.
        models: The keys of both tables, written in the same way as in the configuration.
    """

    def __init__(self, config: CostConfig) -> None:
        self._dated: dict[str, list[tuple[datetime, OwnPrice]]] = {
            model: [(_ALWAYS, _own("operator", prices, _PER_THOUSAND))]
            for model, prices in config.model_costs.items()
        }
        self._dated |= {model: _in_order(prices) for model, prices in config.model_prices.items()}
        self._places = {
            name: f"costs.{section}: {name}"
            for section, names in (
                ("model_costs", config.model_costs),
                ("model_prices", config.model_prices),
            )
            for name in names
        }
        self.default: OwnPrice | None = None
        if config.default_input_cost is not None and config.default_output_cost is not None:
            defaults = {"input": config.default_input_cost, "output": config.default_output_cost}
            self.default = _own("operator default", defaults, _PER_THOUSAND)

    @property
    def models(self) -> tuple[str, ...]:
        """See the class."""
        return tuple(self._dated)

    def at(self, provider: str, model: str, at: datetime) -> OwnPrice | None:
        """Return the price of a model at a time, or None if no price has begun."""
        for name in _keys(provider, model):
            started = [price for start, price in self._dated.get(name, ()) if start <= at]
            if started:
                return started[-1]
        return None

    def names(self, provider: str, model: str) -> bool:
        """Return whether a price is for this model, and not for all models of its provider."""
        return any(name in self._dated for name in _keys(provider, model)[:-1])

    def place(self, provider: str, model: str) -> str | None:
        """Return the place of a model's price in the configuration, or None."""
        names = _keys(provider, model)
        return next((place for name in names if (place := self._places.get(name))), None)


def _keys(provider: str, model: str) -> tuple[str, ...]:
    return f"{provider}/{model}", model, f"{provider}/*"


def _in_order(prices: Sequence[DatedPrices]) -> list[tuple[datetime, OwnPrice]]:
    """Return the prices of a model, each with the time from which it applies."""
    dated = []
    for given in prices:
        start = starts_at(given)
        version = "operator" if start is None else f"operator from {given['from']}"
        rates = {name: rate for name, rate in given.items() if name != "from"}
        dated.append((start or _ALWAYS, _own(version, rates, _PER_MILLION)))
    return sorted(dated, key=lambda one: one[0])


def _own(version: str, given: DatedPrices, per: int) -> OwnPrice:
    # The conversion goes through str, because Decimal(0.1) is not exactly a tenth.
    numbers = {name: Decimal(str(value)) for name, value in given.items() if name != FACTORS}
    rates = {name: number.scaleb(per) for name, number in numbers.items()}
    fees = {name: numbers.get(name, Decimal(0)).scaleb(_PER_THOUSAND) for name in FEES}
    input_ = rates["input"]
    price = Price(
        version=version,
        input=input_,
        cached_input=rates.get("cached_input", input_),
        cache_write=rates.get("cache_write", input_ * CACHE_WRITE_FACTOR),
        cache_write_1h=rates.get("cache_write_1h", input_ * CACHE_WRITE_1H_FACTOR),
        output=rates["output"],
        reasoning=rates.get("reasoning"),
        citation=rates.get("citation", Decimal(0)),
        request=fees["requests"],
        web_search=fees["web_searches"],
        container_hour=numbers.get(CONTAINER_HOURS),
        max_citation_tokens=ceil(numbers.get("max_citation_tokens", 0)),
        max_web_searches=ceil(numbers.get("max_web_searches", 0)),
        writes_unasked="cache_write" in rates,
    )
    factors = {
        fact: {value: Decimal(str(factor)) for value, factor in by_value.items()}
        for fact, by_value in factors_of(given).items()
    }
    bounds_searches = "requests" in given or {"web_searches", "max_web_searches"} <= given.keys()
    return OwnPrice(price=price, bounds_searches=bounds_searches, factors=factors)

"""The prices of all models in the form for people, with the place where each price is set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase

from app.costs.price import RATES, Price
from app.costs.pricing import OPERATOR, Pricing
from app.domain.agent import PROVIDERS, provider_of_model
from app.errors import UnknownModel

_MILLION, _THOUSAND = 1_000_000, 1000
_WILDCARDS = "*?["
_DEFAULTS = "costs.default_input_cost, default_output_cost"


@dataclass(frozen=True, kw_only=True, slots=True)
class PriceLine:
    """The price of a model in one case, in dollars per million tokens.

    Attributes:
        provider: Provider name; ``any`` for an operator's price that names no provider.
        model: Model name.
        case: Empty, ``batch``, or ``prompts above N`` for the price of long prompts.
        input: Price of fresh prompt tokens.
        cached_input: Price of prompt tokens that were read from the provider's cache.
        cache_write: Price of prompt tokens that were written to the cache for 5 minutes.
        cache_write_1h: Price of prompt tokens that were written to the cache for an hour.
        output: Price of generated tokens, including reasoning.
        others: Further prices by name; prices of zero are left out. ``reasoning`` and ``citation``
            are prices per million tokens, ``requests`` and ``web_searches`` are prices per 1,000
            uses, and ``container_hours`` is a price per hour.
        source: Name and version of the list, or ``operator`` and the date from which the price
            applies.
        set_by: Place of the price in the configuration, or None.
        published: The published prices (input, output) if the configuration overrides these prices,
            or None.
    """

    provider: str
    model: str
    case: str
    input: Decimal
    cached_input: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal
    output: Decimal
    others: Mapping[str, Decimal]
    source: str
    set_by: str | None
    published: tuple[Decimal, Decimal] | None


def price_lines(
    pricing: Pricing, model: str | None = None, providers: Sequence[str] = PROVIDERS
) -> list[PriceLine]:
    """Return the prices that apply now.

    Args:
        pricing: Prices of all models.
        model: A name returns all cases of the model; the name may have a date or be
            ``provider/name``. A pattern with ``*`` returns the usual case of all models that match.
            None returns the usual case of all models.
        providers: Names of the providers of this cluster.

    Raises:
        UnknownModel: If no model has the name or matches the pattern.
    """
    if model is not None and not set(_WILDCARDS) & set(model):
        return _cases(pricing, *_split(pricing, model, providers))
    known = [(each, name) for each in providers for name in pricing.published_models(each)]
    own = [_split(pricing, name, providers) for name in pricing.own_models]
    lines = [
        line
        for provider, name in sorted({*known, *own})
        if model is None or fnmatchcase(name, model)
        if (line := _usual(pricing, provider, name)) is not None
    ]
    if model is not None and not lines:
        raise UnknownModel(f"no model matches {model!r}: see `agentchord prices`")
    return lines


def _split(pricing: Pricing, name: str, providers: Sequence[str]) -> tuple[str, str]:
    """Split a name such as ``openai/gpt-4o`` into provider and model; the provider is optional."""
    provider, slash, model = name.partition("/")
    if slash and (provider in providers or name in pricing.own_models):
        return provider, model
    return provider_of_model(name) or "any", name


def _usual(pricing: Pricing, provider: str, model: str) -> PriceLine | None:
    try:
        price = pricing.price_of(provider, model)
    except UnknownModel:  # a model for speech or images, for example, has no price per token
        return None
    return None if price.version == "operator default" else _line(pricing, provider, model, price)


def _cases(pricing: Pricing, provider: str, model: str) -> list[PriceLine]:
    price = pricing.price_of(provider, model)
    batch = pricing.price_of(provider, model, batch=True)
    lines = [_line(pricing, provider, model, price)]
    for start, above in price.above:
        lines.append(_line(pricing, provider, model, above, f"prompts above {start:,}"))
    return [*lines, _line(pricing, provider, model, batch, "batch")]


def _line(pricing: Pricing, provider: str, model: str, price: Price, case: str = "") -> PriceLine:
    own = price.version.startswith(OPERATOR)
    listed = pricing.published(provider, model) if own else None
    rates = {name: getattr(price, name) * _MILLION for name in RATES}
    return PriceLine(
        provider=provider,
        model=model,
        case=case,
        others=_others(price),
        source=price.version,
        set_by=(pricing.own_place(provider, model) or _DEFAULTS) if own else None,
        published=None if listed is None else (listed.input * _MILLION, listed.output * _MILLION),
        **rates,
    )


def _others(price: Price) -> dict[str, Decimal]:
    found = {
        "reasoning": (price.reasoning or Decimal(0)) * _MILLION,
        "citation": price.citation * _MILLION,
        "requests": price.request * _THOUSAND,
        "web_searches": price.web_search * _THOUSAND,
        "container_hours": price.container_hour or Decimal(0),
    }
    return {name: dollars for name, dollars in found.items() if dollars}

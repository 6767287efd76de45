"""The prices of all models as people look them up, and where each of them is set."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase

from app.costs.price import RATES, Price
from app.costs.pricing import Pricing
from app.domain.agent import PROVIDERS, provider_of_model
from app.errors import UnknownModel

_MILLION = 1_000_000
_WILDCARDS = "*?["
OPERATOR = "operator"
_DEFAULTS = "costs.default_input_cost, default_output_cost"


@dataclass(frozen=True, kw_only=True, slots=True)
class PriceLine:
    """What a model costs in one case, in dollars per million tokens.

    Attributes:
        provider: Provider name; ``any`` for a price of the operator's that names none.
        model: Model name.
        case: Empty, ``batch``, or ``prompts above N`` for the price of long prompts.
        input: Fresh prompt tokens.
        cached_input: Prompt tokens read from the provider's cache.
        cache_write: Prompt tokens written to it for 5 minutes.
        cache_write_1h: Prompt tokens written to it for an hour.
        output: Generated tokens, reasoning included.
        source: Name and version of the list, or ``operator`` and the date from which it holds.
        set_by: Where in the configuration it is set, or None.
        published: The published (input, output) if the configuration overrides them, or None.
    """

    provider: str
    model: str
    case: str
    input: Decimal
    cached_input: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal
    output: Decimal
    source: str
    set_by: str | None
    published: tuple[Decimal, Decimal] | None


def price_lines(
    pricing: Pricing, model: str | None = None, providers: Sequence[str] = PROVIDERS
) -> list[PriceLine]:
    """Return the prices that hold now.

    Args:
        pricing: Prices.
        model: A name, also a dated one or ``provider/name``: all its cases. A pattern with ``*``:
            the usual case of all models that match. None: of all models.
        providers: Names of the providers of this cluster.

    Raises:
        UnknownModel: If no model is named so, or none matches.
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
    """Split a name as people write it into provider and model."""
    provider, slash, model = name.partition("/")
    if slash and (provider in providers or name in pricing.own_models):
        return provider, model
    return provider_of_model(name) or "any", name


def _usual(pricing: Pricing, provider: str, model: str) -> PriceLine | None:
    try:
        price = pricing.price_of(provider, model)
    except UnknownModel:  # it has no price by the token, as speech and images
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
        source=price.version,
        set_by=(pricing.own_place(provider, model) or _DEFAULTS) if own else None,
        published=None if listed is None else (listed.input * _MILLION, listed.output * _MILLION),
        **rates,
    )

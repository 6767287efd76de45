"""The refusal of a model without a price, or of a way of serving without a price."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from app.costs.price_list import PriceList
from app.domain.suggestions import did_you_mean, listed
from app.errors import UnknownModel


def unpriced_way(provider: str, model: str, unpriced: Mapping[str, str]) -> UnknownModel:
    """Return the refusal of a request for a tier, a speed or a region without a price.

    Args:
        provider: Provider name.
        model: Model name.
        unpriced: The values without a price, by the names of the facts, as in ``SERVED``.
    """
    asked = ", ".join(f"{name} {value!r}" for name, value in unpriced.items())
    return UnknownModel(
        f"model {model!r} of {provider} has no price for {asked}: remove it from "
        "llm_config and from the provider's configuration, or give the model's price with "
        "factors under model_prices"
    )


def unpriced_model(
    provider: str, model: str, at: datetime, *, published: PriceList, own_models: Sequence[str]
) -> UnknownModel:
    """Return the refusal of a model without a price, with the nearest name.

    Args:
        provider: Provider name.
        model: Model name.
        at: Time of the request.
        published: The published prices.
        own_models: Names of the models with an operator's price.
    """
    if units := published.unknown_units(provider, model, at):
        return UnknownModel(
            f"the published price of model {model!r} of {provider} has {listed(units)}, which "
            "cannot be bounded before a call: give the model's price under model_prices in "
            "the configuration, with a fee for requests if necessary"
        )
    known = [*own_models, *published.models(provider)]
    plain = published.variant_of(provider, model)
    return UnknownModel(
        f"no price is known for model {model!r}{f' of {provider}' if provider else ''}"
        f"{f', which is no known variant of {plain!r}' if plain else ''}: give "
        "it under model_costs in the configuration, in dollars per 1,000 tokens, or under "
        "model_prices, per million and with dates"
        f"{'' if plain else ', or set default_input_cost and default_output_cost'}"
        f"{did_you_mean(model, known)}"
    )

"""Answers of another model than the requested one, recognised by the name in the answer."""

from collections.abc import Callable
from datetime import datetime
from enum import Enum, auto

from app.costs.model_names import is_part, snapshot_of
from app.costs.own_prices import OwnPrice, OwnPriceTable
from app.costs.price_list import PriceList, searches_unasked
from app.domain.agent import provider_of_model


class Standing(Enum):
    """How the model that has answered stands to the requested model."""

    #: The requested model itself, perhaps under another name.
    SAME = auto()
    #: Another model, which has a price of its own.
    OTHER = auto()
    #: No price is known for the name; the answer may have cost anything.
    UNKNOWN = auto()


class OtherModels:
    """Tells other names of a model from the names of other models.

    Args:
        own: The operator's prices.
        published: The published prices.
    """

    def __init__(self, own: OwnPriceTable, published: PriceList) -> None:
        self._own = own
        self._list = published

    def standing(
        self,
        provider: str,
        model: str,
        answered: str,
        at: datetime,
        *,
        general: Callable[[str], OwnPrice | None],
    ) -> Standing:
        """Return how the name in an answer stands to the name in the request.

        Args:
            provider: Provider name.
            model: Name of the requested model.
            answered: Another name, which the answer has for the model.
            at: Time of the request.
            general: Returns the operator's price for a name, and the default price for a name
                without any price.
        """
        if self._own.names(provider, answered):
            return Standing.OTHER
        own = self._own.names(provider, model)
        is_known = self._list.find(provider, answered, {}, at) is not None
        if searches_unasked(answered) and not (is_known or searches_unasked(model)):
            return Standing.UNKNOWN  # only a fee for the request would bound the searches
        is_snapshot = snapshot_of(answered, model) or snapshot_of(model, answered)
        if is_snapshot and (own or not is_known):
            return Standing.SAME
        if own and self._is_deployment(provider, model):
            return _same_if(not is_part(model.lower(), answered.lower()))
        if is_known:
            ids = {self._list.id_of(provider, name) for name in (model, answered)}
            return Standing.SAME if len(ids) == 1 else Standing.OTHER
        # A price for all models, or the default price, is for this name as well.
        price = general(answered)
        return _same_if(price is not None and price is general(model))

    def _is_deployment(self, provider: str, model: str) -> bool:
        """Return whether only the provider knows a name, such as the name of a deployment."""
        owners = {provider, provider_of_model(model) or provider}
        return all(self._list.id_of(owner, model) is None for owner in owners)


def _same_if(same: bool) -> Standing:
    return Standing.SAME if same else Standing.UNKNOWN

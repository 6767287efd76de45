"""Answers of another model than the requested one, recognised by the name in the answer."""

import re

from app.costs.own_prices import OwnPriceTable
from app.costs.price_list import PriceList

# The end of a name that stands for one date or version of a model.
_SNAPSHOT = re.compile(r"[-@_](?:latest|v?\d[\d.-]*)")
# A gateway may answer with any number of names.
_MAX_KEPT = 10_000


class OtherModels:
    """Tells other names of a model from the names of other models.

    Args:
        own: The operator's prices.
        published: The published prices.
    """

    def __init__(self, own: OwnPriceTable, published: PriceList) -> None:
        self._own = own
        self._list = published
        self._known: dict[tuple[str, str, str], bool] = {}

    def has(self, provider: str, model: str, answered: str) -> bool:
        """Return whether the name in an answer belongs to another model that has a price.

        Args:
            provider: Provider name.
            model: Name of the requested model.
            answered: Name of the model in the answer.
        """
        key = provider, model, answered
        if key not in self._known:
            if len(self._known) >= _MAX_KEPT:
                self._known.clear()
            self._known[key] = self._find(*key)
        return self._known[key]

    def _find(self, provider: str, model: str, answered: str) -> bool:
        if self._own.names(provider, answered):
            return True
        own = self._own.names(provider, model)
        if own and _SNAPSHOT.fullmatch(answered.removeprefix(model)):
            return False
        asked_id, answered_id = (self._list.id_of(provider, each) for each in (model, answered))
        # The operator may have priced a name that only the provider knows, such as a deployment.
        is_alias = own and asked_id is None
        return answered_id is not None and answered_id != asked_id and not is_alias

"""The prices of one request: its possible cost before the call, and its cost after the answer.

A provider may serve a request in another way than the request asks. The account's settings may
choose a service tier or a region, and a busy provider may serve a lower tier. Therefore, a hold
covers the most expensive way in which the provider may serve the request. The facts of the answer
decide the amount that is booked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import product
from typing import NamedTuple

from app.costs.price import Price
from app.domain.usage import SERVED, Usage, each_of

#: The way of serving that has the usual price.
STANDARD = ""
#: The values with which providers name the standard, in requests and in answers.
_STANDARDS: Mapping[str, frozenset[str]] = {
    "service_tier": frozenset({"default", "standard", "standard_only", "on_demand"}),
    "speed": frozenset({"standard"}),
    "inference_geo": frozenset({"global", "not_available"}),
}
#: A service tier that leaves the choice to the account's settings.
AUTO = "auto"
_, _SPEED, _REGION = SERVED
# A request for the tier "fast" is answered as "priority" (OpenAI's reference of chat completions).
_ANSWERED_AS = {"fast": "priority"}


class Settled(NamedTuple):
    """The price of an answered call.

    Attributes:
        price: The price at which the call is booked.
        certain: Whether the provider has told everything that the cost depends on. Otherwise the
            price is the most expensive price that may apply, or the cost counts the longest time of
            a container.
    """

    price: Price
    certain: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Ways:
    """The values of one fact of serving, such as the service tier.

    Attributes:
        asked: The value that the request asks for.
        possible: The values at which the provider may serve the request.
        priced: All values that have a price.
    """

    asked: str = STANDARD
    possible: frozenset[str] = frozenset({STANDARD})
    priced: frozenset[str] = frozenset({STANDARD})


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """The prices of one request.

    Attributes:
        prices: Prices by service tier, speed and region.
        ways: The values of service tier, speed and region, in the order of ``SERVED``.
        service_tier: The service tier that the request must name because the agent names no
            tier; None means that nothing is added to the request.
        others: Further prices that may apply if an answer tells a value without a price, or if the
            model that has answered is not understood.
        understood: Whether these are the prices of the model that has answered. If they are not,
            nothing tells which price applies, so the highest of all prices applies, and the call
            costs at least its hold.
        rivals: The quotes of the further models that an answer names. Nothing tells which of its
            models has answered, so the highest price of all these quotes applies.

    Example:
        quote = pricing.quote("openai", "gpt-5", {"service_tier": "priority"})
        quote.settle(usage, {"service_tier": "default"}).price  # the usual price
    """

    prices: Mapping[tuple[str, ...], Price]
    ways: tuple[Ways, ...]
    service_tier: str | None = None
    others: tuple[Price, ...] = ()
    understood: bool = True
    rivals: "tuple[Quote, ...]" = ()

    @property
    def usual(self) -> Price:
        """The price if the provider serves the request in the requested way."""
        return self.prices[tuple(way.asked for way in self.ways)]

    @property
    def possible(self) -> list[Price]:
        """The prices at which the provider may serve the request."""
        return self._at(way.possible for way in self.ways)

    def worst_case(
        self,
        input_tokens: int,
        max_output_tokens: int,
        *,
        cache_writes: bool = False,
        web_searches: int = 0,
        container_seconds: int = 0,
    ) -> Decimal:
        """Return the most dollars that the call can cost; see ``Price.worst_case``."""
        return max(
            price.worst_case(
                input_tokens,
                max_output_tokens,
                cache_writes=cache_writes,
                web_searches=web_searches,
                container_seconds=container_seconds,
            )
            for price in self.possible
        )

    def settle(self, usage: Usage, served: Mapping[str, str]) -> Settled:
        """Return the price of an answered call.

        If the answer does not tell a fact, the most expensive possible value of the fact applies.
        If the answer tells several values, the most expensive of these values applies. If the
        answer tells a value that has no price, the request was served in an unknown way, so the
        most expensive of all known values and of ``others`` applies.

        Args:
            usage: The counts of the call.
            served: The facts of the answer, as in ``served_by``.
        """
        found = [quote.candidates(served) for quote in (self, *self.rivals)]
        costs = {price: price.cost(usage) for prices, _ in found for price in prices}
        dearest = max(costs, key=costs.__getitem__)
        is_bound = bool(dearest.at(usage.prompt_tokens).containers_usd(usage.container_seconds))
        is_one = all(told for _, told in found) and len(set(costs.values())) == 1
        return Settled(dearest, certain=is_one and not is_bound and self.understood)

    def candidates(self, served: Mapping[str, str]) -> tuple[list[Price], bool]:
        """Return the prices of this quote that may apply, and whether the told facts have prices.

        Args:
            served: The facts of the answer, as in ``served_by``.
        """
        told = [_told(name, served.get(name)) for name in SERVED]
        facts = list(zip(self.ways, told, strict=True))
        unpriced = any(not values <= way.priced for way, values in facts)
        found = self._at(_values(way, values) for way, values in facts)
        candidates = found or list(self.prices.values())
        if not self.understood:
            candidates = [*self.prices.values(), *self.others]
        elif unpriced:
            candidates = [*candidates, *self.others]
        return candidates, bool(found) and not unpriced

    def booked_usd(self, price: Price, usage: Usage, held_usd: Decimal) -> Decimal:
        """Return the dollars that are booked for an answered call.

        Args:
            price: The price of the call, from ``settle``.
            usage: The counts of the call.
            held_usd: The hold of the call. If the model that has answered is not understood, the
                call costs at least the hold.
        """
        cost_usd = price.cost(usage)
        return cost_usd if self.understood else max(cost_usd, held_usd)

    def _at(self, values: Iterable[Iterable[str]]) -> list[Price]:
        return [self.prices[key] for key in product(*values) if key in self.prices]


def any_of(quote: Quote, *others: Quote) -> Quote:
    """Return the quote of an answer that one of several models has given.

    Args:
        quote: The quote of one of the models that the answer names.
        others: The quotes of the other models.
    """
    return replace(
        quote,
        rivals=tuple(other for other in others if other != quote),
        understood=all(each.understood for each in (quote, *others)),
    )


def _values(way: Ways, told: frozenset[str]) -> Iterable[str]:
    """Return the values of a fact that may have served a request, given what the answer tells."""
    if not told:
        return way.possible
    return told if told.issubset(way.priced) else way.priced


def _told(name: str, told: str | None) -> frozenset[str]:
    """Return the values of a fact that an answer tells; an answer may contradict itself."""
    normal = (_normal(name, value) for value in each_of(told or ""))
    return frozenset(value for value in normal if value is not None)


def asked_of(name: str, value: object) -> str | None:
    """Return the value that a request asks for; None if the request leaves the fact open."""
    # An empty text is no name of the standard, although ``STANDARD`` is empty.
    return None if value is None else _normal(name, str(value) or "''")


def _normal(name: str, value: str | None) -> str | None:
    if not value or (value, name) == (AUTO, SERVED[0]):
        return None
    return STANDARD if value in _STANDARDS[name] else value


def ways_of(name: str, asked: str | None, priced: frozenset[str]) -> Ways:
    """Return the values of a fact at which a request may be served."""
    if asked is None:
        # A provider may choose the tier and the region, but serves a speed only if a request asks
        # for that speed.
        possible = frozenset({STANDARD}) if name == _SPEED else priced
        return Ways(possible=possible, priced=priced)
    if name == _REGION:
        return Ways(asked=asked, possible=frozenset({asked}), priced=priced)
    # A busy provider may serve the standard in place of a tier or a speed.
    possible = frozenset({STANDARD, asked, _ANSWERED_AS.get(asked, asked)}) & priced
    return Ways(asked=asked, possible=possible, priced=priced)

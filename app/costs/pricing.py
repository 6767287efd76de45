"""The cost of a call at the operator's price, the published price or the default price."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from typing import Any

from app.costs.other_models import OtherModels, Standing
from app.costs.own_prices import OwnPrice, OwnPriceTable
from app.costs.price import Price
from app.costs.price_list import PriceList, searches_unasked
from app.costs.quote import AUTO, STANDARD, Quote, any_of, asked_of, ways_of
from app.costs.unpriced import unpriced_model, unpriced_way
from app.domain.agent import Agent, provider_of_model
from app.domain.claude import region_factors
from app.domain.model_limits import limits_of
from app.domain.policies import CostConfig
from app.domain.protocols import PROTOCOLS
from app.domain.providers import BUILT_IN, CONTAINER_HOUR_USD, Provider
from app.domain.server_tools import CODE_EXECUTION, WEB_SEARCH, server_tools_in
from app.domain.usage import SERVED, Usage, each_of
from app.errors import UnknownModel

__all__ = ["Price", "Pricing"]

#: The beginning of the version of every operator's price.
OPERATOR = "operator"
_BATCH = {"processing": "batch"}
# A published price may change with the date or the hour, so a found price is kept only this long.
_FRESH_S = 60.0
# A gateway may answer with any number of names.
_MAX_KEPT = 10_000
_NO_PARAMS: Mapping[str, Any] = {}
_SERVICE_TIER, _SPEED, _ = SERVED
# The name under which a request asks for the standard tier.
_DEFAULT_TIER = "default"


class Pricing:
    """Prices of all models.

    Weakness: published prices come from the installed version of genai-prices. This version has
    neither discounts of single accounts nor models that are newer than the version. The operator
    can give the missing prices with their dates in ``model_prices``. The command
    ``agentchord costs reprice`` corrects calls that were booked at a wrong price.

    Args:
        config: The operator's own prices and the default prices. A key of ``model_costs`` and of
            ``model_prices`` has one of three forms. The first form is the name of a model. The form
            ``provider/model`` stands for the model of only one provider. The form ``provider/*``
            stands for those models of a provider that have no price of their own.
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
        self._providers = {provider.name: provider for provider in providers}
        self._own = OwnPriceTable(config or CostConfig())
        self._list = PriceList()
        self._found: dict[tuple[Any, ...], Quote] = {}
        self._others = OtherModels(self._own, self._list)
        self._fresh_until_s = 0.0

    def preload(self) -> None:
        """Load the published prices now, so that the first look-up does not wait for them."""
        self._list.models("")

    @property
    def own_models(self) -> tuple[str, ...]:
        """The keys, from the configuration, of the models with an operator's price."""
        return self._own.models

    def own_place(self, provider: str, model: str) -> str | None:
        """Return the place of a model's operator price in the configuration, or None."""
        return self._own.place(provider, model)

    def published(self, provider: str, model: str) -> Price | None:
        """Return a model's present published price, or None; an operator's price is ignored."""
        return self._listed(provider, model, {}, datetime.now(UTC))

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
        """Return the price of a model if the provider serves the request in the requested way.

        Args:
            provider: Provider name.
            model: Model name.
            params: The request's parameters; ``service_tier``, ``speed`` and ``inference_geo``
                change the price.
            at: Time of the request; None means the present time, within a minute.
            batch: Whether the request is part of a batch.

        Returns:
            The price.

        Raises:
            UnknownModel: If the model has no price, or no price for the requested way of serving.
        """
        price = self.quote(provider, model, params, at=at).usual
        return self._batch(provider, model, price) if batch else price

    def quote(
        self,
        provider: str,
        model: str,
        params: Mapping[str, Any] = _NO_PARAMS,
        *,
        at: datetime | None = None,
    ) -> Quote:
        """Return all prices at which a request may be served.

        Args:
            provider: Provider name.
            model: Model name.
            params: The request's parameters, as in ``price_of``.
            at: Time of the request; None means the present time, within a minute.

        Returns:
            The prices.

        Raises:
            UnknownModel: If the model has no price, or no price for the requested way of serving.
        """
        wanted = tuple(params.get(name) for name in SERVED)
        if at is not None:
            return self._look_up(provider, model, wanted, at)
        key = (provider, model, *map(repr, wanted))  # the text 'None' is not None
        return self._kept(key, lambda: self._look_up(provider, model, wanted, datetime.now(UTC)))

    def quote_answered(
        self,
        provider: str,
        model: str,
        params: Mapping[str, Any],
        answered: str | None,
        *,
        at: datetime | None = None,
    ) -> Quote:
        """Return the prices of an answered request; another model than the requested may answer.

        Args:
            provider: Provider name.
            model: Name of the requested model.
            params: The request's parameters, as in ``price_of``.
            answered: Name of the model in the answer, or None if the answer has no name. The names
                of several models are joined by ``either``.
            at: Time of the request; None means the present time, within a minute.

        Returns:
            The prices of the model that has answered. If no price is known for this model, the
            quote is not ``understood``; ``others`` then has the prices of all models whose names
            stand in the answered name. The quote has ``rivals`` if the answer names several models.

        Raises:
            UnknownModel: If the requested model has no price.
        """
        if not answered or answered == model:
            return self.quote(provider, model, params, at=at)
        if len(names := each_of(answered)) > 1:
            quotes = [self.quote_answered(provider, model, params, name, at=at) for name in names]
            return any_of(*quotes)
        if at is not None:
            return self._answered(provider, model, params, answered, at)
        key = (provider, model, answered, *(repr(params.get(name)) for name in SERVED))
        now = datetime.now(UTC)
        return self._kept(key, lambda: self._answered(provider, model, params, answered, now))

    def _kept(self, key: tuple[Any, ...], find: Callable[[], Quote]) -> Quote:
        """Return a quote that was found within the last minute, or find the quote."""
        now_s = time.monotonic()
        if now_s >= self._fresh_until_s or len(self._found) >= _MAX_KEPT:
            self._found.clear()
            self._fresh_until_s = now_s + _FRESH_S
        if key not in self._found:
            self._found[key] = find()
        return self._found[key]

    def _answered(
        self, provider: str, model: str, params: Mapping[str, Any], answered: str, at: datetime
    ) -> Quote:
        quote = self.quote(provider, model, params, at=at)

        def general(name: str) -> OwnPrice | None:
            return self._own.at(provider, name, at) or self._default(provider, name, at)

        standing = self._others.standing(provider, model, answered, at, general=general)
        if standing is Standing.SAME:
            return quote
        if standing is Standing.OTHER:
            for asked in (params, _NO_PARAMS):
                try:
                    return self.quote(provider, answered, asked, at=at)
                except UnknownModel:
                    continue
        return replace(
            quote,
            others=(*quote.others, *self._every(provider, answered, at)),
            understood=False,
        )

    def _every(self, provider: str, name: str, at: datetime) -> Iterable[Price]:
        """Yield all published prices of the models whose names stand in a name."""
        for model, price in self._list.prices_of_named(provider, name, at):
            for factor in (Decimal(1), *region_factors(model).values()):
                yield price.times(factor)

    def check_fees(self, agent: Agent) -> None:
        """Refuse an agent whose provider would run a tool at an unknown price.

        Args:
            agent: The agent, or one of its ``options()``.

        Raises:
            UnknownModel: If the agent has the provider's ``web_search``, and the price of the
                agent's model has no fee for searches. Also if the agent has ``code_execution``, and
                no fee for containers is known.
        """
        names = {tool.name for tool in server_tools_in(agent.tools)}
        if not names & {WEB_SEARCH, CODE_EXECUTION}:
            return
        price = self.price_of(agent.provider, agent.model, agent.llm_config)
        of = f"the price of model {agent.model!r} of {agent.provider}"
        if WEB_SEARCH in names and not price.web_search:
            raise UnknownModel(
                f"{of} has no fee for searches "
                "of the provider: give the model's price with web_searches under model_prices in "
                "the configuration, or remove the tool web_search"
            )
        if CODE_EXECUTION in names and price.container_hour is None:
            raise UnknownModel(
                f"{of} has no fee for containers: give the model's price with container_hours "
                "(0 if they are free) under model_prices in the configuration, or remove the tool "
                "code_execution"
            )

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
            output_tokens: Generated tokens, including reasoning.
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
        """Return the most tokens that a model generates in an answer; None if this is unknown."""
        return limits_of(model).max_output_tokens

    def context_window(self, provider: str, model: str) -> int | None:
        """Return the most tokens of prompt and answer in total; None if the number is unknown."""
        return limits_of(model).context_window or self._list.context_window(provider, model)

    def _look_up(
        self, provider: str, model: str, wanted: tuple[object, ...], at: datetime
    ) -> Quote:
        tier, *others = wanted
        to_send = None
        if tier is None:
            tier, to_send = self._tier(provider, model, at)
        asked = [asked_of(name, value) for name, value in zip(SERVED, (tier, *others), strict=True)]
        own = self._own.at(provider, model, at) or self._default(provider, model, at)
        if own and searches_unasked(model) and not own.bounds_searches:
            raise UnknownModel(
                f"the name of model {model!r} of {provider} says that it searches the web, but its "
                f"price ({own.price.version}) does not count searches: give it a fee for requests "
                "under model_prices in the configuration (0 if there is none), or give it "
                "web_searches and max_web_searches"
            )
        prices = own.by_way() if own else self._published(provider, model, at)
        priced = [frozenset(values) for values in zip(*prices, strict=True)] or [frozenset()] * 3
        unpriced = {
            name: str(value)
            for name, value, known in zip(SERVED, asked, priced, strict=True)
            if value is not None and value not in known
        }
        tiers = self._list.values(provider, model, _SERVICE_TIER, at)
        if wanted[0] == AUTO and not priced[0].issuperset(tiers):
            unpriced[_SERVICE_TIER] = AUTO
        if not prices or unpriced:
            if prices:
                raise unpriced_way(provider, model, unpriced)
            raise unpriced_model(
                provider, model, at, published=self._list, own_models=self._own.models
            )
        return Quote(
            prices={key: self._with_writes(provider, price) for key, price in prices.items()},
            ways=tuple(map(ways_of, SERVED, asked, priced)),
            service_tier=to_send,
            others=tuple(self._published(provider, model, at).values()) if own else (),
        )

    def _tier(self, provider: str, model: str, at: datetime) -> tuple[str | None, str | None]:
        """Return the tier for a request without a tier, and the tier that the request then names.

        The account's settings decide about a request that names no tier. Therefore, a request names
        the standard tier if there is any other tier, unless the operator wants the account's
        settings.
        """
        known = self._providers.get(provider)
        if known is not None and known.service_tier is not None:
            return known.service_tier, None if known.service_tier == AUTO else known.service_tier
        if self._list.values(provider, model, _SERVICE_TIER, at):
            return _DEFAULT_TIER, _DEFAULT_TIER
        return None, None

    def _default(self, provider: str, model: str, at: datetime) -> OwnPrice | None:
        """Return the default price for a model that is in no table; otherwise None."""
        listed = self._list.find(provider, model, {}, at) is not None
        if listed or self._list.unknown_units(provider, model, at):
            return None
        if self._list.variant_of(provider, model) is not None:
            return None
        return self._own.default

    def _published(self, provider: str, model: str, at: datetime) -> dict[tuple[str, ...], Price]:
        """Return the published prices by service tier, speed and region."""
        known = self._providers.get(provider)
        regional = known is not None and PROTOCOLS[known.protocol].regional
        regions = region_factors(model) if regional else {}
        tiers, speeds = (
            (STANDARD, *self._list.values(provider, model, fact, at))
            for fact in (_SERVICE_TIER, _SPEED)
        )
        prices: dict[tuple[str, ...], Price] = {}
        for tier, speed in product(tiers, speeds):
            facts = {_SERVICE_TIER: tier, _SPEED: speed}
            variant = {name: value for name, value in facts.items() if value != STANDARD}
            if (price := self._listed(provider, model, variant, at)) is not None:
                prices[tier, speed, STANDARD] = price
                for region, factor in regions.items():
                    prices[tier, speed, region] = price.times(factor)
        return prices

    def _listed(
        self, provider: str, model: str, variant: Mapping[str, str], at: datetime
    ) -> Price | None:
        """Return a published price, and add the fee for containers; no list has such a fee."""
        price = self._list.find(provider, model, variant, at)
        return price and replace(price, container_hour=CONTAINER_HOUR_USD.get(provider))

    def _batch(self, provider: str, model: str, price: Price) -> Price:
        """Return the price of a batch: the published price, or half of the usual price."""
        if not price.version.startswith(OPERATOR):
            listed = self._listed(provider, model, _BATCH, datetime.now(UTC))
            if listed is not None:
                named = replace(listed, version=f"{listed.version}, batch")
                return self._with_writes(provider, named)
        return price.halved()

    def _with_writes(self, provider: str, price: Price) -> Price:
        """Return the price; a provider that caches only on request writes nothing unasked."""
        known = self._providers.get(provider)
        on_request = known is not None and PROTOCOLS[known.protocol].caches_on_request
        return replace(price, writes_unasked=price.writes_unasked and not on_request)

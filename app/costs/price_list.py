"""The published prices: the data in the installed genai-prices package; no data is fetched.

A price list may have prices of units that this application does not know. If an unknown unit may
occur in a call of a model, the list has no usable price of the model. If the unknown unit cannot
occur, the price of the unit is left out. Some units cannot occur, because a request has only text,
images and PDFs, and because searches of the web are the only tool of the provider that has a price
per use in a request.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from app.costs.model_names import Literal, literals_of, named_in, recognises
from app.costs.price import Price
from app.domain.agent import PROVIDERS

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

_PER_MILLION, _PER_THOUSAND = -6, -3
# If the list has no price of cache writes, the usual price applies: the input price times this
# factor.
CACHE_WRITE_FACTOR = Decimal("1.25")
CACHE_WRITE_1H_FACTOR = Decimal(2)
#: The units that are priced.
UNITS = frozenset(
    {"input_mtok", "output_mtok", "output_reasoning_mtok", "cache_read_mtok", "cache_write_mtok"}
    | {"cache_write_5m_mtok", "cache_write_1h_mtok", "requests_kcount", "web_searches_kcount"}
)
#: The units of tools that run at the provider, without searches of the web. No request asks for
#: these tools at a price per use. Programs are billed by the time of the programs' container.
_OF_TOOLS = frozenset({"storage_searches_kcount", "social_searches_kcount"}) | {
    "code_executions_kcount"
}
#: The beginnings of units for sounds and videos; prompts with sounds or videos are never sent.
_OF_OTHER_PROMPTS = ("input_audio_", "input_video_", "cache_audio_", "cache_video_")
# Models with such names search the web although a request does not ask for searches. The list has
# no fee for most of these models.
_SEARCHES_UNASKED = re.compile(
    r"(?<![a-z])(?:search|deep-?research|online|sonar|compound)(?![a-z])"
)
# For each search of these models, OpenAI bills a block of input tokens beside the fee. The usage in
# the models' answers may leave out this block.
_BILLS_A_BLOCK = re.compile(r"gpt-4(?:o|\.1)-mini")
_SEARCH_BLOCK = 8000
#: The facts of a request by which the list is asked for prices.
_ASKED = frozenset({"service_tier", "speed", "processing"})


class PriceList:
    """The models of genai-prices. The first look-up loads the package, which takes about 0.3 s.

    Weakness: the list has a few prices for cases that no answer tells, such as the route of a
    gateway. For a model with such prices, the most expensive price applies to all cases.
    """

    @cached_property
    def version(self) -> str:
        """Name and version of the list."""
        import genai_prices

        return f"genai-prices {genai_prices.__version__}"

    def find(
        self, provider: str, model: str, variant: Mapping[str, str], at: datetime
    ) -> Price | None:
        """Look up the price of a model.

        Args:
            provider: Provider name exactly as in the list, because the prices of a gateway with the
                name ``my-openai`` differ from the prices of OpenAI.
            model: Model name, which may have a date or be an alias.
            variant: Parameters of the request that have prices of their own: ``service_tier`` and
                ``speed``.
            at: Time of the request.

        Returns:
            The price. The result is None if the list has no price for the model or for the variant.
            The result is also None if the price has a unit that is not known here. In the price,
            ``writes_unasked`` is true if the list has a price of cache writes.
        """
        info = self._model(provider, model)
        if info is None or not all(_has_variant(info, *item, at) for item in variant.items()):
            return None
        cases = [info.get_prices(at, context) for context in _contexts(info, variant)]
        if any(_unknown_units(model, case) for case in cases):
            return None
        found = (self._price_of(model, case) for case in cases)
        prices = [price for price in found if price is not None]
        return _dearest(prices) if prices else None

    def values(self, provider: str, model: str, fact: str, at: datetime) -> tuple[str, ...]:
        """Return the values of a fact, such as ``service_tier``, that have prices of their own."""
        info = self._model(provider, model)
        found = [
            variant.when[fact]
            for variant in (info.price_variants if info else None) or ()
            if fact in variant.when
            and (variant.constraint is None or variant.constraint.active(at))
            and any(rate is not None for rate in vars(variant.prices).values())
        ]
        return tuple(dict.fromkeys(found))

    def unknown_units(self, provider: str, model: str, at: datetime) -> list[str]:
        """Return a model's priced units that may occur in a call and that have no bound here."""
        info = self._model(provider, model)
        return [] if info is None else _unknown_units(model, info.get_prices(at, {}))

    def context_window(self, provider: str, model: str) -> int | None:
        """Return the most tokens that a model reads; None if the list does not have the number."""
        info = self._model(provider, model)
        return info.context_window if info else None

    def id_of(self, provider: str, model: str) -> str | None:
        """Return the list's own name of a model, or None if the list does not have the model."""
        info = self._model(provider, model)
        return info.id if info else None

    def variant_of(self, provider: str, model: str) -> str | None:
        """Return the listed model of which a name is an unknown variant; None if there is none.

        Example:
            >>> PriceList().variant_of("anthropic", "claude-opus-4-6-fast")
            'claude-opus-4-6'
        """
        if self._model(provider, model) is not None:
            return None
        return next((info.id for info in self._named(provider, model)), None)

    def prices_of_named(self, provider: str, name: str, at: datetime) -> list[tuple[str, Price]]:
        """Return every price of the models whose names stand in a name, with the models' names.

        The prices are those of the provider, and those of the built-in providers, whose models
        other providers offer. Units that are not known here are left out, so a call may cost more.
        """
        found = []
        for owner in dict.fromkeys((provider, *PROVIDERS)):
            for info in self._named(owner, name):
                cases = [{}, *(variant.when for variant in info.price_variants or ())]
                prices = (self._price_of(info.id, info.get_prices(at, case)) for case in cases)
                found += [(info.id, price) for price in prices if price is not None]
        return found

    def models(self, provider: str) -> list[str]:
        """Return the names of a provider's models; empty if the list has no such provider."""
        known = self._providers.get(provider)
        return [model.id for model in known.models] if known else []

    @cached_property
    def _providers(self) -> "dict[str, Provider]":
        # This code reads the data itself, by exact name. Any library of the process can switch the
        # package's own look-up to fetched data. That look-up also treats "my-openai" like OpenAI.
        from genai_prices.data import providers

        return {provider.id: provider for provider in providers}

    def _model(self, provider: str, model: str) -> "ModelInfo | None":
        known = self._providers.get(provider)
        if known is None:
            return None
        found = known.find_model(model, all_providers=list(self._providers.values()))
        # The list recognises many models by the beginning of a name, so also their variants.
        return found if found is not None and recognises(_literals(found), model) else None

    def _named(self, provider: str, name: str) -> "list[ModelInfo]":
        """Return the models whose names stand in a name; a longer name counts before its parts."""
        known = self._providers.get(provider)
        found = [info for info in known.models if named_in(_literals(info), name)] if known else []
        parts = {
            info.id
            for info in found
            for other in found
            if info is not other and named_in(_literals(info), other.id)
        }
        return [info for info in found if info.id not in parts] or found

    def _price_of(self, model: str, listed: "ModelPrice") -> Price | None:
        if listed.input_mtok is None or listed.output_mtok is None:
            return None
        starts = sorted({start for rate in vars(listed).values() for start in _starts(rate)})
        above = tuple((start, self._price(model, listed, start + 1)) for start in starts)
        return self._price(model, listed, 0, above)

    def _price(
        self,
        model: str,
        listed: "ModelPrice",
        prompt_tokens: int,
        above: tuple[tuple[int, Price], ...] = (),
    ) -> Price:
        rates = {
            unit: rate
            for unit in UNITS
            if (rate := _rate(getattr(listed, unit, None), unit, prompt_tokens)) is not None
        }
        input_ = rates["input_mtok"]
        search = rates.get("web_searches_kcount", Decimal(0))
        if search and _BILLS_A_BLOCK.search(model):
            search += _SEARCH_BLOCK * input_
        write = rates.get("cache_write_5m_mtok", rates.get("cache_write_mtok"))
        return Price(
            version=self.version,
            input=input_,
            cached_input=rates.get("cache_read_mtok", input_),
            cache_write=input_ * CACHE_WRITE_FACTOR if write is None else write,
            cache_write_1h=rates.get("cache_write_1h_mtok", input_ * CACHE_WRITE_1H_FACTOR),
            output=rates["output_mtok"],
            reasoning=rates.get("output_reasoning_mtok"),
            request=rates.get("requests_kcount", Decimal(0)),
            web_search=search,
            writes_unasked=write is not None,
            above=above,
        )


def searches_unasked(model: str) -> bool:
    """Return whether the name of a model says that the model searches the web in every call."""
    return _SEARCHES_UNASKED.search(model.lower()) is not None


def _literals(info: "ModelInfo") -> list[Literal]:
    return literals_of(info.id, info.match)


def _has_variant(info: "ModelInfo", key: str, value: str, at: datetime) -> bool:
    return any(
        variant.when.get(key) == value
        and (variant.constraint is None or variant.constraint.active(at))
        for variant in info.price_variants or ()
    )


def _contexts(info: "ModelInfo", variant: Mapping[str, str]) -> Iterable[dict[str, str]]:
    """Yield the requested case, and this case with each fact that this application cannot know."""
    yield dict(variant)
    for listed in info.price_variants or ():
        if not listed.when.keys() <= _ASKED:
            yield {**listed.when, **variant}


def _unknown_units(model: str, listed: "ModelPrice") -> list[str]:
    found = {
        unit
        for unit, rate in vars(listed).items()
        if rate
        and unit not in UNITS
        and unit not in _OF_TOOLS
        and not unit.startswith(_OF_OTHER_PROMPTS)
        and not _is_at_most_text(unit, listed)
    }
    if searches_unasked(model) and not listed.requests_kcount:
        # The number of searches has no bound, so only a fee for the whole request can be held.
        found.add("web_searches_kcount")
    return sorted(found)


def _is_at_most_text(unit: str, listed: "ModelPrice") -> bool:
    """Whether a unit of images costs at most as much as text; here an image has text's rate."""
    counterpart = unit.replace("_image_", "_")
    text = getattr(listed, counterpart, None) or listed.input_mtok
    if counterpart == unit or not isinstance(text, Decimal):
        return False
    image = getattr(listed, unit)
    rates = (image.base, *(tier.price for tier in image.tiers)) if _starts(image) else (image,)
    return all(rate <= text for rate in rates)


def _dearest(prices: list[Price]) -> Price:
    """Return a price in which each rate and each fee is the highest one of all prices."""
    first, *others = prices
    for other in others:
        first = first.or_dearer(other)
    return first


def _starts(rate: Any) -> list[int]:
    return [tier.start for tier in getattr(rate, "tiers", ())]


def _rate(rate: "Decimal | TieredPrices | None", unit: str, prompt_tokens: int) -> Decimal | None:
    """Convert a rate of the list to dollars per token or per use, for a prompt size."""
    if rate is None:
        return None
    if not isinstance(rate, Decimal):
        reached = [tier.price for tier in rate.tiers if prompt_tokens > tier.start]
        rate = reached[-1] if reached else rate.base
    return rate.scaleb(_PER_MILLION if unit.endswith("_mtok") else _PER_THOUSAND)

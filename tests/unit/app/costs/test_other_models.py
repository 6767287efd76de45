"""Answers of another model: the price of a known name, or the most that could be true."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices.data import providers as published
from hypothesis import given
from hypothesis import strategies as st

from app.costs.pricing import Pricing
from app.costs.quote import Quote
from app.domain.policies import CostConfig
from app.domain.usage import Usage
from app.errors import UnknownModel

PRICING = Pricing()
OWN: dict[str, Any] = {"input": 2, "output": 10}
USAGE = Usage(input_tokens=1000, cached_tokens=500, output_tokens=300)
HELD_USD = Decimal("0.5")


def quote(asked: str, answered: str | None, pricing: Pricing = PRICING) -> Quote:
    provider = "anthropic" if asked.startswith("claude") else "openai"
    return pricing.quote_answered(provider, asked, {}, answered)


def own(*names: str) -> Pricing:
    return Pricing(CostConfig(model_prices={name: [OWN] for name in names}))


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gpt-4o", None),
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4o", "gpt-4o-2099-12-31"),
        ("gpt-4o", "gpt-4o-latest"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-5.2", "gpt-5.2-20251211"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5@20250929"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-latest"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
    ],
)
def test_a_snapshot_of_the_asked_model_is_this_model(asked: str, answered: str | None) -> None:
    assert quote(asked, answered) == quote(asked, asked)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gpt-4o-mini", "gpt-4o"),
        ("gpt-4o", "gpt-4o-2024-05-13"),
        ("gpt-4o", "gpt-4o-mini-2024-07-18"),
        ("gpt-5", "gpt-5-pro"),
        ("gpt-4o", "ft:gpt-4o-2024-08-06:org:name:id"),
        ("claude-haiku-4-5", "claude-opus-4-5-20251101"),
    ],
)
def test_a_listed_model_that_answers_has_its_own_price(asked: str, answered: str) -> None:
    assert quote(asked, answered) == quote(answered, answered) != quote(asked, asked)


DECORATED = [
    *("{}-search-preview", "{}-audio", "{}-realtime", "{}-transcribe", "{}-tts", "{}-image"),
    *("{}:nitro", "{}:free", "{}:online", "{}:batch", "{}:extended", "{}:thinking", "{}@fast"),
    *("{}-fast", "{}-thinking", "{}-ultrafast", "{}-priority", "{}-v2", "{}-us", "{}-2025"),
    *("openai/{}", "anthropic/{}", "models/{}", "accounts/fireworks/models/{}", "azure_ai/{}"),
    *("us.anthropic.{}-v1:0", "ft:{}:org::id", "{} ", " {}", "{}\0", "{}-\uff46ast", "x{}"),
]


@pytest.mark.parametrize("name", DECORATED)
@pytest.mark.parametrize("asked", ["gpt-4.1", "gpt-5.4", "claude-opus-5-5", "claude-opus-4-6"])
def test_a_decorated_name_is_neither_sold_nor_booked_as_the_plain_model(
    asked: str, name: str
) -> None:
    provider = "anthropic" if asked.startswith("claude") else "openai"
    variant = name.format(asked)
    default = Pricing(CostConfig(default_input_cost=0.0001, default_output_cost=0.0001))

    found = quote(asked, variant)

    try:
        listed = PRICING.price_of(provider, variant)
    except UnknownModel:
        dearest = max(price.cost(USAGE) for price in found.prices.values())
        settled = found.settle(USAGE, {"service_tier": "default", "inference_geo": "global"})
        assert not found.understood
        assert not settled.certain
        assert settled.price.cost(USAGE) >= dearest
        assert found.booked_usd(settled.price, USAGE, HELD_USD) >= HELD_USD
        if name[0] != "x":
            with pytest.raises(UnknownModel):
                default.price_of(provider, variant)
    else:  # the list itself has the name, such as ft:gpt-4.1
        assert found.usual == listed


@pytest.mark.parametrize(
    "name", ["claude-opus-4-6-fast", "claude-sonnet-4-5:extended", "claude-opus-4-7-preview"]
)
def test_a_variant_that_the_list_knows_only_by_its_beginning_is_refused(name: str) -> None:
    with pytest.raises(UnknownModel, match="no known variant of 'claude-"):
        PRICING.price_of("anthropic", name)


def test_names_of_dear_models_in_an_unknown_name_make_the_price() -> None:
    found = quote("gpt-5-nano", "anthropic/claude-opus-5-5-fast")
    fast = PRICING.quote("anthropic", "claude-opus-5-5", {"speed": "fast"})

    price = found.settle(USAGE, {}).price

    assert price.cost(USAGE) >= max(one.cost(USAGE) for one in fast.prices.values())


def test_own_prices_count_for_the_names_that_they_are_for() -> None:
    deployment, every, both = own("openai/ours"), own("openai/*"), own("openai/*", "gpt-4o")

    assert quote("ours", "gpt-4o-2024-08-06", deployment).understood
    assert not quote("ours", "ours:online", deployment).understood
    assert quote("llama", "/models/llama.gguf", every).understood
    assert not quote("llama", "llama:online", every).understood  # no bound of its searches
    assert not quote("gpt-4o", "gpt-4o:nitro", both).understood
    assert quote("gpt-4o", "gpt-4o:nitro", own("gpt-4o", "gpt-4o:nitro")).understood
    assert quote("gpt-4o", "gpt-4o-2024-05-13", own("gpt-4o")).usual.input * 1_000_000 == 2


def test_a_default_price_is_for_an_answered_name_only_if_it_is_for_the_asked_name() -> None:
    default = Pricing(CostConfig(default_input_cost=0.001, default_output_cost=0.002))

    assert quote("our-model", "/models/our-model", default).understood
    assert not quote("gpt-5", "/models/our-model", default).understood
    assert not quote("our-model", "gpt-5-fast", default).understood


LISTED = sorted(
    model.id
    for provider in published
    if provider.id in ("openai", "anthropic")
    for model in provider.models
)
NOT_IN_SNAPSHOTS = re.compile("[^-@:_0-9vlatest]")
answered_names = st.one_of(
    st.sampled_from(LISTED),
    st.builds(str.format, st.sampled_from(DECORATED), st.sampled_from(LISTED)),
    st.builds("{}{}{}".format, st.sampled_from(LISTED), st.sampled_from("-@:./_ "), st.text()),
    st.text(max_size=30),
)


@given(
    st.sampled_from(["gpt-5-nano", "gpt-4o", "claude-opus-5-5", "claude-haiku-4-5"]),
    answered_names,
    st.fixed_dictionaries(
        {},
        optional={"service_tier": st.sampled_from(["priority", "flex", "x", "default"])},
    ),
)
def test_no_answered_name_costs_less_than_the_model_that_it_may_be(
    asked: str, answered: str, served: dict[str, str]
) -> None:
    provider = "anthropic" if asked.startswith("claude") else "openai"
    found = quote(asked, answered)

    settled = found.settle(USAGE, served)
    booked_usd = found.booked_usd(settled.price, USAGE, HELD_USD)

    plain = PRICING.quote(provider, asked)
    if not found.understood:
        assert booked_usd >= max(HELD_USD, *(price.cost(USAGE) for price in plain.prices.values()))
        assert not settled.certain
        return
    try:
        own = PRICING.quote(provider, answered)
    except UnknownModel:  # only a snapshot of the asked model is understood without a price
        assert not answered or NOT_IN_SNAPSHOTS.search(answered.lower().removeprefix(asked)) is None
        own = plain
    assert booked_usd >= own.settle(USAGE, served).price.cost(USAGE)
    assert booked_usd >= by_the_list(provider, answered, asked)


def by_the_list(provider: str, answered: str, asked: str) -> Decimal:
    """The least cost by the list itself, under the name that it has for the model."""
    (listed,) = [entry for entry in published if entry.id == provider]
    info = listed.find_model(answered or asked) or listed.find_model(asked)
    assert info is not None
    least = Decimal(0)
    for unit, count in (("input_mtok", USAGE.input_tokens), ("output_mtok", USAGE.output_tokens)):
        cases = [{}, *(variant.when for variant in info.price_variants or ())]
        found = [getattr(info.get_prices(datetime.now(UTC), case), unit) for case in cases]
        rates = [getattr(rate, "base", rate) for rate in found if rate is not None]
        least += min(rates) * count / 1_000_000
    return least

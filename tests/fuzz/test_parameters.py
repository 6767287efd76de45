"""Parameters of calls, and the models and tiers of answers: cheap to read, and never too cheap.

The price list itself says the provider's own price. A decorated name is at least as expensive as
the model that it names, and an unknown tier as the most expensive tier.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices.data import providers as published
from hypothesis import given
from hypothesis import strategies as st

from app.costs.pricing import Pricing
from app.domain.agent import Agent
from app.domain.policies import CostConfig
from app.domain.providers import BUILT_IN
from app.domain.usage import SERVED, Usage, served_by
from app.domain.workflow import Workflow
from app.errors import AgentChordError
from app.registration.calls import check_calls
from tests.support.cheapness import assert_cheap

MODELS = ("gpt-5", "gpt-5.4-mini", "gpt-4o", "claude-opus-4-6", "claude-haiku-4-5")
USAGE = Usage(input_tokens=100_000, cached_tokens=2_000, output_tokens=30_000)

names = st.sampled_from(
    [
        *("service_tier", "speed", "inference_geo", "Service_Tier", "n", "N", "best_of", "models"),
        *("model", "plugins", "fallbacks", "api_base", "options", "extra_body", "extra_headers"),
        *("metadata", "tools", "reasoning", "reasoning_effort", "thinking", "stop", "temperature"),
        *("web_search_options", "search_parameters", "container", "background", "store", "user"),
    ]
)
variants = st.sampled_from(
    ["auto", "default", "standard", "priority", "flex", "fast", "batch", "scale", "us", "", "Fast"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | variants
nested = st.recursive(
    scalars,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(names, parts, max_size=4),
    max_leaves=20,
)
large = st.builds(
    lambda part, count: part * count,
    st.sampled_from(["x", "{", "\ud800", "[", "1e9"]),
    st.sampled_from([1000, 300_000]),
)
LISTED = sorted(
    model.id for entry in published if entry.id in ("openai", "anthropic") for model in entry.models
)
decorations = st.sampled_from(
    [
        *("{}", "{}", "{}-2031-01-01", "{}@20310101", "{}-latest", "{}-search-preview", "{}-fast"),
        *("{}:online", "{}:nitro", "{}:free", "{}-audio-preview", "{}@fast", "{}:batch", "{}-us"),
        *("openai/{}", "models/{}", "us.anthropic.{}-v1:0", "accounts/x/{}", "ft:{}:org::id"),
        *("{}-thinking", "{}:extended", "{}-realtime", "{}-tts", " {}", "{}\u200b", "{}\0"),
    ]
)
answered_names = (
    st.builds(str.format, decorations, st.sampled_from([*MODELS, *LISTED]))
    | st.text(max_size=30)
    | st.builds("{}{}{}".format, st.sampled_from(LISTED), st.sampled_from("-@:./_"), st.text())
)
told = st.fixed_dictionaries({}, optional=dict.fromkeys(SERVED, variants | nested))
ways = st.fixed_dictionaries({}, optional=dict.fromkeys(SERVED, variants))
parameters = ways | st.dictionaries(
    names | st.text(max_size=12), variants | nested | large, max_size=5
)


@pytest.fixture(scope="module")
def pricings() -> list[Pricing]:
    """The prices without configuration, and those with default prices."""
    defaults = CostConfig(default_input_cost=0.0001, default_output_cost=0.0001)
    found = [Pricing(config, providers=BUILT_IN) for config in (CostConfig(), defaults)]
    for pricing in found:
        pricing.preload()
    return found


@given(st.sampled_from(MODELS), parameters)
def test_parameters_are_cheap_and_never_cost_less_than_published(
    pricings: list[Pricing], model: str, given_parameters: dict[str, Any]
) -> None:
    provider = "anthropic" if model.startswith("claude") else "openai"
    config = {**given_parameters, "model": model, "provider": provider, "max_tokens": 1000}
    accepted: list[tuple[Pricing, Mapping[str, Any]]] = []

    async def attack() -> None:
        accepted.clear()
        for pricing in pricings:
            try:
                agent = Agent(name="a", prompt_template="Go.", llm_config=config)
                workflow = Workflow(name="w", agents=[agent])
                check_calls(workflow, providers=BUILT_IN, pricing=pricing, default_max_tokens=1000)
            except (AgentChordError, ValueError, TypeError):
                continue
            accepted.append((pricing, agent.llm_config))

    assert_cheap(attack)
    for pricing, stored in accepted:
        quote = pricing.quote(provider, model, stored)
        asked = {name: value for name in SERVED if isinstance(value := stored.get(name), str)}
        for served in ({}, asked, *({"service_tier": tier} for tier in ("priority", "flex"))):
            price = quote.settle(USAGE, served).price
            assert price.cost(USAGE) >= published_usd(provider, model, served), (stored, served)
            held = quote.worst_case(USAGE.prompt_tokens, USAGE.output_tokens)
            if served == asked:
                assert held >= published_usd(provider, model, asked), stored


HELD_USD = Decimal("0.01")


@given(st.sampled_from(MODELS), answered_names, told)
def test_answers_are_cheap_to_price_and_never_cost_less_than_published(
    pricings: list[Pricing], model: str, answered: str, facts: dict[str, Any]
) -> None:
    provider = "anthropic" if model.startswith("claude") else "openai"
    served = served_by(facts)
    booked: list[tuple[bool, bool, Decimal]] = []

    async def attack() -> None:
        booked.clear()
        for pricing in pricings:
            quote = pricing.quote_answered(provider, model, {}, answered)
            price, certain = quote.settle(USAGE, served)
            usd = quote.booked_usd(price, USAGE, HELD_USD)
            booked.append((quote.understood, certain, usd))

    assert_cheap(attack)
    dearest = most_published_usd(provider, model)
    exact = answered if is_published(provider, answered) else None
    for understood, certain, usd in booked:
        if not understood:
            assert usd >= max(HELD_USD, dearest)
            assert not certain
        elif exact is not None:
            assert usd >= published_usd(provider, exact, served)
        else:
            assert usd >= published_usd(provider, model, served)
        if "service_tier" in served and served["service_tier"] not in KNOWN_TIERS:
            assert not certain
            assert usd >= most_published_usd(provider, exact or model, speed=False)


KNOWN_TIERS = {
    *("", "auto", "default", "standard", "standard_only", "on_demand"),
    *("priority", "flex", "fast", "batch"),
}


def is_published(provider: str, name: str) -> bool:
    """Whether the list itself finds a model with a price for text under a name."""
    (listed,) = [entry for entry in published if entry.id == provider]
    info = listed.find_model(name)
    prices = info.get_prices(datetime.now(UTC), {}) if info else None
    return prices is not None and None not in (prices.input_mtok, prices.output_mtok)


def most_published_usd(provider: str, model: str, *, speed: bool = True) -> Decimal:
    """Return the cost at the most expensive tier, and speed, of the list itself."""
    (listed,) = [entry for entry in published if entry.id == provider]
    info = listed.find_model(model)
    assert info is not None
    cases = [
        {name: value for name, value in variant.when.items() if name in SERVED}
        for variant in info.price_variants or ()
        if variant.when.keys() <= {"service_tier", *(("speed",) if speed else ())}
    ]
    return max(published_usd(provider, model, case) for case in [{}, *cases])


def published_usd(provider: str, model: str, served: dict[str, str]) -> Decimal:
    """Return the cost of the usage by the list itself; an unknown way has the standard price."""
    (listed,) = [entry for entry in published if entry.id == provider]
    info = listed.find_model(model, all_providers=list(published))
    assert info is not None
    facts = {name: value for name, value in served.items() if name != "inference_geo"}
    prices = info.get_prices(datetime.now(UTC), facts)
    rates = (prices.input_mtok, prices.cache_read_mtok or prices.input_mtok, prices.output_mtok)
    counts = (USAGE.input_tokens, USAGE.cached_tokens, USAGE.output_tokens)
    usd = Decimal(0)
    for rate, count in zip(rates, counts, strict=True):
        assert rate is not None
        base = rate if isinstance(rate, Decimal) else rate.base
        usd += base * count / 1_000_000
    return usd

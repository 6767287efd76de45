"""Parameters of calls: cheap to read, and never priced below the provider's own price."""

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
from app.domain.usage import SERVED, Usage
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

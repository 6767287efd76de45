import time
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.costs.pricing import Price, Pricing
from app.domain.policies import CostConfig
from app.domain.usage import Usage
from app.errors import ConfigurationError, UnknownModel

MILLION = 1_000_000
# provider, model, then dollars per million tokens: input, cached input, cache write, output.
# Sources: developers.openai.com/api/docs/pricing, and the model pages and "Pricing" of
# platform.claude.com/docs. OpenAI's older models charge no cache writes; 1.25x then stands in.
GOLDEN = [
    ("openai", "gpt-4o-mini", "0.15", "0.075", "0.1875", "0.60"),
    ("openai", "gpt-4.1", "2", "0.50", "2.5", "8"),
    ("openai", "gpt-5-mini", "0.25", "0.025", "0.3125", "2"),
    ("openai", "gpt-5.2", "1.75", "0.175", "2.1875", "14"),
    ("openai", "gpt-6.1-terra", "1", "0.05", "1.25", "5"),
    ("openai", "o4-mini-2025-04-16", "1.1", "0.275", "1.375", "4.4"),
    ("anthropic", "claude-haiku-4-5-20251001", "1", "0.10", "1.25", "5"),
    ("anthropic", "claude-sonnet-4-6", "3", "0.30", "3.75", "15"),
    ("anthropic", "claude-opus-4-5", "5", "0.50", "6.25", "25"),
    ("anthropic", "claude-opus-5-5", "4", "0.20", "5", "20"),
]
COUNTS = st.integers(0, 10**7)


def flat_price() -> Price:
    return Price(
        version="test",
        input=Decimal("0.000003"),
        cached_input=Decimal("0.0000003"),
        cache_write=Decimal("0.00000375"),
        cache_write_1h=Decimal("0.000006"),
        output=Decimal("0.000015"),
    )


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    return Usage(
        input_tokens=draw(COUNTS),
        cached_tokens=draw(COUNTS),
        cache_write_tokens=draw(COUNTS),
        cache_write_1h_tokens=draw(COUNTS),
        output_tokens=draw(COUNTS),
    )


@pytest.mark.parametrize(("provider", "model", "fresh", "cached", "write", "output"), GOLDEN)
def test_published_prices_are_what_the_providers_say(
    provider: str, model: str, fresh: str, cached: str, write: str, output: str
) -> None:
    pricing = Pricing()

    price = pricing.price_of(provider, model)

    assert price.version.startswith("genai-prices 0.")
    assert price.input * MILLION == Decimal(fresh)
    assert price.cached_input * MILLION == Decimal(cached)
    assert price.cache_write * MILLION == Decimal(write)
    assert price.cache_write_1h == 2 * price.input
    assert price.output * MILLION == Decimal(output)


@given(usages(), usages())
def test_the_costs_of_calls_add_up_to_the_cost_of_their_sum(one: Usage, other: Usage) -> None:
    price = flat_price()

    assert price.cost(one) + price.cost(other) == price.cost(one + other)


@given(usages(), st.integers(0, 10**6), st.booleans())
def test_no_call_costs_more_than_its_worst_case(usage: Usage, slack: int, asked: bool) -> None:
    usage = usage if asked else replace(usage, cache_write_tokens=0, cache_write_1h_tokens=0)
    dearer = replace(flat_price(), input=Decimal("0.000006"), output=Decimal("0.0000225"))
    price = replace(flat_price(), above=((200_000, dearer),))

    worst = price.worst_case(
        usage.prompt_tokens + slack, usage.output_tokens + slack, cache_writes=asked
    )

    assert price.cost(usage) <= worst


def test_a_long_prompt_is_charged_at_its_tier_for_all_tokens() -> None:
    price = Pricing().price_of("anthropic", "claude-sonnet-4-5")

    short = price.cost(Usage(input_tokens=200_000, output_tokens=1000))
    long = price.cost(Usage(input_tokens=150_000, cached_tokens=50_001, output_tokens=1000))

    assert short == Decimal("0.615")
    assert long == 150_000 * Decimal("6e-6") + 50_001 * Decimal("6e-7") + Decimal("0.0225")


def test_the_worst_case_takes_the_dearest_tier_that_the_bound_reaches() -> None:
    price = Pricing().price_of("anthropic", "claude-sonnet-4-5")

    assert price.worst_case(200_000, 1000) == Decimal("0.615")
    assert price.worst_case(200_001, 1000) == 200_001 * Decimal("6e-6") + Decimal("0.0225")


def test_the_worst_case_counts_cache_writes_only_where_they_may_happen() -> None:
    pricing = Pricing()
    asks_first = pricing.price_of("anthropic", "claude-opus-5-5")
    writes_by_itself = pricing.price_of("openai", "gpt-6.1-terra")

    assert pricing.worst_case(asks_first, 1000, 0) == Decimal("0.004")
    assert pricing.worst_case(asks_first, 1000, 0, cache_writes=True) == Decimal("0.008")
    assert pricing.worst_case(writes_by_itself, 1000, 0) == Decimal("0.00125")


def test_the_operators_price_goes_before_the_published_one() -> None:
    own = {"input": 0.1, "output": 0.3, "cached_input": 0.05}
    pricing = Pricing(CostConfig(model_costs={"gpt-4o": own, "vllm/gpt-4o": own | {"input": 0.0}}))

    price = pricing.price_of("openai", "gpt-4o")

    assert price.version == "operator"
    assert price.cost(Usage(input_tokens=1000, output_tokens=1000)) == Decimal("0.4")
    assert price.cost(Usage(cached_tokens=1000)) == Decimal("0.05")
    assert price.cost(Usage(cache_write_tokens=1000)) == Decimal("0.125")
    assert pricing.price_of("vllm", "gpt-4o").input == 0


def test_default_prices_are_for_models_that_nobody_knows() -> None:
    pricing = Pricing(CostConfig(default_input_cost=0.001, default_output_cost=0.002))

    assert pricing.price_of("openai", "gpt-4o").version.startswith("genai-prices")
    assert pricing.price_of("vllm", "llama").version == "operator default"
    assert pricing.calculate_cost("llama", 1000, 1000) == 0.003


def test_an_unknown_model_is_refused_with_a_proposal_and_a_remedy() -> None:
    with pytest.raises(UnknownModel, match=r"model_costs.*did you mean 'gpt-5-mini'\?"):
        Pricing().price_of("openai", "gpt-5-mimi")


def test_a_gateway_does_not_get_the_price_of_the_provider_it_is_named_after() -> None:
    with pytest.raises(UnknownModel, match="of my-openai"):
        Pricing().price_of("my-openai", "gpt-4o")


def test_a_service_tier_has_its_own_price_or_is_refused() -> None:
    pricing = Pricing()
    usual = pricing.price_of("openai", "gpt-5", {"service_tier": "auto", "temperature": 1})

    priority = pricing.price_of("openai", "gpt-5", {"service_tier": "priority"})

    assert usual == pricing.price_of("openai", "gpt-5")
    assert priority.input == 2 * usual.input
    with pytest.raises(UnknownModel, match="service_tier 'scale'"):
        pricing.price_of("openai", "gpt-5", {"service_tier": "scale"})


def test_calculate_cost_is_the_formula_of_the_configuration() -> None:
    pricing = Pricing(CostConfig(model_costs={"gpt-4": {"input": 0.03, "output": 0.06}}))

    assert pricing.calculate_cost("gpt-4", 1500, 500) == 0.075


@pytest.mark.parametrize(
    "prices", [{"input": 1.0}, {"input": -1.0, "output": 1.0}, {"input": 1, "output": 1, "in": 1}]
)
def test_a_wrong_price_of_the_operators_is_refused(prices: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="'gpt-4'"):
        CostConfig(model_costs={"gpt-4": prices})


def test_limits_of_models_are_told_where_they_are_known() -> None:
    pricing = Pricing()

    assert pricing.max_output_tokens("openai", "gpt-4o-mini-2024-07-18") == 16_384
    assert pricing.max_output_tokens("vllm", "llama") is None
    assert pricing.context_window("openai", "gpt-6-luna") == 1_050_000
    assert pricing.context_window("vllm", "llama") is None


def test_a_price_is_looked_up_once_and_then_remembered() -> None:
    pricing = Pricing()
    price = pricing.price_of("openai", "gpt-4o-mini")

    started = time.perf_counter()
    again = [pricing.price_of("openai", "gpt-4o-mini") for _ in range(10_000)]

    assert all(found is price for found in again)
    assert time.perf_counter() - started < 0.2  # 20 us each, ten times what it takes

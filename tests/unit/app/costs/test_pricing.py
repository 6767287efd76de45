import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.application import execute
from app.costs.price_table import price_lines
from app.costs.pricing import Price, Pricing
from app.domain.policies import CostConfig
from app.domain.usage import Usage
from app.errors import ConfigurationError, UnknownModel

MILLION = 1_000_000
OPENAI_PRICES = "https://developers.openai.com/api/docs/pricing"
CLAUDE_PRICES = "https://platform.claude.com/docs/en/about-claude/pricing#model-pricing"
# Provider, model, dollars per million tokens (input, cached input, cache write, cache write for an
# hour, output), and the source page. OpenAI's models before 5.6 charge no cache writes and
# report none; 1.25x and 2x then stand in.
GOLDEN = [
    ("openai", "gpt-4o-mini", "0.15", "0.075", "0.1875", "0.30", "0.60", OPENAI_PRICES),
    ("openai", "gpt-4.1", "2", "0.50", "2.5", "4", "8", OPENAI_PRICES),
    ("openai", "gpt-5-mini", "0.25", "0.025", "0.3125", "0.5", "2", OPENAI_PRICES),
    ("openai", "gpt-5.2", "1.75", "0.175", "2.1875", "3.5", "14", OPENAI_PRICES),
    ("openai", "gpt-6-luna", "0.1", "0.01", "0.125", "0.2", "0.5", OPENAI_PRICES),
    ("openai", "gpt-6-astra", "10", "1", "12.5", "20", "50", OPENAI_PRICES),
    ("openai", "gpt-6.1-sol", "2", "0.1", "2.5", "4", "10", OPENAI_PRICES),
    ("openai", "gpt-6.1-terra", "1", "0.05", "1.25", "2", "5", OPENAI_PRICES),
    ("openai", "o4-mini-2025-04-16", "1.1", "0.275", "1.375", "2.2", "4.4", OPENAI_PRICES),
    ("anthropic", "claude-haiku-4-5-20251001", "1", "0.10", "1.25", "2", "5", CLAUDE_PRICES),
    ("anthropic", "claude-sonnet-4-6", "3", "0.30", "3.75", "6", "15", CLAUDE_PRICES),
    ("anthropic", "claude-sonnet-5", "2", "0.20", "2.5", "4", "10", CLAUDE_PRICES),
    ("anthropic", "claude-sonnet-5-5", "2", "0.10", "2.5", "4", "10", CLAUDE_PRICES),
    ("anthropic", "claude-opus-4-5", "5", "0.50", "6.25", "10", "25", CLAUDE_PRICES),
    ("anthropic", "claude-opus-5-5", "4", "0.20", "5", "8", "20", CLAUDE_PRICES),
    ("anthropic", "claude-fable-5-2", "8", "0.20", "10", "16", "40", CLAUDE_PRICES),
    ("anthropic", "claude-haiku-5-5", "0.1", "0.01", "0.125", "0.2", "0.5", CLAUDE_PRICES),
]
# The same pages' bill of one call: 1,000 fresh tokens, 20,000 cached, 3,000 written for 5 minutes,
# 400 for an hour (Anthropic only), 500 generated, of which 200 were reasoning.
GOLDEN_CALLS = [
    ("openai", "gpt-4o-mini", "0.0025125"),
    ("openai", "gpt-6.1-sol", "0.0165"),
    ("openai", "gpt-6.1-terra", "0.00825"),
    ("openai", "gpt-6-luna", "0.000925"),
    ("anthropic", "claude-haiku-4-5", "0.01005"),
    ("anthropic", "claude-sonnet-5", "0.0201"),
    ("anthropic", "claude-sonnet-5-5", "0.0181"),
    ("anthropic", "claude-opus-5-5", "0.0362"),
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


@pytest.mark.parametrize(
    ("provider", "model", "fresh", "cached", "write", "write_1h", "output", "source"), GOLDEN
)
def test_published_prices_are_what_the_providers_say(
    provider: str,
    model: str,
    fresh: str,
    cached: str,
    write: str,
    write_1h: str,
    output: str,
    source: str,
) -> None:
    pricing = Pricing()

    price = pricing.price_of(provider, model)

    rates = [price.input, price.cached_input, price.cache_write, price.cache_write_1h, price.output]
    assert price.version.startswith("genai-prices 0.")
    assert [rate * MILLION for rate in rates] == [
        Decimal(rate) for rate in (fresh, cached, write, write_1h, output)
    ], source


@pytest.mark.parametrize(("provider", "model", "dollars"), GOLDEN_CALLS)
def test_a_call_with_cached_and_written_tokens_costs_what_the_provider_bills(
    provider: str, model: str, dollars: str
) -> None:
    usage = Usage(
        input_tokens=1000,
        cached_tokens=20_000,
        cache_write_tokens=3000,
        cache_write_1h_tokens=400 if provider == "anthropic" else 0,
        output_tokens=500,
        reasoning_tokens=200,
    )

    price = Pricing().price_of(provider, model)

    assert price.cost(usage) == Decimal(dollars)
    whole = price.input * usage.prompt_tokens + price.output * usage.output_tokens
    assert price.saving(usage) == whole - Decimal(dollars)


@pytest.mark.parametrize(
    "model", ["gpt-5-mini", "gpt-6.1-terra", "claude-sonnet-5", "gpt-3.5-0301"]
)
def test_a_batch_costs_half(model: str) -> None:
    pricing = Pricing()

    usual = pricing.calculate_cost(model, 100_000, 10_000)
    batch = pricing.calculate_cost(model, 100_000, 10_000, batch=True)

    assert batch == usual / 2


def test_the_operators_prices_hold_from_their_dates_on() -> None:
    dated: list[dict[str, float | str]] = [
        {"input": 2.0, "output": 8.0},
        {"from": "2026-07-01", "input": 1.5, "output": 6, "cached_input": 0.25},
        {"from": "2026-09-01T12:00:00+02:00", "input": 1, "output": 4},
    ]
    pricing = Pricing(CostConfig(model_prices={"gpt-4o": dated, "openai/late": dated[2:]}))

    def at(time: str) -> Price:
        return pricing.price_of("openai", "gpt-4o", at=datetime.fromisoformat(time))

    first, second, third = at("2020-01-01T00Z"), at("2026-07-01T00Z"), at("2026-09-01T10Z")
    assert (first.input, first.cached_input) == (Decimal("2e-6"), Decimal("2e-6"))
    assert at("2026-06-30T23:59Z") == first
    assert (second.input, second.cached_input) == (Decimal("1.5e-6"), Decimal("2.5e-7"))
    assert second.version == "operator from 2026-07-01"
    assert at("2026-09-01T09:59Z") == second
    assert third.input == Decimal("1e-6")
    with pytest.raises(UnknownModel, match="model_prices"):
        pricing.price_of("openai", "late", at=datetime(2026, 8, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("dated", "message"),
    [
        ([{"input": 1.0}], "has 'input'"),
        ([{"from": "soon", "input": 1, "output": 1}], "from is 'soon': give a date"),
        ([{"from": 2026, "input": 1, "output": 1}], "from is 2026: give a date"),
        ([{"input": 1, "output": 1}, {"input": 2, "output": 1}], "two prices without a date"),
        ([{"input": "much", "output": 1}], "input is 'much'"),
    ],
)
def test_wrong_dated_prices_are_refused(dated: list[dict[str, float | str]], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'gpt-4'.*{message}"):
        CostConfig(model_prices={"gpt-4": dated})


def test_a_model_has_its_own_price_in_one_table_only() -> None:
    price = {"input": 1.0, "output": 1.0}

    with pytest.raises(ConfigurationError, match="both have 'gpt-4'"):
        CostConfig(model_costs={"gpt-4": price}, model_prices={"gpt-4": [price]})


def test_the_table_of_prices_says_who_set_them() -> None:
    own: dict[str, Any] = {"gpt-4o": [{"from": "2026-01-01", "input": 1, "output": 4}]}
    pricing = Pricing(CostConfig(model_prices=own))

    lines = {f"{line.provider}/{line.model}": line for line in price_lines(pricing)}
    usual, batch = price_lines(pricing, "gpt-4o")
    long = price_lines(pricing, "gpt-6-luna")[1]

    assert len(lines) > 100
    assert lines["openai/gpt-4o"] == usual
    assert (usual.source, usual.set_by) == (
        "operator from 2026-01-01",
        "costs.model_prices: gpt-4o",
    )
    assert usual.input == 1
    assert usual.published == (Decimal("2.5"), Decimal(10))
    assert batch.case == "batch"
    assert batch.output == 2
    assert (long.case, long.input, long.output) == (
        "prompts above 272,000",
        Decimal("0.2"),
        Decimal("0.75"),
    )
    assert lines["anthropic/claude-sonnet-5"].set_by is None
    assert {line.provider for line in price_lines(pricing, "claude-*")} == {"anthropic"}
    with pytest.raises(UnknownModel, match="no model matches 'gpt-99"):
        price_lines(pricing, "gpt-99*")


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


def test_the_worst_case_takes_the_most_expensive_tier_that_the_bound_reaches() -> None:
    price = Pricing().price_of("anthropic", "claude-sonnet-4-5")

    assert price.worst_case(200_000, 1000) == Decimal("0.615")
    assert price.worst_case(200_001, 1000) == 200_001 * Decimal("6e-6") + Decimal("0.0225")


def test_the_worst_case_counts_cache_writes_only_where_they_may_happen() -> None:
    pricing = Pricing()
    asks_first = pricing.price_of("anthropic", "claude-opus-5-5")
    writes_by_itself = pricing.price_of("openai", "gpt-6.1-terra")

    assert asks_first.worst_case(1000, 0) == Decimal("0.004")
    assert asks_first.worst_case(1000, 0, cache_writes=True) == Decimal("0.008")
    assert writes_by_itself.worst_case(1000, 0) == Decimal("0.00125")


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

    started = time.process_time()
    again = [pricing.price_of("openai", "gpt-4o-mini") for _ in range(10_000)]

    assert all(found is price for found in again)
    assert time.process_time() - started < 0.2  # 20 us each, ten times the real time


@pytest.mark.parametrize("name", ["service_tier", "speed", "inference_geo"])
def test_the_text_none_is_no_missing_value_also_after_a_request_without_one(name: str) -> None:
    pricing = Pricing()
    pricing.quote("anthropic", "claude-sonnet-4-6", {})

    with pytest.raises(UnknownModel, match="'None'"):
        pricing.quote("anthropic", "claude-sonnet-4-6", {name: "None"})


def test_the_command_shows_what_holds_and_what_sets_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"model_costs": {"gpt-4o": {"input": 0.001, "output": 0.004}}}
    monkeypatch.setenv("AGENTCHORD_COSTS", json.dumps(own))

    codes = [execute(["prices", "gpt-4o"]), execute(["prices", "claude-sonnet-5", "--json"])]

    table, _, rest = capsys.readouterr().out.partition("[")
    (usual, batch) = json.loads(f"[{rest}")
    assert codes == [0, 0]
    assert table.splitlines()[1].split() == [
        *("openai/gpt-4o", "1", "1", "1.25", "2", "4", "operator"),
        *("costs.model_costs:", "gpt-4o", "2.5", "/", "10"),
    ]
    assert usual["per_million_tokens"] == {
        "input_usd": "2",
        "cached_input_usd": "0.2",
        "cache_write_usd": "2.5",
        "cache_write_1h_usd": "4",
        "output_usd": "10",
    }
    assert (usual["case"], usual["set_by"], usual["published"]) == ("usual", None, None)
    assert (batch["case"], batch["per_million_tokens"]["output_usd"]) == ("batch", "5")


def test_the_command_proposes_a_model_for_one_that_it_does_not_know(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = execute(["prices", "gpt-5-mimi"])

    assert code == 1
    assert "did you mean 'gpt-5-mini'?" in capsys.readouterr().err

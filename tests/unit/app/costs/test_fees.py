"""What a price list says is held and booked, or the model is refused; nothing in it is free."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from genai_prices.data import providers as published
from genai_prices.types import ModelPrice
from hypothesis import given
from hypothesis import strategies as st

from app import Agent
from app.costs.price import Price
from app.costs.price_list import UNITS, PriceList
from app.costs.pricing import Pricing
from app.domain.policies import CostConfig
from app.domain.usage import Usage
from app.errors import ConfigurationError, UnknownModel

NOW = datetime.now(UTC)
PER_MILLION = Decimal("0.000001")
COUNTS = st.integers(0, 10**6)
RATE = st.decimals(0, 100, places=4)
FIELDS = ("input", "cached_input", "cache_write", "cache_write_1h", "output", "reasoning")
FEES = ("citation", "request", "web_search")
BILLS_A_BLOCK = re.compile(r"gpt-4(?:o|\.1)-mini")


@st.composite
def prices(draw: st.DrawFn) -> Price:
    def flat() -> dict[str, Any]:
        rates = {name: draw(RATE) for name in (*FIELDS, *FEES)}
        return {**rates, "container_hour": draw(st.none() | RATE)}

    price = Price(
        version="test",
        **flat(),
        max_citation_tokens=draw(COUNTS),
        max_web_searches=draw(st.integers(0, 100)),
        writes_unasked=draw(st.booleans()),
    )
    above = sorted(draw(st.sets(COUNTS, max_size=2)))
    return replace(price, above=tuple((start, replace(price, **flat())) for start in above))


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    output = draw(COUNTS)
    return Usage(
        input_tokens=draw(COUNTS),
        cached_tokens=draw(COUNTS),
        cache_write_tokens=draw(COUNTS),
        cache_write_1h_tokens=draw(COUNTS),
        output_tokens=output,
        reasoning_tokens=draw(st.integers(0, output)),
        citation_tokens=draw(COUNTS),
        web_searches=draw(st.integers(0, 200)),
        container_seconds=draw(COUNTS),
    )


@given(prices(), usages(), st.integers(0, 1000))
def test_no_call_costs_more_than_its_worst_case_with_all_its_fees(
    price: Price, usage: Usage, slack: int
) -> None:
    price = replace(price, max_citation_tokens=usage.citation_tokens + slack)
    asked = max(usage.web_searches - price.max_web_searches, 0)

    worst = price.worst_case(
        usage.prompt_tokens + slack,
        usage.output_tokens + slack,
        cache_writes=True,
        web_searches=asked,
        container_seconds=usage.container_seconds + slack,
    )

    assert price.cost(usage) <= worst


@given(prices(), prices(), usages())
def test_the_dearer_of_two_prices_is_below_neither(one: Price, other: Price, usage: Usage) -> None:
    both = one.or_dearer(other)

    assert both.cost(usage) >= max(one.cost(usage), other.cost(usage))


@given(prices(), usages(), st.decimals("0.1", 10, places=2))
def test_a_factor_changes_tokens_and_no_fee(price: Price, usage: Usage, factor: Decimal) -> None:
    fees = usage.web_searches * price.at(usage.prompt_tokens).web_search
    fees += price.at(usage.prompt_tokens).request
    fees += price.at(usage.prompt_tokens).containers_usd(usage.container_seconds)

    tokens = price.cost(usage) - fees

    assert price.times(factor).cost(usage) == tokens * factor + fees


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The prices of the only model, "m" of "acme", in a price list of one model."""
    rates: dict[str, Any] = {"input_mtok": Decimal(1), "output_mtok": Decimal(2)}
    info = SimpleNamespace(
        price_variants=[], context_window=None, get_prices=lambda *_: ModelPrice(**rates)
    )
    monkeypatch.setattr(
        PriceList, "_model", lambda _, provider, model: info if model == "m" else None
    )
    return rates


#: What cannot occur, because requests have no sound or video and ask for no such tool.
CANNOT_OCCUR = (
    *("input_audio_mtok", "input_video_mtok", "cache_audio_read_mtok", "input_audio_hours"),
    *("storage_searches_kcount", "code_executions_kcount"),
)


@pytest.mark.parametrize(
    "unit",
    [
        *("output_image_mtok", "output_audio_mtok", "output_citation_mtok", "input_mchars"),
        *("input_text_messages_kcount", "audio_hours", "a_unit_of_next_year"),
        *("input_image_mtok", "cache_image_read_mtok", "input_document_kpages"),
    ],
)
@pytest.mark.parametrize("default", [None, 1.0])
def test_a_unit_that_is_not_known_is_refused_with_the_remedy(
    listed: dict[str, Any], unit: str, default: float | None
) -> None:
    listed[unit] = Decimal(3)
    pricing = Pricing(CostConfig(default_input_cost=default, default_output_cost=default))

    with pytest.raises(UnknownModel, match=f"{unit}.*model_prices"):
        pricing.price_of("acme", "m")

    own = CostConfig(model_prices={"acme/m": [{"input": 1, "output": 5}]})
    assert Pricing(own).price_of("acme", "m").output == 5 * PER_MILLION


@pytest.mark.parametrize(("rate", "priced"), [("1", True), ("1.01", False)])
def test_an_image_has_the_rate_of_text_or_is_refused(
    listed: dict[str, Any], rate: str, priced: bool
) -> None:
    listed["input_image_mtok"] = Decimal(rate)

    assert (PriceList().find("acme", "m", {}, NOW) is not None) is priced


@given(unit=st.from_regex(r"\A[a-z]{1,12}(_[a-z0-9]{1,9}){0,3}\Z"), rate=st.decimals("0.0001", 99))
def test_no_unit_of_the_list_is_free(unit: str, rate: Decimal) -> None:
    rates = {"input_mtok": Decimal(1), "output_mtok": Decimal(2)} | {unit: rate}
    model = SimpleNamespace(price_variants=[], get_prices=lambda *_: ModelPrice(**rates))
    prices = PriceList()
    prices._model = lambda *_: model  # type: ignore[method-assign, assignment]

    price = prices.find("acme", "m", {}, NOW)

    impossible = unit in CANNOT_OCCUR or unit.startswith(("input_audio_", "input_video_"))
    assert price is None or unit in UNITS or impossible


@pytest.mark.parametrize(
    "model",
    [
        *("gpt-4o-search-preview", "gpt-5-search-api", "gpt-9-Search-mini", "groq/compound"),
        *("o9-deep-research", "gpt-5:online", "llama-3.1-small-128k-online", "acme/sonar-pro"),
    ],
)
def test_a_model_that_searches_in_every_call_needs_a_price_with_a_fee(model: str) -> None:
    own = {"input": 2.5, "output": 10, "requests": 25}
    tokens = {"input": 2.5, "output": 10}
    default = CostConfig(default_input_cost=1, default_output_cost=1)

    for prices in (CostConfig(), default, CostConfig(model_prices={model: [tokens]})):
        for provider in ("openai", "openrouter", "acme"):
            with pytest.raises(UnknownModel, match=r"model_prices|model_costs"):
                Pricing(prices).price_of(provider, model)

    bounded = tokens | {"web_searches": 10, "max_web_searches": 3}
    held = Pricing(CostConfig(model_prices={model: [bounded]})).price_of("openai", model)
    assert held.worst_case(0, 0) == Decimal("0.03")
    price = Pricing(CostConfig(model_prices={model: [own]})).price_of("openai", model)
    assert price.cost(Usage()) == price.worst_case(0, 0) == Decimal("0.025")


@pytest.mark.parametrize("unit", CANNOT_OCCUR)
def test_a_unit_that_cannot_occur_does_not_matter(listed: dict[str, Any], unit: str) -> None:
    listed[unit] = Decimal(1000)

    assert Pricing().price_of("acme", "m").input == PER_MILLION


def test_the_fees_of_the_list_are_held_and_booked(listed: dict[str, Any]) -> None:
    listed |= {"requests_kcount": Decimal(12), "web_searches_kcount": Decimal(10)}
    listed["output_reasoning_mtok"] = Decimal(3)
    price = Pricing().price_of("acme", "m")
    usage = Usage(input_tokens=1000, output_tokens=500, reasoning_tokens=100, web_searches=3)

    assert price.cost(usage) == Decimal("0.012") + Decimal("0.03") + Decimal("0.0021")
    assert price.worst_case(1000, 500) == Decimal("0.012") + Decimal("0.0025")
    assert price.worst_case(1000, 500, web_searches=3) >= price.cost(usage)


def test_every_published_fee_of_a_priced_model_is_in_its_price() -> None:
    prices = PriceList()
    seen = set()

    for provider in published:
        for model in provider.models:
            info = prices._model(provider.id, model.id)
            price = prices.find(provider.id, model.id, {}, NOW)
            if price is None or info is None:
                continue
            rates = info.get_prices(NOW)
            searches, requests = rates.web_searches_kcount, rates.requests_kcount
            # OpenAI bills a block of 8,000 input tokens for each search of its small models.
            block = 8000 * price.input if searches and BILLS_A_BLOCK.search(model.id) else 0
            assert (price.web_search - block) * 1000 == (searches or 0), model.id
            assert price.request * 1000 == (requests or 0), model.id
            seen |= {bool(searches), bool(requests)}

    assert seen == {True, False}
    assert prices.find("perplexity", "sonar", {}, NOW).request == Decimal("0.012")  # type: ignore[union-attr]
    assert prices.find("perplexity", "sonar-deep-research", {}, NOW) is None


@pytest.mark.parametrize(
    ("provider", "model", "usd"),
    [("openai", "gpt-5.4-mini", "0.09"), ("anthropic", "claude-haiku-4-5", "0.05")],
)
def test_an_hour_of_a_container_has_its_published_fee(provider: str, model: str, usd: str) -> None:
    price = Pricing().price_of(provider, model)

    assert price.container_hour == Decimal(usd)
    assert price.cost(Usage(container_seconds=3600)) == Decimal(usd)
    assert Pricing().price_of(provider, model, batch=True).container_hour == Decimal(usd)


def test_no_fee_of_a_container_is_rounded_down() -> None:
    price = Pricing().price_of("anthropic", "claude-haiku-4-5")

    fee = price.cost(Usage(container_seconds=60))

    assert fee * 60 >= Decimal("0.05") > (fee - Decimal("1e-11")) * 60


def test_containers_without_a_known_fee_are_refused_until_the_operator_gives_it() -> None:
    def agent(provider: str, *tools: Any) -> Agent:
        config = {"model": "m", "provider": provider}
        return Agent(name="a", prompt_template="Go.", llm_config=config, tools=list(tools))

    program = agent("acme", {"server": "code_execution"})
    own: dict[str, Any] = {"input": 1, "output": 2}

    with pytest.raises(UnknownModel, match=r"no fee for containers.*container_hours"):
        Pricing(CostConfig(model_prices={"m": [own]})).check_fees(program)

    for usd in (0, 0.05):
        given_ = Pricing(CostConfig(model_prices={"m": [own | {"container_hours": usd}]}))
        given_.check_fees(program)
        assert given_.price_of("acme", "m").cost(Usage(container_seconds=7200)) == 2 * Decimal(
            str(usd)
        )
    Pricing(CostConfig(model_prices={"m": [own]})).check_fees(agent("acme", "look_up"))


@pytest.mark.parametrize(
    ("usd", "seconds", "certain"), [(0.05, 360, False), (0.05, 0, True), (0, 360, True)]
)
def test_the_fee_of_a_container_is_no_fact(usd: float, seconds: int, certain: bool) -> None:
    own = {"input": 1, "output": 2, "container_hours": usd}
    quote = Pricing(CostConfig(model_prices={"m": [own]})).quote("acme", "m")

    settled = quote.settle(Usage(input_tokens=10, container_seconds=seconds), {})

    assert settled.certain is certain


def test_a_case_that_no_answer_tells_has_the_dearest_price() -> None:
    (model,) = (
        model
        for provider in published
        for model in provider.models
        if any("route" in variant.when for variant in model.price_variants or ())
    )

    price = Pricing().published("openrouter", model.id)

    assert price is not None
    route = model.get_prices(NOW, {"route": "mistral/eu"})
    assert price.output * 1_000_000 == route.output_mtok > model.get_prices(NOW).output_mtok  # type: ignore[operator]


def test_the_operator_gives_the_same_fees() -> None:
    own: dict[str, Any] = {
        "input": 1,
        "output": 8,
        "reasoning": 3,
        "citation": 2,
        "max_citation_tokens": 50_000,
        "requests": 5,
        "web_searches": 10,
        "max_web_searches": 4,
    }
    price = Pricing(CostConfig(model_prices={"acme/m": [own]})).price_of("acme", "m")
    usage = Usage(
        input_tokens=1_000_000,
        output_tokens=1000,
        reasoning_tokens=400,
        citation_tokens=20_000,
        web_searches=3,
    )

    assert price.cost(usage) == 1 + Decimal("0.0048") + Decimal("0.0012") + Decimal("0.04") + (
        Decimal("0.005") + Decimal("0.03")
    )
    assert price.worst_case(0, 0) == Decimal("0.1") + Decimal("0.005") + Decimal("0.04")
    assert price.worst_case(1_000_000, 1000, web_searches=0) >= price.cost(usage)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"request": 1}, "give 'input' and 'output', and optionally .*'requests'"),
        ({"requests": -1}, "requests is -1"),
        ({"container_hours": -1}, "container_hours is -1"),
        ({"max_web_searches": -1}, "max_web_searches is -1"),
        ({"citation": 1}, "'citation' without 'max_citation_tokens'"),
        ({"factors": 2}, "factors is 2: give factors under 'service_tier'"),
        ({"factors": {"tier": {"flex": 0.5}}}, "give factors under 'service_tier'"),
        ({"factors": {"speed": 2}}, "factors.speed is 2: give a factor for each value"),
        ({"factors": {"speed": {"fast": -2}}}, "factors.speed: fast is -2"),
    ],
)
def test_a_wrong_fee_of_the_operator_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CostConfig(model_costs={"m": {"input": 1, "output": 1, **wrong}})

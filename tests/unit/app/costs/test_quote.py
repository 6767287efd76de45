"""What may be served is held, and what was served is booked."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.costs.pricing import Pricing
from app.costs.quote import asked_of
from app.domain.policies import CostConfig
from app.domain.providers import Provider
from app.domain.usage import SERVED, Usage, served_by
from app.errors import UnknownModel

PRICING = Pricing()
AS_THE_ACCOUNT = Pricing(
    None, [Provider(name=name, protocol=name, service_tier="auto") for name in ("openai",)]
)
USAGE = Usage(input_tokens=1000, cached_tokens=500, output_tokens=300, reasoning_tokens=100)
OWN: dict[str, Any] = {"input": 2, "output": 10}


def cost(model: str, served: dict[str, str], pricing: Pricing = PRICING, **params: Any) -> Decimal:
    provider = "anthropic" if "claude" in model else "openai"
    return pricing.quote(provider, model, params).settle(USAGE, served).price.cost(USAGE)


def certain(model: str, served: dict[str, str], **params: Any) -> bool:
    provider = "anthropic" if "claude" in model else "openai"
    return PRICING.quote(provider, model, params).settle(USAGE, served).certain


USUAL = cost("gpt-5", {"service_tier": "default"})


@pytest.mark.parametrize(
    ("asked", "served", "times"),
    [
        ("priority", "priority", 2),
        ("priority", "default", 1),  # a downgrade
        ("fast", "priority", 2),
        ("flex", "flex", "0.5"),
        ("flex", "default", 1),
        ("auto", "priority", 2),  # by the settings of the project
        ("auto", "default", 1),
        (None, "default", 1),
        (None, "priority", 2),  # against the request; the answer is a fact
    ],
)
def test_the_tier_that_was_served_is_priced(
    asked: str | None, served: str, times: str | int
) -> None:
    assert cost("gpt-5", {"service_tier": served}, service_tier=asked) == USUAL * Decimal(times)
    assert certain("gpt-5", {"service_tier": served}, service_tier=asked)


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        *(("auto", tier) for tier in ("scale", "ultrafast", "auto", None)),
        ("priority", None),
        ("priority", "scale"),
    ],
)
def test_a_tier_that_is_not_told_or_has_no_price_is_an_estimate_at_the_dearest(
    asked: str, served: str | None
) -> None:
    told = served_by({"service_tier": served})

    assert cost("gpt-5", told, service_tier=asked) == USUAL * 2
    assert not certain("gpt-5", told, service_tier=asked)


def test_a_request_names_the_tier_that_is_held_where_there_are_others() -> None:
    unasked, auto = PRICING.quote("openai", "gpt-5"), AS_THE_ACCOUNT.quote("openai", "gpt-5")
    asked = PRICING.quote("openai", "gpt-5", {"service_tier": "auto"})

    assert unasked.service_tier == "default"
    assert (auto.service_tier, asked.service_tier) == (None, None)
    assert unasked.worst_case(1000, 100) == unasked.usual.worst_case(1000, 100)
    assert auto.worst_case(1000, 100) == asked.worst_case(1000, 100)
    assert auto.worst_case(1000, 100) == 2 * unasked.worst_case(1000, 100)
    assert auto.usual == unasked.usual
    assert PRICING.quote("openai", "gpt-3.5-turbo").service_tier is None  # there is only one tier


def test_an_operator_may_choose_a_tier_for_a_provider() -> None:
    flex = Pricing(None, [Provider(name="openai", protocol="openai", service_tier="flex")])

    quote = flex.quote("openai", "gpt-5")

    assert quote.service_tier == "flex"
    assert quote.usual == PRICING.price_of("openai", "gpt-5", {"service_tier": "flex"})
    assert flex.quote("openai", "gpt-5", {"service_tier": "priority"}).service_tier is None


@pytest.mark.parametrize(
    ("asked", "served", "times", "known"),
    [
        (None, "global", "1", True),
        (None, "us", "1.1", True),  # the workspace's default_inference_geo
        (None, None, "1.1", False),
        (None, "mars", "1.1", False),
        ("us", "us", "1.1", True),
        ("us", None, "1.1", True),
        ("global", "global", "1", True),
        ("global", None, "1", True),
    ],
)
def test_a_region_with_a_surcharge_is_held_and_priced(
    asked: str | None, served: str | None, times: str, known: bool
) -> None:
    usual = PRICING.price_of("anthropic", "claude-opus-5-5").cost(USAGE)
    told = served_by({"inference_geo": served})
    quote = PRICING.quote("anthropic", "claude-opus-5-5", {"inference_geo": asked})

    assert cost("claude-opus-5-5", told, inference_geo=asked) == usual * Decimal(times)
    assert certain("claude-opus-5-5", told, inference_geo=asked) is known
    held = quote.worst_case(USAGE.prompt_tokens, USAGE.output_tokens)
    assert held >= cost("claude-opus-5-5", told, inference_geo=asked)


def test_older_models_have_no_regions() -> None:
    quote = PRICING.quote("anthropic", "claude-haiku-4-5")

    assert quote.possible == [quote.usual]
    assert quote.settle(USAGE, {"inference_geo": "not_available"}).certain
    with pytest.raises(UnknownModel, match="no price for inference_geo 'us'"):
        PRICING.quote("anthropic", "claude-haiku-4-5", {"inference_geo": "us"})
    with pytest.raises(UnknownModel, match="no price for inference_geo 'eu'"):
        PRICING.quote("anthropic", "claude-opus-5-5", {"inference_geo": "eu"})


def test_speed_and_region_multiply_and_a_fast_request_may_be_served_at_standard_speed() -> None:
    usual = PRICING.price_of("anthropic", "claude-opus-5-5").cost(USAGE)
    here = {"inference_geo": "global"}

    def fast(**served: str) -> Decimal:
        return cost("claude-opus-5-5", here | served, speed="fast")

    assert fast(speed="fast") == 2 * usual
    assert fast(speed="standard") == usual
    assert fast(speed="fast", inference_geo="us") == usual * Decimal("2.2")
    assert fast() == 2 * usual
    assert not certain("claude-opus-5-5", here, speed="fast")


def test_a_tier_of_anthropic_without_a_published_price_is_an_estimate() -> None:
    told = {"inference_geo": "global", "service_tier": "priority"}

    assert cost("claude-opus-5-5", told) > 0
    assert not certain("claude-opus-5-5", told)
    assert certain("claude-opus-5-5", told | {"service_tier": "standard"})


def test_an_own_price_applies_to_the_standard_and_to_what_has_a_factor() -> None:
    flat = Pricing(CostConfig(model_prices={"gpt-5": [OWN]}))
    factors = {"service_tier": {"priority": 1.5}, "inference_geo": {"us": 1.2}}
    given = Pricing(CostConfig(model_prices={"gpt-5": [OWN | {"factors": factors}]}))
    priority = {"service_tier": "priority"}

    geo = given.quote("openai", "gpt-5", priority)

    assert flat.quote("openai", "gpt-5").usual.input * 1_000_000 == 2
    assert not flat.quote("openai", "gpt-5").settle(USAGE, priority).certain
    assert given.price_of("openai", "gpt-5", priority).input * 1_000_000 == 3
    assert geo.worst_case(1_000_000, 0) == 3 * Decimal("1.2")
    assert geo.settle(USAGE, priority | {"inference_geo": "global"}).price.input * 1_000_000 == 3
    with pytest.raises(UnknownModel, match="no price for service_tier 'flex'"):
        given.price_of("openai", "gpt-5", {"service_tier": "flex"})


def test_an_agent_leaves_its_tier_to_the_account_only_if_every_tier_has_a_price() -> None:
    auto = {"service_tier": "auto"}
    every = {"service_tier": dict.fromkeys(["flex", "priority", "fast", "batch"], 2)}
    flat = Pricing(CostConfig(model_prices={"gpt-5": [OWN]}))
    whole = Pricing(CostConfig(model_prices={"gpt-5": [OWN | {"factors": every}]}))

    with pytest.raises(UnknownModel, match="no price for service_tier 'auto'"):
        flat.price_of("openai", "gpt-5", auto)

    assert whole.quote("openai", "gpt-5", auto).worst_case(1_000_000, 0) == 4
    assert PRICING.quote("openai", "gpt-5", auto).worst_case(1, 0) > 0


STANDARDS = {"default", "standard", "standard_only", "on_demand", "auto", "global", "not_available"}


@given(
    st.sampled_from([("openai", "gpt-5"), ("openai", "o1-pro"), ("anthropic", "claude-opus-5-5")])
    | st.tuples(st.sampled_from(["vllm", "openai"]), st.text(min_size=1, max_size=9)),
    st.sampled_from(SERVED),
    st.sampled_from(["priority", "fast", "FLEX", "priority ", "scale", "us"])
    | st.text(max_size=9)
    | st.lists(st.text(max_size=3)),
)
def test_a_way_of_serving_without_a_price_of_its_own_is_refused(
    model: tuple[str, str], fact: str, value: object
) -> None:
    own = Pricing(CostConfig(model_prices={"*": [OWN], model[1]: [OWN]}))
    default = Pricing(CostConfig(default_input_cost=0.001, default_output_cost=0.002))

    for pricing in (own, default):
        try:
            found = pricing.price_of(*model, {fact: value})
        except UnknownModel:
            continue
        assert value in STANDARDS or found.version.startswith("genai-prices")


MODELS = [
    ("openai", "gpt-5"),
    ("openai", "gpt-5.4"),
    ("openai", "gpt-6.1-terra"),
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-opus-5-5"),
    ("anthropic", "claude-haiku-5-5"),
    ("anthropic", "claude-haiku-4-5"),
]
COUNTS = st.integers(0, 400_000)
TOLD = (
    st.none()
    | st.sampled_from(
        [
            "default",
            "standard",
            "priority",
            "flex",
            "fast",
            "scale",
            "batch",
            "auto",
            "us",
            "global",
        ]
    )
    | st.text(max_size=5)
)


@given(
    st.sampled_from(MODELS),
    st.sampled_from([None, "auto", "priority", "flex", "default"]),
    st.sampled_from([None, "us", "global"]),
    st.fixed_dictionaries(dict.fromkeys(SERVED, TOLD)),
    st.builds(
        Usage,
        input_tokens=COUNTS,
        cached_tokens=COUNTS,
        cache_write_tokens=COUNTS,
        cache_write_1h_tokens=COUNTS,
        output_tokens=COUNTS,
    ),
    st.sampled_from([PRICING, AS_THE_ACCOUNT]),
)
def test_an_answer_costs_at_most_the_hold_or_tells_what_was_not_asked_for(
    model: tuple[str, str],
    tier: str | None,
    region: str | None,
    told: dict[str, str | None],
    usage: Usage,
    pricing: Pricing,
) -> None:
    params = {"service_tier": tier, "inference_geo": region}
    try:
        quote = pricing.quote(*model, params)
    except UnknownModel:
        return
    served = served_by(told)

    price = quote.settle(usage, served).price

    held = quote.worst_case(usage.prompt_tokens, usage.output_tokens, cache_writes=True)
    cheapest = min(price.cost(usage) for price in quote.prices.values())
    assert price.cost(usage) >= cheapest
    assert cheapest > 0 or not usage.total_tokens
    facts = [
        (way, value and asked_of(name, value))
        for name, way in zip(SERVED, quote.ways, strict=True)
        for value in [served.get(name)]
    ]
    if all(not value or value in way.possible for way, value in facts):
        assert price.cost(usage) <= held
    # A value without a price stands for every value that has a price, also if it was not asked for.
    unknown = [bool(value) and value not in way.priced for way, value in facts]
    known = [
        priced.cost(usage)
        for key, priced in quote.prices.items()
        if all(
            is_unknown or value is None or told == value
            for is_unknown, told, (_, value) in zip(unknown, key, facts, strict=True)
        )
    ]
    if any(unknown) and all(
        is_unknown or value is not None
        for is_unknown, (_, value) in zip(unknown, facts, strict=True)
    ):
        assert price.cost(usage) >= max(known)
        assert not quote.settle(usage, served).certain
    assert price.cost(usage) <= max(each.cost(usage) for each in quote.prices.values())


@pytest.mark.parametrize("told", ["ultra", "Priority", "priority ", "scale", "batch", "\0"])
@pytest.mark.parametrize("asked", [None, "default", "flex", "priority", "auto"])
def test_an_unknown_tier_is_booked_as_the_dearest_known_tier(asked: str | None, told: str) -> None:
    quote = PRICING.quote("openai", "gpt-5", {"service_tier": asked})

    settled = quote.settle(USAGE, {"service_tier": told})

    assert settled.price.cost(USAGE) == 2 * USUAL
    assert not settled.certain


@pytest.mark.parametrize("told", [5, True, False, ["default"], {"tier": "default"}, 0.5])
def test_a_tier_that_is_no_text_is_an_unknown_tier(told: object) -> None:
    settled = PRICING.quote("openai", "gpt-5").settle(USAGE, served_by({"service_tier": told}))

    assert (settled.price.cost(USAGE), settled.certain) == (2 * USUAL, False)


def test_an_own_price_without_factors_does_not_make_an_unknown_tier_cheap() -> None:
    own = Pricing(CostConfig(model_prices={"gpt-5": [{"input": 0.1, "output": 0.1}]}))

    settled = own.quote("openai", "gpt-5").settle(USAGE, {"service_tier": "priority"})

    assert settled.price.cost(USAGE) >= 2 * USUAL
    assert not settled.certain

"""Streams that contradict themselves cost as much as the most expensive of their statements.

The laws hold for the streams of all request forms.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.costs.pricing import Pricing
from app.costs.quote import Settled
from app.domain.usage import Usage, either, served_by
from app.llm.anthropic_stream import AnthropicAssembly
from app.llm.openai_stream import OpenAIAssembly
from app.llm.responses_stream import ResponsesAssembly
from app.llm.streams import Assembly
from app.llm.usage import Counts, anthropic_counts, openai_counts
from app.llm.wire import name_of, storable

PRICING = Pricing()
USAGE = Usage(input_tokens=1000, cached_tokens=500, output_tokens=300)
FORMS = ("openai", "responses", "anthropic")
ASSEMBLIES: dict[str, Callable[[Mapping[str, Any]], Assembly]] = {
    "openai": OpenAIAssembly,
    "responses": ResponsesAssembly,
    "anthropic": AnthropicAssembly,
}
MODELS = {
    "openai": ["gpt-4", "gpt-4o", "gpt-4o-mini", "gpt-4o-2024-08-06", "gpt-5", "gpt-5-pro"],
    "anthropic": [
        "claude-opus-4-1",
        "claude-sonnet-4-5",
        "claude-haiku-4-5",
        "claude-haiku-4-5-20251001",
    ],
}
# What a token, or a search, costs; written tokens cost the most of a prompt.
RATES = {
    "input_tokens": 10,
    "cached_tokens": 1,
    "cache_write_tokens": 12,
    "cache_write_1h_tokens": 20,
    "output_tokens": 50,
    "citation_tokens": 20,
    "web_searches": 10_000,
}
COUNT = st.none() | st.integers(0, 2000)
CACHED = ["cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens"]
CACHED += ["cacheReadInputTokens", "cachedContentTokenCount"]
DETAILS = st.none() | st.dictionaries(
    st.sampled_from(["cached_tokens", "cache_write_tokens", "audio_tokens"]), COUNT
)
NAMES = [*CACHED, "completion_tokens", "total_tokens", "reasoning_tokens", "num_search_queries"]
NAMES += ["cache_creation_input_tokens", "citation_tokens"]
CHAT_USAGE = st.fixed_dictionaries(
    {"prompt_tokens": COUNT},
    optional={**dict.fromkeys(NAMES, COUNT), "prompt_tokens_details": DETAILS},
)
TOTALS: dict[Any, Any] = dict.fromkeys(
    ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"],
    COUNT | st.just("no number"),
)
ITERATION = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "fallback_message", "compaction", "x"])}, optional=TOTALS
)
MESSAGE_USAGE = st.fixed_dictionaries(
    {}, optional={**TOTALS, "total_tokens": COUNT, "iterations": st.lists(ITERATION, max_size=2)}
)


def cost(usage: Usage) -> int:
    return sum(getattr(usage, name) * rate for name, rate in RATES.items())


def event_of(form: str, part: dict[str, Any], *, last: bool) -> dict[str, Any]:
    """An event of a stream that tells a model, a tier or a usage."""
    if form == "openai":
        return {"choices": [{"delta": {}, "finish_reason": "stop"}] if last else [], **part}
    if form == "responses":
        return {"type": f"response.{'completed' if last else 'created'}", "response": part}
    return {"type": "message_start", "message": part}


def read(form: str, parts: Sequence[dict[str, Any]], model: str = "m") -> Assembly:
    assembly = ASSEMBLIES[form]({"model": model})
    for number, part in enumerate(parts):
        assembly.add(event_of(form, dict(part), last=number == len(parts) - 1))
    return assembly


def counts_of(assembly: Assembly) -> Counts:
    return assembly._counts()


def settled(form: str, asked: str, parts: Sequence[dict[str, Any]]) -> Settled:
    """The price of a stream, as a worker finds it."""
    provider = "anthropic" if form == "anthropic" else "openai"
    assembly = read(form, parts, asked)
    quote = PRICING.quote_answered(provider, asked, {}, name_of(assembly.model))
    return quote.settle(USAGE, served_by(storable(assembly.facts())))


def told_discount(usage: dict[str, Any]) -> bool:
    parts = usage, usage.get("prompt_tokens_details") or {}
    return any(part.get(name) is not None for part in parts for name in CACHED)


@pytest.mark.parametrize("form", ["openai", "responses"])
@given(usages=st.lists(CHAT_USAGE, min_size=1, max_size=4))
@example(
    usages=[
        {"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 900}},
        {"prompt_tokens": 1000, "prompt_tokens_details": None},
    ]
)
@example(
    usages=[
        {"prompt_tokens": 1000, "cacheReadInputTokens": 900},
        {"prompt_tokens": 1000, "cached_tokens": 0},
    ]
)
def test_no_usage_of_a_stream_costs_more_than_the_stream(
    form: str, usages: list[dict[str, Any]]
) -> None:
    booked = counts_of(read(form, [{"usage": usage} for usage in usages])).usage

    each = [openai_counts(usage, produced=False) for usage in usages]
    with_prompt = [number for number, counts in enumerate(each) if counts.prompt]
    for number, counts in enumerate(each):
        assert booked.output_tokens >= counts.usage.output_tokens
        # An early usage that tells no discount does not say that there is none.
        is_last = number == max(with_prompt, default=None)
        if counts.prompt and (is_last or told_discount(usages[number])):
            assert cost(booked) >= cost(counts.usage)


@pytest.mark.parametrize("form", ["openai", "responses"])
@pytest.mark.parametrize(
    "early",
    [{"prompt_tokens": 1000, "completion_tokens": 1}, {"prompt_tokens": 0, "cached_tokens": 0}],
)
def test_a_running_count_without_a_discount_takes_no_discount_away(
    form: str, early: dict[str, Any]
) -> None:
    end = {"prompt_tokens": 1000, "completion_tokens": 5, "cached_tokens": 900}

    usage = counts_of(read(form, [{"usage": early}, {"usage": end}])).usage

    assert usage == Usage(input_tokens=100, cached_tokens=900, output_tokens=5)


@given(st.lists(MESSAGE_USAGE, min_size=1, max_size=4))
@example(
    [
        {"input_tokens": 1000, "cache_creation_input_tokens": 500, "output_tokens": 50},
        {"input_tokens": 1, "cache_creation_input_tokens": 0, "iterations": [{"type": "x"}]},
    ]
)
def test_no_usage_of_a_message_costs_more_than_the_message(usages: list[dict[str, Any]]) -> None:
    counts = counts_of(read("anthropic", [{"usage": usage} for usage in usages]))

    for usage in usages:
        alone = anthropic_counts(usage, produced=False)
        assert cost(counts.usage) >= cost(alone.usage)
        assert counts.prompt >= alone.prompt


def priced_alone(form: str, asked: str, parts: Iterable[dict[str, Any]]) -> list[Decimal]:
    return [settled(form, asked, [part]).price.cost(USAGE) for part in parts]


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_the_dearest_model_of_a_stream_is_priced(form: str, data: st.DataObject) -> None:
    names = MODELS["anthropic" if form == "anthropic" else "openai"]
    asked = data.draw(st.sampled_from(names))
    told = data.draw(st.lists(st.sampled_from([*names, None]), min_size=1, max_size=5))
    parts = [{"model": name} for name in told]

    price, certain = settled(form, asked, parts)

    each = priced_alone(form, asked, [part for part in parts if part["model"]] or parts)
    assert price.cost(USAGE) == max(each)
    if len(set(each)) > 1:
        assert not certain


@pytest.mark.parametrize(
    ("form", "model", "fact", "values"),
    [
        ("openai", "gpt-5", "service_tier", ["priority", "flex", "default", "scale"]),
        ("anthropic", "claude-opus-4-6", "inference_geo", ["us", "global", "mars"]),
        ("anthropic", "claude-opus-4-6", "speed", ["fast", "standard"]),
    ],
)
@given(data=st.data())
def test_the_dearest_way_of_serving_that_a_stream_tells_is_priced(
    form: str, model: str, fact: str, values: list[str], data: st.DataObject
) -> None:
    untold = [None, "", "auto"] if fact == "service_tier" else [None, ""]
    told = data.draw(st.lists(st.sampled_from([*values, *untold]), min_size=1, max_size=4))
    facts: list[dict[str, Any]] = [{fact: value} for value in told]
    parts = facts if form == "openai" else [{"usage": each} for each in facts]

    price, certain = settled(form, model, parts)

    stated = [part for part, value in zip(parts, told, strict=True) if value not in untold]
    each = priced_alone(form, model, stated or parts)
    assert price.cost(USAGE) == max(each)
    if len(set(each)) > 1:
        assert not certain


def test_the_first_events_of_a_response_have_the_tier_that_was_asked_for() -> None:
    for asked, first in (("priority", "priority"), ("flex", "auto"), (None, "auto")):
        assembly = ResponsesAssembly({"model": "gpt-5", "service_tier": asked})
        for kind, tier in (("created", first), ("in_progress", first), ("completed", "default")):
            response = {"model": "gpt-5", "service_tier": tier}
            assembly.add({"type": f"response.{kind}", "response": response})
        assert served_by(assembly.facts()) == {"service_tier": "default"}


def test_a_response_whose_end_tells_another_tier_than_its_beginning_is_not_certain() -> None:
    parts = [{"service_tier": "priority"}, {"service_tier": "flex"}]

    price, certain = settled("responses", "gpt-5", parts)

    assert price.cost(USAGE) == max(priced_alone("responses", "gpt-5", parts[:1]))
    assert not certain


@pytest.mark.parametrize("form", FORMS)
def test_a_name_that_is_no_text_is_not_understood(form: str) -> None:
    assembly = read(form, [{"model": ["gpt-4"]}])

    quote = PRICING.quote_answered("openai", "gpt-4o-mini", {}, name_of(assembly.model))
    assert not quote.understood
    price = quote.settle(USAGE, {}).price
    assert price.cost(USAGE) == PRICING.price_of("openai", "gpt-4").cost(USAGE)


def test_the_order_of_the_names_makes_no_difference() -> None:
    for names in permutations(["gpt-4", "gpt-4o-mini", "no-such-model"]):
        quote = PRICING.quote_answered("openai", "gpt-4o", {}, " | ".join(names))
        dearest = PRICING.price_of("openai", "gpt-4").cost(USAGE)
        settled = quote.settle(USAGE, {})
        assert settled.price.cost(USAGE) == dearest
        assert not settled.certain
        assert quote.booked_usd(settled.price, USAGE, Decimal(9)) == 9


def test_the_text_of_many_names_stays_short_and_is_not_understood() -> None:
    told: Any = None
    for number in range(1000):
        told = either(told, f"a-model-{number}")

    assert len(told) <= 500
    assert told.startswith("(more) | a-model-0 | ")

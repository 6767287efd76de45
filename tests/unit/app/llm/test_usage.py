"""Usage objects in all spellings; totals never shrink, and a missing count is not zero.

This file is over 400 lines because it has the spellings and the laws of one function.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.usage import Usage
from app.llm.usage import Counts, anthropic_counts, openai_counts, responses_counts
from app.llm.wire import count_of, grown

TOTALS = {"input_tokens": 23_000, "output_tokens": 1000}
COUNTS = (
    st.none()
    | st.integers(-5, 10**12)
    | st.floats()
    | st.booleans()
    | st.text(max_size=3)
    | st.integers(0, 10**5).map(str)
)
# Names of counts, by the part of the tokens in which they must be.
PROMPT = [
    *("prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "promptTokenCount"),
    *("prompt_cache_miss_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
    *("cacheReadInputTokens", "cacheWriteInputTokens"),
]
OUTPUT = [
    *("completion_tokens", "output_tokens", "completionTokens", "outputTokens"),
    *("candidatesTokenCount", "thoughtsTokenCount", "reasoning_tokens"),
]
TOTAL = ["total_tokens", "totalTokens", "totalTokenCount"]
PROMPT_PARTS = ["text_tokens", "image_tokens", "audio_tokens", "video_tokens"]
OUTPUT_PARTS = [
    *("reasoning_tokens", "thinking_tokens", "reasoningTokens", "text_tokens", "audio_tokens"),
    "accepted_prediction_tokens",
]
# A discount is never more than the prompt.
DISCOUNTS = ["cached_tokens", "num_cached_tokens", "prompt_cache_hit_tokens"]


def details(names: list[str]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from([*names, "cached_tokens"]), COUNTS) | COUNTS


STATED = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys([*PROMPT, *OUTPUT, *TOTAL, *DISCOUNTS, "citation_tokens"], COUNTS),
        **dict.fromkeys(["prompt_tokens_details", "input_tokens_details"], details(PROMPT_PARTS)),
        **dict.fromkeys(
            ["completion_tokens_details", "output_tokens_details"], details(OUTPUT_PARTS)
        ),
        "cache_creation": details(["ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"]),
    },
)
FEW = st.dictionaries(st.sampled_from([*PROMPT, *OUTPUT, *TOTAL]), COUNTS, max_size=3)
NUMBERS = st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 9) | st.floats(0, 9))


def most(raw: Any, names: list[str]) -> int:
    """The largest count that has one of these names."""
    told = raw if isinstance(raw, dict) else {}
    return max((count_of(told.get(name)) or 0 for name in names), default=0)


@given(STATED | FEW, st.booleans(), st.sampled_from([openai_counts, anthropic_counts]))
def test_no_count_that_is_stated_is_above_what_is_booked(
    raw: dict[str, Any], produced: bool, read: Callable[..., Counts]
) -> None:
    counts = read(raw, produced=produced)

    usage = counts.bounded(prompt_tokens=0, output_tokens=0)
    each = [getattr(usage, part.name) for part in fields(usage)]
    assert min(each) >= 0
    assert usage.reasoning_tokens <= usage.output_tokens
    assert usage.prompt_tokens >= most(raw, PROMPT)
    assert usage.output_tokens >= most(raw, OUTPUT)
    assert usage.total_tokens >= most(raw, TOTAL)
    for name in ("prompt_tokens_details", "input_tokens_details"):
        assert usage.prompt_tokens >= most(raw.get(name), PROMPT_PARTS)
    for name in ("completion_tokens_details", "output_tokens_details"):
        assert usage.output_tokens >= most(raw.get(name), OUTPUT_PARTS)
    if counts.prompt:
        assert usage.prompt_tokens > 0
    if counts.output:
        assert usage.output_tokens > 0 or not produced


@given(FEW, st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_bound_takes_the_place_only_of_what_was_not_counted(
    raw: dict[str, Any], prompt_tokens: int, output_tokens: int
) -> None:
    counts = openai_counts(raw, produced=True)

    usage = counts.bounded(prompt_tokens=prompt_tokens, output_tokens=output_tokens)

    assert usage.prompt_tokens >= (0 if counts.prompt else prompt_tokens)
    assert usage.output_tokens >= (0 if counts.output else output_tokens)
    if counts.whole:
        assert usage == counts.usage


@pytest.mark.parametrize(
    ("raw", "expected", "whole"),
    [
        (
            {"input_tokens": 1100, "output_tokens": 5000, "total_tokens": 6100},
            Usage(input_tokens=1100, output_tokens=5000),
            True,
        ),
        (
            {"prompt_tokens": "1100", "completion_tokens": " 5000 "},
            Usage(input_tokens=1100, output_tokens=5000),
            True,
        ),
        (
            {"prompt_tokens": 12.5, "completion_tokens": "4.0"},
            Usage(input_tokens=13, output_tokens=4),
            True,
        ),
        ({"total_tokens": 6100}, Usage(input_tokens=70, output_tokens=6030), False),
        (
            {"prompt_tokens": None, "completion_tokens": 10, "total_tokens": 6100},
            Usage(input_tokens=6090, output_tokens=10),
            True,
        ),
        (
            {
                "prompt_tokens": 1100,
                "completion_tokens": None,
                "completion_tokens_details": {"reasoning_tokens": 5000},
            },
            Usage(input_tokens=1100, output_tokens=5000, reasoning_tokens=5000),
            False,
        ),
        (
            {"inputTokens": 1100, "outputTokens": 50, "totalTokens": 1150},
            Usage(input_tokens=1100, output_tokens=50),
            True,
        ),
        (
            {"promptTokens": 1100, "completionTokens": 50},
            Usage(input_tokens=1100, output_tokens=50),
            True,
        ),
        (  # Google's own form: thoughts are beside the candidates
            {
                "promptTokenCount": 1100,
                "candidatesTokenCount": 50,
                "thoughtsTokenCount": 400,
                "totalTokenCount": 1550,
            },
            Usage(input_tokens=1100, output_tokens=450, reasoning_tokens=400),
            True,
        ),
    ],
)
@pytest.mark.parametrize("read", [openai_counts, responses_counts, anthropic_counts])
def test_counts_are_read_in_every_spelling(
    read: Callable[..., Counts], raw: dict[str, Any], expected: Usage, whole: bool
) -> None:
    counts = read(raw, produced=True)

    assert counts.bounded(prompt_tokens=70, output_tokens=30) == expected
    assert counts.whole is whole


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            {"prompt_tokens": 10, "cache_read_input_tokens": 9000},
            Usage(input_tokens=10, cached_tokens=9000, output_tokens=5),
        ),
        (
            {
                "prompt_tokens": 10,
                "cache_read_input_tokens": 9000,
                "cache_creation_input_tokens": 3000,
                "total_tokens": 12_015,
            },
            Usage(input_tokens=10, cached_tokens=9000, cache_write_tokens=3000, output_tokens=5),
        ),
        (  # the total proves that they are beside the prompt
            {"prompt_tokens": 100, "cache_read_input_tokens": 90, "total_tokens": 195},
            Usage(input_tokens=100, cached_tokens=90, output_tokens=5),
        ),
        (
            {"prompt_tokens": 100, "cache_read_input_tokens": 90, "total_tokens": 105},
            Usage(input_tokens=10, cached_tokens=90, output_tokens=5),
        ),
    ],
)
def test_cached_tokens_beside_the_prompt_are_neither_lost_nor_output(
    raw: dict[str, Any], expected: Usage
) -> None:
    assert openai_counts({"completion_tokens": 5, **raw}, produced=True).usage == expected


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.booleans())
def test_only_counts_that_are_too_large_for_the_request_are_left_out(
    prompt: int, output: int, searches: int, bounded: bool
) -> None:
    raw = {"prompt_tokens": prompt, "completion_tokens": output, "num_search_queries": searches}
    told = openai_counts(raw, produced=True)

    counts = told.plausible(prompt_bound=lambda: 50_000 if bounded else 0, max_tokens=100_000)

    most_prompt = 210_000 if bounded else 20_000_000
    assert counts.prompt is (0 < prompt <= most_prompt)
    assert counts.output is (0 < output <= 210_000 and searches <= 1000)
    assert counts.usage.prompt_tokens == (prompt if prompt <= most_prompt else 0)
    assert counts.usage.output_tokens == (output if output <= 210_000 else 0)
    assert counts.usage.web_searches == min(searches, 1000)


def test_usual_counts_are_believed_without_a_look_at_the_prompt() -> None:
    counts = openai_counts({"prompt_tokens": 90_000, "completion_tokens": 9000}, produced=True)

    assert counts.plausible(prompt_bound=lambda: pytest.fail("read"), max_tokens=1) is counts


@pytest.mark.parametrize("raw", [None, 5, "x", [], {}, {"prompt_tokens": None}, {"x": 1}])
def test_what_is_no_usage_counts_nothing(raw: Any) -> None:
    for counts in (openai_counts(raw, produced=True), anthropic_counts(raw, produced=True)):
        assert not counts.prompt
        assert not counts.output
        bounded = counts.bounded(prompt_tokens=70, output_tokens=30)
        assert bounded == Usage(input_tokens=70, output_tokens=30)


@pytest.mark.parametrize(
    ("raw", "cached"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 60}}, 60),
        ({"cached_tokens": 60}, 60),
        ({"prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 40}, 60),
        ({"num_cached_tokens": 60}, 60),
    ],
)
def test_cached_tokens_have_many_spellings(raw: dict[str, Any], cached: int) -> None:
    usage = openai_counts(
        {"prompt_tokens": 100, "completion_tokens": 5, **raw}, produced=True
    ).usage

    assert (usage.cached_tokens, usage.prompt_tokens) == (cached, 100)


@given(st.integers(1, 10_000), st.integers(0, 100_000), st.booleans(), st.booleans())
def test_cached_tokens_that_are_more_than_the_prompt_are_counted_beside_it(
    prompt: int, cached: int, nested: bool, with_total: bool
) -> None:
    raw: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": 5}
    raw |= {"prompt_tokens_details": {"cached_tokens": cached}} if nested else {}
    raw |= {} if nested else {"cached_tokens": cached}
    beside = cached if cached > prompt else 0
    raw |= {"total_tokens": prompt + beside + 5} if with_total else {}

    counts = openai_counts(raw, produced=True)

    assert counts.usage.cached_tokens == cached
    assert counts.usage.prompt_tokens == prompt + beside
    assert counts.usage.output_tokens == 5


def test_a_total_without_the_cached_tokens_says_that_they_are_no_part_of_the_bill() -> None:
    raw = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8, "cached_tokens": 163}

    usage = openai_counts(raw, produced=True).usage  # as Azure answers for a model of xAI

    assert (usage.cached_tokens, usage.prompt_tokens) == (7, 7)


@pytest.mark.parametrize(
    ("raw", "output", "reasoning"),
    [
        ({"completion_tokens": 5, "total_tokens": 105}, 5, 0),
        ({"completion_tokens": 5, "total_tokens": 145}, 45, 0),
        ({"total_tokens": 145}, 45, 0),
        ({"completion_tokens": 5, "reasoning_tokens": 40}, 45, 40),
        (
            {
                "completion_tokens": 5.0,
                "total_tokens": 145,
                "completion_tokens_details": {"reasoning_tokens": 40},
            },
            45,
            40,
        ),
    ],
)
def test_output_that_only_the_total_or_the_reasoning_tells_is_output(
    raw: dict[str, Any], output: int, reasoning: int
) -> None:
    usage = openai_counts({"prompt_tokens": 100, **raw}, produced=True).usage

    assert (usage.output_tokens, usage.reasoning_tokens) == (output, reasoning)


@given(NUMBERS, NUMBERS)
def test_totals_never_shrink(old: dict[str, Any], new: dict[str, Any]) -> None:
    merged = grown(old, new)

    for name in old.keys() | new.keys():
        assert (merged[name] or 0) == max(old.get(name) or 0, new.get(name) or 0)


@given(st.lists(STATED | FEW, max_size=4))
def test_no_later_report_takes_a_count_away(reports: list[dict[str, Any]]) -> None:
    merged: Any = {}
    for report in reports:
        merged = grown(merged, report)

    for name in [*PROMPT, *OUTPUT, *TOTAL]:
        assert most(merged, [name]) == max((most(each, [name]) for each in reports), default=0)


@pytest.mark.parametrize("later", ["", "n/a", False, True, 1e20, 10**18, -1, [], {}, "3", None])
def test_what_is_no_larger_count_leaves_a_count_as_it_is(later: Any) -> None:
    assert grown({"prompt_tokens": 90_000}, {"prompt_tokens": later}) == {"prompt_tokens": 90_000}


@pytest.mark.parametrize("later", ["", False, 7, [], None])
def test_what_is_no_object_leaves_an_object_as_it_is(later: Any) -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 500}}

    assert grown(details, {"completion_tokens_details": later}) == details


def test_the_smaller_of_two_discounts_decides() -> None:
    large = {"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 900}}
    small = {"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 0}}

    assert grown(large, small) == small
    assert grown(small, large) == small
    assert grown({"prompt_tokens": 1000}, large) == large


def test_all_values_of_a_fact_that_changes_the_price_are_kept() -> None:
    told = [{"service_tier": "priority"}, {"service_tier": None}, {"service_tier": "flex"}]

    assert reduce(grown, told) == {"service_tier": "priority | flex"}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"num_search_queries": 3}, Usage(web_searches=3)),  # Perplexity
        ({"num_sources_used": 5}, Usage(web_searches=5)),  # xAI
        ({"server_tool_use": {"web_search_requests": 2}}, Usage(web_searches=2)),  # OpenRouter
        ({"server_tool_use": None, "num_sources_used": 0}, Usage()),
        (
            {"citation_tokens": 20_016, "reasoning_tokens": 73_997, "num_search_queries": 18},
            Usage(
                output_tokens=73_997,
                reasoning_tokens=73_997,
                citation_tokens=20_016,
                web_searches=18,
            ),
        ),
    ],
)
def test_searches_and_citations_of_compatible_servers_are_read(
    raw: dict[str, object], expected: Usage
) -> None:
    usage = openai_counts(
        {"prompt_tokens": 33, "completion_tokens": 7163, **raw}, produced=True
    ).usage

    assert usage == Usage(input_tokens=33, output_tokens=7163) + expected


def test_searches_of_anthropic_are_read() -> None:
    tools = {"web_search_requests": 4, "web_fetch_requests": 2}

    assert (
        anthropic_counts({**TOTALS, "server_tool_use": tools}, produced=True).usage.web_searches
        == 4
    )


def test_what_the_totals_of_anthropic_leave_out_is_added() -> None:
    iterations = [
        {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500},
        {"type": "message", **TOTALS},
    ]
    other = [{"type": "of_next_year", "input_tokens": 7, "output_tokens": 1}]

    usage = anthropic_counts({**TOTALS, "iterations": iterations}, produced=True).usage

    assert (usage.input_tokens, usage.output_tokens) == (203_000, 4500)
    assert (
        anthropic_counts({**TOTALS, "iterations": other}, produced=True).usage.input_tokens
        == 23_007
    )
    assert (
        anthropic_counts({**TOTALS, "iterations": None}, produced=True).usage.input_tokens == 23_000
    )

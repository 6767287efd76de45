"""Usage objects in all spellings; totals never shrink, and a missing count is not zero."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.usage import Usage
from app.llm.usage import anthropic_counts, openai_counts
from app.llm.wire import grown

TOTALS = {"input_tokens": 23_000, "output_tokens": 1000}
COUNTS = st.none() | st.integers(-5, 10**12) | st.floats() | st.booleans() | st.text(max_size=3)
DETAILS = st.none() | st.dictionaries(
    st.sampled_from(["cached_tokens", "cache_write_tokens", "audio_tokens", "reasoning_tokens"]),
    COUNTS,
)
OPENAI = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(["prompt_tokens", "completion_tokens", "total_tokens"], COUNTS),
        **dict.fromkeys(["cached_tokens", "prompt_cache_hit_tokens", "reasoning_tokens"], COUNTS),
        **dict.fromkeys(["prompt_tokens_details", "completion_tokens_details"], DETAILS | COUNTS),
    },
)
ANTHROPIC = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(["input_tokens", "output_tokens", "cache_read_input_tokens"], COUNTS),
        "cache_creation_input_tokens": COUNTS,
        "cache_creation": st.none()
        | st.dictionaries(
            st.sampled_from(["ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"]), COUNTS
        ),
    },
)
NUMBERS = st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 9) | st.floats(0, 9))


def read(value: Any) -> int:
    """A count as the tests read it: a whole number that is not negative, or 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value <= 10**9 and value == int(value) else 0


@given(OPENAI, st.booleans())
def test_counts_of_a_completion_are_disjoint_and_never_below_what_is_said(
    raw: dict[str, Any], produced: bool
) -> None:
    counts = openai_counts(raw, produced=produced)

    usage = counts.usage
    assert min(usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens) >= 0
    assert 0 <= usage.reasoning_tokens <= usage.output_tokens
    assert usage.prompt_tokens >= read(raw.get("prompt_tokens"))
    assert usage.output_tokens >= read(raw.get("completion_tokens"))
    if counts.whole:
        assert usage.total_tokens >= read(raw.get("total_tokens"))
        assert usage.prompt_tokens > 0
        assert usage.output_tokens > 0 or not produced


@given(ANTHROPIC, st.booleans())
def test_counts_of_a_message_are_disjoint_and_never_below_what_is_said(
    raw: dict[str, Any], produced: bool
) -> None:
    usage = anthropic_counts(raw, produced=produced).usage

    assert min(usage.cache_write_tokens, usage.cache_write_1h_tokens) >= 0
    assert usage.input_tokens >= read(raw.get("input_tokens"))
    assert usage.output_tokens >= read(raw.get("output_tokens"))
    written = usage.cache_write_tokens + usage.cache_write_1h_tokens
    assert written >= read(raw.get("cache_creation_input_tokens"))


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
        ({"cached_tokens": 500}, 100),
    ],
)
def test_cached_tokens_have_many_spellings(raw: dict[str, Any], cached: int) -> None:
    usage = openai_counts(
        {"prompt_tokens": 100, "completion_tokens": 5, **raw}, produced=True
    ).usage

    assert (usage.cached_tokens, usage.prompt_tokens) == (cached, 100)


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

"""Counts beside the tokens of prompt and answer, as providers report them."""

import pytest

from app.domain.usage import Usage
from app.llm.usage import anthropic_usage, openai_usage

TOTALS = {"input_tokens": 23_000, "output_tokens": 1000}


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
    usage = openai_usage({"prompt_tokens": 33, "completion_tokens": 7163, **raw})

    assert usage == Usage(input_tokens=33, output_tokens=7163) + expected


def test_searches_of_anthropic_are_read() -> None:
    tools = {"web_search_requests": 4, "web_fetch_requests": 2}

    assert anthropic_usage({**TOTALS, "server_tool_use": tools}).web_searches == 4


def test_what_the_totals_of_anthropic_leave_out_is_added() -> None:
    iterations = [
        {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500},
        {"type": "message", **TOTALS},
    ]
    other = [{"type": "of_next_year", "input_tokens": 7, "output_tokens": 1}]

    usage = anthropic_usage({**TOTALS, "iterations": iterations})

    assert (usage.input_tokens, usage.output_tokens) == (203_000, 4500)
    assert anthropic_usage({**TOTALS, "iterations": other}).input_tokens == 23_007
    assert anthropic_usage({**TOTALS, "iterations": None}).input_tokens == 23_000

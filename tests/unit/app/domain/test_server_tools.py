"""Tools that run at the provider: their entries, and the bound of what they add to a call."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import Agent, Workflow
from app.domain.protocols import PROTOCOLS
from app.domain.server_tools import ServerUses, server_tool_of, uses_of
from app.errors import WorkflowError
from tests.support.answers import corpus

OPENAI, ANTHROPIC = PROTOCOLS["openai"], PROTOCOLS["anthropic"]


def workflow_with(*tools: Any, **fields: Any) -> Workflow:
    agent = Agent(
        name="a",
        prompt_template="Who won?",
        llm_config={"model": "claude-sonnet-5"},
        tools=list(tools),
        **fields,
    )
    return Workflow(name="w", agents=[agent])


def test_a_tool_of_the_provider_is_stored_as_it_was_given() -> None:
    tool = {"server": "web_search", "max_uses": 3, "allowed_domains": ["who.int"]}

    agent = workflow_with(tool).agents[0]
    again = Agent.from_definition(agent.definition())

    assert again.tools == [tool]
    assert server_tool_of(again.tools[0]).max_uses == 3
    assert server_tool_of(again.tools[0]).options == {"allowed_domains": ["who.int"]}


@pytest.mark.parametrize(
    ("tool", "field", "complaint"),
    [
        ({"server": "web_serch"}, ".server", "did you mean 'web_search'"),
        ({"server": None}, ".server", "give one of 'web_search', 'web_fetch'"),
        ({"server": ["web_search"]}, ".server", "give one of"),
        ({"server": "web_search", "max_use": 1}, "", "did you mean 'max_uses'"),
        ({"server": "web_search", "citations": True}, "", "has the key 'citations'"),
        ({"server": "web_fetch", "search_context_size": "low"}, "", "search_context_size"),
        ({"server": "code_execution", "memory": "2g"}, ".memory", "give one of '1g', '4g'"),
        ({"server": "code_execution", "allowed_domains": ["a.b"]}, "", "'allowed_domains'"),
        ({"server": "web_search", "memory": "1g"}, "", "has the key 'memory'"),
        ({"server": "code_interpreter"}, ".server", "'web_fetch', 'code_execution'"),
        ({"server": "web_search", "max_uses": 0}, ".max_uses", "is 0: give a whole number"),
        ({"server": "web_search", "max_uses": True}, ".max_uses", "whole number"),
        ({"server": "web_search", "max_result_tokens": 5}, ".max_result_tokens", "from 1,000"),
        ({"server": "web_search", "allowed_domains": "who.int"}, ".allowed_domains", "a list"),
        ({"server": "web_search", "blocked_domains": []}, ".blocked_domains", "a list"),
        ({"server": "web_search", "search_context_size": "big"}, ".search_context_size", "'low'"),
        ({"server": "web_search", "user_location": {"town": "Oslo"}}, ".user_location", "city"),
        ({"server": "web_fetch", "citations": "yes"}, ".citations", "true or false"),
        (
            {"server": "web_search", "allowed_domains": ["a.b"], "blocked_domains": ["c.d"]},
            "",
            "remove one of them",
        ),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place_and_a_remedy(
    tool: dict[str, Any], field: str, complaint: str
) -> None:
    with pytest.raises(WorkflowError, match=complaint) as refused:
        workflow_with(tool)

    assert refused.value.field == f"agents[0].tools[0]{field}"


def test_each_tool_of_the_provider_is_given_once() -> None:
    with pytest.raises(WorkflowError, match="'web_search' once more"):
        workflow_with({"server": "web_search"}, "fetch_page", {"server": "web_search"})


def test_uses_of_all_tools_are_added() -> None:
    tools = [
        "fetch_page",
        {"server": "web_search", "max_uses": 3, "max_result_tokens": 10_000},
        {"server": "web_fetch", "max_uses": 2, "max_result_tokens": 5_000},
    ]

    assert uses_of(tools, ANTHROPIC, 300) == ServerUses(searches=3, uses=5, result_tokens=40_000)
    assert uses_of(["fetch_page"], ANTHROPIC, 300) == ServerUses()


def test_programs_count_as_the_provider_limits_them() -> None:
    program = {"server": "code_execution", "max_uses": 3, "memory": "4g"}
    search = {"server": "web_search", "max_uses": 2, "max_result_tokens": 10_000}

    at_openai = uses_of([program, search], OPENAI, 300)
    at_anthropic = uses_of([{"server": "code_execution"}, search], ANTHROPIC, 300)

    # OpenAI limits all uses together, so each of them may be the more expensive one.
    assert (at_openai.searches, at_openai.uses, at_openai.result_tokens) == (5, 5, 50_000)
    assert at_openai.container_seconds == 5 * 4 * 26 * 60
    # Anthropic takes no limit for programs, and pauses after ten rounds.
    assert (at_anthropic.searches, at_anthropic.uses) == (2, 12)
    assert at_anthropic.result_tokens == 10 * 5000 + 2 * 10_000
    assert at_anthropic.container_seconds == 11 * 60


@given(
    prompt=st.integers(1, 10**6),
    output=st.integers(1, 10**5),
    results=st.lists(st.integers(0, 50_000), min_size=1, max_size=20),
    over=st.integers(0, 1),
)
def test_the_bound_covers_every_read_of_a_prompt_that_grows(
    prompt: int, output: int, results: list[int], over: int
) -> None:
    uses = ServerUses(uses=len(results), result_tokens=sum(results))

    # Each result comes in a read of its own, and one attempt more than is allowed is refused.
    read = sum(
        prompt + (output if place else 0) + sum(results[:place])
        for place in range(len(results) + 1 + over)
    )

    assert uses.prompt_tokens(prompt, output, None) >= read
    assert ServerUses().prompt_tokens(prompt, output, 1000) == prompt


@pytest.mark.parametrize("window", [128_000, 200_000])
def test_no_read_is_longer_than_the_context_window(window: int) -> None:
    uses = ServerUses(uses=2, result_tokens=1_000_000)

    assert uses.prompt_tokens(1000, 500, window) == 1000 + 3 * window


def test_the_bound_with_its_defaults_covers_every_recorded_answer() -> None:
    searched = [one for one in corpus() if one.usage and one.usage.web_searches]

    for one in searched:
        assert one.usage is not None
        tool = {"server": "web_search", "max_uses": one.usage.web_searches}
        bound = uses_of([tool], ANTHROPIC, 300).prompt_tokens(100, one.usage.output_tokens, None)
        assert bound >= one.usage.prompt_tokens, one.name
    assert len(searched) > 10


def test_the_bound_with_its_defaults_covers_every_recorded_program() -> None:
    ran = [one for one in corpus() if one.expect.get("containers")]

    for one in ran:
        assert one.usage is not None
        protocol = ANTHROPIC if one.protocol == "anthropic" else OPENAI
        bound = uses_of([{"server": "code_execution"}], protocol, 300)
        prompt = 5000  # the instructions of the provider are 2,000 to 4,000 tokens
        most = bound.prompt_tokens(prompt, one.usage.output_tokens, None)
        assert most >= one.usage.prompt_tokens, one.name
    assert len(ran) > 8

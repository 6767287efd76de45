"""Tools that run at the provider, as the clients write and read them through the real SDKs."""

from typing import Any

import pytest

from app.errors import BadRequest, ServerFailure
from app.llm.base import Message
from tests.support.tool_answers import QUESTION, answering, ask, recorded

pytestmark = pytest.mark.anyio

SEARCH = {
    "server": "web_search",
    "max_uses": 3,
    "allowed_domains": ["who.int"],
    "user_location": {"country": "NO"},
}
FETCH = {"server": "web_fetch", "max_uses": 1, "max_result_tokens": 5000, "citations": True}
OWN = {"name": "look_up", "description": "Looks up.", "parameters": {"type": "object"}}
PLACE = {"type": "approximate", "country": "NO"}


@pytest.mark.parametrize(
    ("model", "search", "fetch", "callers"),
    [
        (
            "claude-sonnet-5",
            "web_search_20260318",
            "web_fetch_20260318",
            {"allowed_callers": ["direct"]},
        ),
        ("claude-haiku-4-5", "web_search_20250305", "web_fetch_20250910", {}),
        ("another-model", "web_search_20250305", "web_fetch_20250910", {}),
    ],
)
async def test_anthropic_gets_the_version_that_its_model_takes(
    model: str, search: str, fetch: str, callers: dict[str, Any]
) -> None:
    async with answering(recorded("anthropic/web_search_result_with_caller")) as (url, requests):
        await ask("anthropic", url, model, [OWN, SEARCH, FETCH])

    own, *at_provider = requests[0]["tools"]
    assert own["name"] == "look_up"
    assert at_provider == [
        {
            "type": search,
            "name": "web_search",
            "max_uses": 3,
            "allowed_domains": ["who.int"],
            "user_location": PLACE,
            **callers,
        },
        {
            "type": fetch,
            "name": "web_fetch",
            "max_uses": 1,
            "max_content_tokens": 5000,
            "citations": {"enabled": True},
            **callers,
        },
    ]


@pytest.mark.parametrize("form", ["openai", "responses"])
async def test_openai_gets_searches_in_the_responses_api_with_any_model(form: str) -> None:
    async with answering(recorded("responses/web_search_with_sources")) as (url, requests):
        response = await ask(form, url, "gpt-4o", [OWN, SEARCH])

    own, search = requests[0]["tools"]
    assert own["type"] == "function"
    assert search == {
        "type": "web_search",
        "filters": {"allowed_domains": ["who.int"]},
        "user_location": PLACE,
    }
    assert requests[0]["max_tool_calls"] == 3
    assert response.usage.web_searches == 1


async def test_the_billable_searches_that_openai_tells_are_counted() -> None:
    body = recorded("responses/web_search_url_citations")
    told = body | {"tool_usage": {"web_search": {"num_requests": 7}}}

    async with answering(body, told) as (url, _):
        shown = await ask("responses", url, "gpt-5", [SEARCH])
        counted = await ask("responses", url, "gpt-5", [SEARCH])

    assert (shown.usage.web_searches, counted.usage.web_searches) == (2, 7)


async def test_a_paused_answer_goes_back_as_it_came() -> None:
    paused = recorded("anthropic/pause_turn_of_web_search")
    rest = recorded("anthropic/web_search_result_with_caller")

    async with answering(paused, rest) as (url, requests):
        first = await ask("anthropic", url, "claude-sonnet-4-5", [SEARCH])
        second = await ask(
            "anthropic", url, "claude-sonnet-4-5", [SEARCH], [QUESTION, first.as_message()]
        )

    assert (first.finish_reason, second.finish_reason) == ("pause", "stop")
    assert first.usage.web_searches == 10
    assert requests[1]["messages"][1] == {"role": "assistant", "content": paused["content"]}
    assert len(requests[1]["messages"]) == 2


async def test_a_pause_that_nobody_asked_for_is_a_failure_with_its_tokens() -> None:
    async with answering(recorded("anthropic/pause_turn_of_web_search")) as (url, _):
        with pytest.raises(ServerFailure, match="pause_turn") as failed:
            await ask("anthropic", url, "claude-sonnet-4-5", [OWN])

    assert failed.value.partial is not None
    assert failed.value.partial.usage.web_searches == 10


async def test_a_pause_without_anything_to_send_back_is_a_failure() -> None:
    empty = recorded("anthropic/pause_turn_of_web_search") | {"content": []}

    async with answering(empty) as (url, _):
        with pytest.raises(ServerFailure, match="pause_turn"):
            await ask("anthropic", url, "claude-sonnet-4-5", [SEARCH])


@pytest.mark.parametrize(
    ("form", "name", "model"),
    [
        ("anthropic", "anthropic/web_search_with_thinking_and_citations", "claude-sonnet-4-0"),
        ("responses", "responses/web_search_url_citations", "gpt-5"),
    ],
)
async def test_the_pages_that_an_answer_cites_are_told(form: str, name: str, model: str) -> None:
    async with answering(recorded(name)) as (url, _):
        response = await ask(form, url, model, [SEARCH])

    citations = response.metadata["citations"]
    assert citations
    assert all(page["url"].startswith("http") for page in citations)
    assert len({page["url"] for page in citations}) == len(citations)


@pytest.mark.parametrize(
    ("form", "tool", "complaint"),
    [
        ("openai", FETCH, "web_fetch is no tool of OpenAI's"),
        ("responses", SEARCH | {"blocked_domains": []}, "blocked_domains is"),
        ("anthropic", {"server": "code_interpreter"}, "server is 'code_interpreter': give one of"),
        ("responses", {"server": "code_interpreter"}, "server is 'code_interpreter': give one of"),
        ("anthropic", {"server": "code_execution", "max_uses": 2}, "takes no max_uses: remove it"),
        ("anthropic", {"server": "code_execution", "memory": "4g"}, "have one size"),
        ("anthropic", {"server": "web_search", "uses": 1}, "did you mean 'max_uses'"),
    ],
)
async def test_a_tool_that_a_provider_lacks_is_refused_before_it_is_sent(
    form: str, tool: dict[str, Any], complaint: str
) -> None:
    async with answering() as (url, requests):
        with pytest.raises(BadRequest, match=complaint) as refused:
            await ask(form, url, "claude-sonnet-5" if form == "anthropic" else "gpt-5", [tool])

    assert not refused.value.reached
    assert requests == []


async def test_a_search_goes_back_to_openai_without_its_id() -> None:
    body = recorded("responses/web_search_url_citations")

    async with answering(body, body) as (url, requests):
        first = await ask("responses", url, "gpt-5", [SEARCH])
        again: list[Message] = [QUESTION, first.as_message(), {"role": "user", "content": "And?"}]
        await ask("responses", url, "gpt-5", [SEARCH], again)

    searches = [item for item in requests[1]["input"] if item.get("type") == "web_search_call"]
    came = [item for item in body["output"] if item["type"] == "web_search_call"]
    assert searches == [
        {name: value for name, value in item.items() if name != "id" and value is not None}
        for item in came
    ]
    assert {item["status"] for item in searches} == {"completed"}

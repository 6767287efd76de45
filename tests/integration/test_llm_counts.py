"""Counts of prompts through the real SDKs: what is sent, and what each answer means."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from anthropic.types import MessageCountTokensParams
from openai.types.responses import InputTokenCountParams

from app.costs.pricing import Pricing
from app.domain.agent import Agent
from app.errors import AgentError, BadRequest, ProviderError, RateLimited
from app.llm.base import LLMClient, Message, ToolCall
from app.llm.parts import part_of
from app.planning.calls import CallPlanner
from app.simulator import Simulator
from tests.support.llm_clients import FORMS, client_of
from tests.support.media import pdf, png
from tests.support.wire_server import COUNTS, provider_server

pytestmark = pytest.mark.anyio

MODELS = {"openai": "gpt-4o-mini", "responses": "gpt-5.6-terra", "anthropic": "claude-sonnet-5"}
PATHS = dict(zip(("openai", "responses", "anthropic"), (COUNTS[0], *COUNTS), strict=True))
#: What the SDKs say that the endpoints take.
TAKEN = {
    COUNTS[0]: InputTokenCountParams.__annotations__.keys(),
    COUNTS[1]: MessageCountTokensParams.__annotations__.keys(),
}
PROMPT: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How is the weather?"},
]
TOOLS = [
    {
        "name": "get_weather",
        "description": "Looks something up.",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
    }
]
SCHEMA = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
#: Parameters of calls that say nothing about the prompt, or that only the call's own form takes.
OF_CALLS: dict[str, dict[str, Any]] = {
    "openai": {
        "api": "chat",
        "frequency_penalty": 0.5,
        "seed": 7,
        "stop": ["END"],
        "temperature": 0.5,
        "service_tier": "default",
        "stream": True,
    },
    "responses": {
        "api": "responses",
        "service_tier": "default",
        "stream": True,
        "prompt_cache": "1h",
    },
    "anthropic": {"service_tier": "auto", "stream": True, "stop": "END", "prompt_cache": True},
}


class Counter:
    """A server that counts prompts, and the bodies that it has received."""

    def __init__(self, status: int, body: str) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self._status = status
        self._body = body

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((request.path, await request.json()))
        return web.Response(text=self._body, status=self._status, content_type="application/json")


@asynccontextmanager
async def counting(
    form: str, body: str = '{"input_tokens": 1234}', *, status: int = 200
) -> AsyncIterator[tuple[LLMClient, Counter]]:
    server = Counter(status, body)
    async with provider_server(server.handle, COUNTS) as url:
        client = client_of(form, url)
        try:
            yield client, server
        finally:
            await client.close()


@pytest.mark.parametrize("form", FORMS)
async def test_only_the_parts_that_count_are_sent_whatever_the_call_has(form: str) -> None:
    async with counting(form) as (client, server):
        tokens = await client.count_tokens(
            PROMPT, MODELS[form], TOOLS, output_schema=SCHEMA, **OF_CALLS[form]
        )

    ((path, body),) = server.requests
    assert tokens == 1234
    assert path == PATHS[form]
    assert body.keys() <= TAKEN[path]
    assert body["model"] == MODELS[form]
    assert body.keys() >= {"tools", "system", "messages"} or body.keys() >= {
        *("tools", "input", "instructions", "text")
    }
    assert "Be brief." in str(body)
    assert "total" in str(body)


async def test_a_budget_for_thinking_does_not_need_the_length_of_the_answer() -> None:
    thinking = {"type": "enabled", "budget_tokens": 20_000}
    async with counting("anthropic") as (client, server):
        assert await client.count_tokens(PROMPT, "claude-sonnet-4-5", thinking=thinking) == 1234

    assert server.requests[0][1]["thinking"] == thinking


@pytest.mark.parametrize("effort", ["low", "none"])
async def test_the_effort_of_chat_completions_is_sent_in_the_other_form(effort: str) -> None:
    async with counting("openai") as (client, server):
        await client.count_tokens(PROMPT, "gpt-5.4", reasoning_effort=effort)

    assert server.requests[0][1]["reasoning"] == {"effort": effort}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_without_the_endpoint_is_asked_once_for_each_model(
    form: str, status: int
) -> None:
    async with counting(form, '{"detail": "Not Found"}', status=status) as (client, server):
        for model in (MODELS[form], MODELS[form], "other", "other"):
            assert await client.count_tokens(PROMPT, model) is None

    assert [body["model"] for _, body in server.requests] == [MODELS[form], "other"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "body",
    ["<html>Welcome</html>", "", "[]", "null", "{}", '{"input_tokens": null}', "\xff{"]
    + [f'{{"input_tokens": {value}}}' for value in ('"many"', "-1", "0", "true")],
)
async def test_an_answer_that_is_no_count_is_none_and_says_nothing_about_the_next(
    form: str, body: str
) -> None:
    async with counting(form, body) as (client, server):
        for _ in range(2):
            assert await client.count_tokens(PROMPT, MODELS[form]) is None

    assert len(server.requests) == 2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
async def test_a_count_that_fails_is_an_error_of_its_class_and_is_tried_again(
    form: str, status: int
) -> None:
    async with counting(form, '{"error": {"message": "no"}}', status=status) as (client, server):
        for _ in range(2):
            with pytest.raises(ProviderError) as raised:
                await client.count_tokens(PROMPT, MODELS[form])
            assert raised.value.status == status
            assert isinstance(raised.value, RateLimited) == (status == 429)

    assert len(server.requests) == 2


@pytest.mark.parametrize("form", FORMS)
async def test_nothing_but_an_agent_error_leaves_a_count(form: str) -> None:
    without_id: list[Message] = [{"role": "tool", "content": "sunny"}]
    async with counting(form) as (client, server):
        for messages in (without_id, [{"role": "judge", "content": "x"}], [{"role": "user"}]):
            try:
                await client.count_tokens(messages, MODELS[form])
            except AgentError as error:
                assert isinstance(error, BadRequest)  # noqa: PT017 some forms can write some
        for _ in range(2):
            await client.close()
            assert await client.count_tokens(PROMPT, MODELS[form]) == 1234

    assert len(server.requests) >= 2


async def test_a_conversation_that_the_other_form_cannot_say_is_not_counted() -> None:
    original = {"role": "assistant", "content": "", "reasoning_content": "x" * 9000}
    messages = [
        *PROMPT,
        {
            "role": "assistant",
            "content": "",
            "original": {"by": "openai", "message": original},
        },
        {"role": "user", "content": "Go on."},
    ]
    async with counting("openai") as (client, server):
        assert await client.count_tokens(messages, MODELS["openai"]) is None
        assert await client.count_tokens(messages, MODELS["openai"], api="responses") == 1234

    assert len(server.requests) == 1


@pytest.mark.parametrize("form", FORMS)
async def test_the_bound_that_follows_from_a_count_is_never_below_the_billed_tokens(
    form: str,
) -> None:
    planner = CallPlanner(Pricing(), default_max_tokens=4096)
    agent = Agent(name="a", prompt_template="x", llm_config={"model": MODELS[form]})
    files = [part_of(png(900, 700)), part_of(pdf("Invoice 7", "Total: 12.50"), name="a.pdf")]
    call = ToolCall(id="call_1", name="get_weather", arguments='{"location": "Bonn"}')
    text = {"type": "text", "text": "How is the weather? " * 5000}
    messages: list[Message] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [*files, text]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny " * 500},
    ]
    async with Simulator() as simulator:
        client = client_of(form, simulator.anthropic_base_url)
        try:
            counted = await client.count_tokens(messages, MODELS[form], TOOLS)
            answer = await client.complete_with_tools(messages, MODELS[form], TOOLS, max_tokens=200)
        finally:
            await client.close()

    plain = planner.plan(agent, messages, TOOLS)
    plan = planner.plan(agent, messages, TOOLS, counted_tokens=counted)
    billed = answer.usage.prompt_tokens
    assert counted is not None
    assert billed <= plan.bound_tokens < 1.1 * billed
    assert plain.bound_tokens > 2 * billed

"""One suite over all request forms, through the real SDKs: the simulator, and documented shapes.

Each law holds with the simulator and with a server that repeats the providers' documentation, for
whole answers and for streams.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from app.bootstrap import client_factories
from app.configuration.settings import load_settings
from app.domain.usage import Partial
from app.errors import (
    AuthenticationFailed,
    BadRequest,
    ConnectionFailed,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerFailure,
)
from app.llm.base import LLMClient, LLMResponse, Message
from app.simulator.process import SimulatorProcess, run_in_process
from tests.support.llm_clients import FORMS, PROTOCOL_OF, client_of
from tests.support.wire_server import names, serving, shapes

pytestmark = pytest.mark.anyio

MODELS = {
    "openai": "gpt-4o-mini",
    "responses": "gpt-5.6-terra",
    "anthropic": "claude-sonnet-5",
}
TOOLS = [
    {
        "name": name,
        "description": "Looks something up.",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
    }
    for name in ("get_weather", "get_time")
]
# Prompts that make the simulator answer like each file.
PROMPTS = {
    "text": "Greet me.",
    "cut_short": "Go on. [[sim:output_tokens=500]]",
    "caching": "x" * 12_000 + "[[sim:cached_tokens=1920,reasoning_tokens=200]]",
    "one_tool": "get_weather",
    "parallel_tools": "get_weather, then get_time",
    "refusal": "Misbehave. [[sim:refuse]]",
    "error_after_200": "Fail late. [[sim:stream_error,output_tokens=300]]",
    "cut_off": "Break off. [[sim:cut_stream,output_tokens=300]]",
    "overloaded": "Fail. [[sim:status=529]]",
    "rate_limited": "Fail. [[sim:status=429,retry_after=20]]",
    "out_of_money": "Fail. [[sim:status=429,code=insufficient_quota]]",
    "bad_request": "Fail. [[sim:status=400]]",
    "wrong_key": "Fail. [[sim:status=401]]",
    "server_error": "Fail. [[sim:status=500]]",
}
FAILURES: dict[str, type[ProviderError]] = {
    "overloaded": Overloaded,
    "rate_limited": RateLimited,
    "out_of_money": QuotaExhausted,
    "bad_request": BadRequest,
    "wrong_key": AuthenticationFailed,
    "server_error": ServerFailure,
}
CUT_SHORT_TOKENS = {"openai": 3, "responses": 16, "anthropic": 3}

Form = Literal["openai", "responses", "anthropic"]


@dataclass(kw_only=True)
class Wire:
    """A server with one of the forms, and the request of a client."""

    form: Form
    server: Literal["simulator", "documented"]
    stream: bool
    simulator: SimulatorProcess
    open: AsyncExitStack

    async def client(self, name: str) -> LLMClient:
        """A client of a server that answers with the file of that name."""
        if self.server == "simulator":
            url = self.simulator.anthropic_base_url
        else:
            url = (await self.open.enter_async_context(serving(self.form, name))).url
        client = client_of(self.form, url)
        self.open.push_async_callback(client.close)
        return client

    async def ask(self, name: str, **kwargs: Any) -> LLMResponse:
        """One request, and its answer."""
        client = await self.client(name)
        return await client.complete(PROMPTS[name], MODELS[self.form], stream=self.stream, **kwargs)


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with run_in_process() as process:
        yield process


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["simulator", "documented"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
async def wire(
    request: pytest.FixtureRequest, form: Form, server: Any, simulator: SimulatorProcess
) -> AsyncIterator[Wire]:
    async with AsyncExitStack() as stack:
        yield Wire(
            form=form,
            server=server,
            stream=request.param,
            simulator=simulator,
            open=stack,
        )


@pytest.fixture
def streamed(wire: Wire) -> Wire:
    wire.stream = True
    return wire


def test_every_file_has_its_scenario_in_every_form() -> None:
    assert {form: names(form) for form in FORMS} == dict.fromkeys(FORMS, sorted(PROMPTS))


async def test_a_text_comes_with_its_usage(wire: Wire) -> None:
    pieces = list[str]()

    response = await wire.ask("text", on_text=pieces.append)

    assert response.content
    assert response.finish_reason == "stop"
    assert response.tool_calls is None
    assert response.request_id
    assert response.model.startswith(MODELS[wire.form])
    assert response.usage.prompt_tokens == response.input_tokens > 0
    assert response.usage.output_tokens == response.output_tokens > 0
    assert response.raw_usage
    assert "usage_missing" not in response.metadata
    assert "".join(pieces) == (response.content if wire.stream else "")
    if wire.server == "documented":
        assert response.content == "Hello! How can I assist you today?"
        assert (response.input_tokens, response.output_tokens) == (19, 10)
        assert any("ratelimit" in name for name in response.headers)


async def test_an_answer_that_is_capped_says_so(wire: Wire) -> None:
    response = await wire.ask("cut_short", max_tokens=CUT_SHORT_TOKENS[wire.form])

    assert response.finish_reason == "length"
    assert response.output_tokens == CUT_SHORT_TOKENS[wire.form]


async def test_cached_and_reasoning_tokens_are_told_apart(wire: Wire) -> None:
    response = await wire.ask("caching")

    usage = response.usage
    assert usage.cached_tokens == (1900 if _is_documented(wire, "anthropic") else 1920)
    assert usage.prompt_tokens > usage.cached_tokens
    assert usage.reasoning_tokens in (200, 0)  # Anthropic reports them only since November 2026
    assert usage.output_tokens >= 200
    if _is_documented(wire, "anthropic"):
        assert usage.cache_write_tokens == 56
        original = response.metadata["original"]
        assert original["by"] == "anthropic"
        assert [block["type"] for block in original["message"]] == ["thinking", "text"]
        assert original["message"][0]["signature"].startswith("EqQB")
    if _is_documented(wire, "responses"):
        assert usage.cache_write_tokens == 56
        original = response.metadata["original"]
        assert [item["type"] for item in original["message"]] == ["reasoning", "message"]
        assert original["message"][0]["encrypted_content"].startswith("gAAAAAB")


@pytest.mark.parametrize(
    ("name", "called"),
    [("one_tool", ["get_weather"]), ("parallel_tools", ["get_weather", "get_time"])],
)
async def test_calls_of_tools_are_whole_and_in_order_and_their_results_are_answered(
    wire: Wire, name: str, called: list[str]
) -> None:
    client, model = await wire.client(name), MODELS[wire.form]
    question: Message = {"role": "user", "content": PROMPTS[name]}

    first = await client.complete_with_tools([question], model, TOOLS, stream=wire.stream)
    calls = first.tool_calls or ()
    results = [{"role": "tool", "tool_call_id": call.id, "content": "14 degrees"} for call in calls]
    second = await client.complete_with_tools(
        [question, first.as_message(), *results], model, TOOLS, stream=wire.stream
    )

    assert first.finish_reason == "tool_calls"
    assert [call.name for call in calls] == called
    assert len({call.id for call in calls}) == len(called)
    arguments = [json.loads(call.arguments) for call in calls]
    assert all(each.keys() == {"location"} for each in arguments)
    assert second.finish_reason == "stop"
    assert "14 degrees" in second.content
    if wire.server == "documented":
        places = ["Paris, France", "Bogotá, Colombia"][: len(called)]
        assert [each["location"] for each in arguments] == places


async def test_what_goes_back_is_what_the_form_asks_for(form: Form) -> None:
    question: Message = {"role": "user", "content": "Both, please."}

    async with serving(form, "parallel_tools") as server:
        client = client_of(form, server.url)
        first = await client.complete_with_tools([question], MODELS[form], TOOLS, stream=True)
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": call.name}
            for call in first.tool_calls or ()
        ]
        await client.complete_with_tools(
            [question, first.as_message(), *results], MODELS[form], TOOLS, stream=True
        )
        await client.close()

    request = server.requests[1]
    said = shapes(form, "parallel_tools")["whole"][0]["body"]
    if form == "responses":
        _, *items = request["input"]
        of_the_store = ("id", "status")
        assert items[:4] == [
            {name: value for name, value in item.items() if name not in of_the_store}
            for item in said["output"]
        ]
        assert [item["call_id"] for item in items[4:]] == [
            item["call_id"] for item in said["output"] if item["type"] == "function_call"
        ]
        assert (request["store"], request["include"]) == (False, ["reasoning.encrypted_content"])
        return
    _, assistant, *answers = request["messages"]
    if form == "openai":
        assert server.requests[1]["stream_options"] == {"include_usage": True}
        assert assistant["tool_calls"] == said["choices"][0]["message"]["tool_calls"]
        assert [each["role"] for each in answers] == ["tool", "tool"]
        assert [each["tool_call_id"] for each in answers] == [
            call["id"] for call in assistant["tool_calls"]
        ]
    else:
        assert assistant["content"] == said["content"]
        (together,) = answers
        assert [each["tool_use_id"] for each in together["content"]] == [
            block["id"] for block in said["content"] if block["type"] == "tool_use"
        ]


async def test_hints_for_the_providers_cache_go_out_in_each_form(
    form: Form,
) -> None:
    async with serving(form, "text") as server:
        client = client_of(form, server.url)
        await client.complete(
            "Hello.", MODELS[form], tools=TOOLS, system="The rules.", prompt_cache="1h"
        )
        await client.close()

    (request,) = server.requests
    assert "prompt_cache" not in request
    if form == "responses":
        assert len(request["prompt_cache_key"]) == 32
        assert request["instructions"] == "The rules."
    elif form == "openai":
        assert len(request["prompt_cache_key"]) == 32
        assert request["messages"][0] == {"role": "system", "content": "The rules."}
    else:
        mark = {"type": "ephemeral", "ttl": "1h"}
        assert request["cache_control"] == mark
        assert request["system"] == [{"type": "text", "text": "The rules.", "cache_control": mark}]


async def test_a_provider_of_the_configuration_is_asked_as_it_wants_to_be(
    form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_KEY", "k-1")
    async with serving(form, "text") as server:
        protocol = PROTOCOL_OF[form]
        url = f"{server.url}/v1" if protocol == "openai" else server.url
        api = {"api": "responses"} if form == "responses" else {}
        settings = load_settings(
            providers={
                "gateway": {
                    "protocol": protocol,
                    **api,
                    "base_url": url,
                    "headers": {"api-key": "${TEAM_KEY}", "X-Team": "erp"},
                    "query": {"api-version": "2024-10-21"},
                }
            }
        )
        client = client_factories(settings)["gateway"]()
        response = await client.complete("Hello.", "any-model")
        await client.close()

    (headers,) = server.headers
    assert response.content.startswith("Hello!")
    assert (headers["api-key"], headers["x-team"]) == ("k-1", "erp")
    assert "none" in (headers.get("authorization", "") + headers.get("x-api-key", ""))
    assert server.queries == [{"api-version": "2024-10-21"}]


async def test_a_refusal_is_told_by_its_finish_reason(wire: Wire) -> None:
    response = await wire.ask("refusal")

    assert response.finish_reason == "content_filter"
    assert response.content == ""
    assert response.output_tokens > 0
    if PROTOCOL_OF[wire.form] == "openai":
        assert "sorry" in response.metadata["refusal"]


@pytest.mark.parametrize(("name", "expected"), FAILURES.items())
async def test_every_refused_request_has_its_error(
    wire: Wire, name: str, expected: type[ProviderError]
) -> None:
    told = list[Partial]()

    with pytest.raises(ProviderError) as failed:
        await wire.ask(name, on_broken=told.append)

    error = failed.value
    assert type(error) is expected
    assert error.reached
    assert error.request_id
    assert (error.provider, error.partial, told) == (PROTOCOL_OF[wire.form], None, [])
    assert error.retry_after_s == {
        ("rate_limited", "documented", "openai"): 19.8,
        ("rate_limited", "documented", "anthropic"): 20,
        ("rate_limited", "simulator", "openai"): 20,
        ("rate_limited", "simulator", "anthropic"): 20,
    }.get((name, wire.server, PROTOCOL_OF[wire.form]))
    if name == "overloaded" and wire.form == "anthropic":
        assert error.status == 529


@pytest.mark.parametrize("name", ["error_after_200", "cut_off"])
async def test_a_stream_that_fails_after_a_200_tells_what_had_come(
    streamed: Wire, name: str
) -> None:
    pieces, told = list[str](), list[Partial]()

    with pytest.raises(ProviderError) as failed:
        await streamed.ask(name, on_text=pieces.append, on_broken=told.append)

    error = failed.value
    late = Overloaded if _is_documented(streamed, "anthropic") else ServerFailure
    assert type(error) is (ConnectionFailed if name == "cut_off" else late)
    assert error.retriable
    assert error.reached
    assert error.request_id
    assert error.partial is not None
    assert told == [error.partial]
    # Where a response has failed, its last event has its usage.
    counted = (streamed.form, streamed.server, name) == (
        "responses",
        "simulator",
        "error_after_200",
    )
    assert error.partial.final is counted
    assert pieces
    assert error.partial.usage.output_tokens >= len("".join(pieces)) // 4
    assert error.partial.prompt_counted is (streamed.form == "anthropic" or counted)
    if streamed.server == "documented":
        assert "".join(pieces).startswith("Hello! How")


def _is_documented(wire: Wire, form: str) -> bool:
    return (wire.server, wire.form) == ("documented", form)

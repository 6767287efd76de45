"""The clients through the real SDKs: against the simulator, and against a server that records."""

import asyncio
import json
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from app.domain.usage import Usage
from app.errors import (
    AuthenticationFailed,
    BadRequest,
    ConfigurationError,
    ConnectionFailed,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerFailure,
)
from app.llm.anthropic import AnthropicClient
from app.llm.base import LLMClient, Message, ToolCall
from app.llm.clients import Clients
from app.llm.openai import OpenAIClient
from app.simulator.process import SimulatorProcess, run_in_process

pytestmark = pytest.mark.anyio

KEY = "sk-test-of-the-clients"
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-6"}
TOOL = {
    "name": "look_up",
    "description": "Looks something up.",
    "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
}
CALLS = [
    ToolCall(id="call_1", name="look_up", arguments='{"key": "a"}'),
    ToolCall(id="call_2", name="look_up", arguments='{"key": '),
]
CONVERSATION: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Look up a."},
    {"role": "assistant", "content": "I will.", "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "call_1", "content": "A"},
    {"role": "tool", "tool_call_id": "call_2", "content": "not JSON", "is_error": True},
    {"role": "user", "content": "And?"},
]
OPENAI_ANSWER = {
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 30},
    },
}
ANTHROPIC_ANSWER = {
    "type": "message",
    "model": "claude-sonnet-4-6",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 16,
        "cache_read_input_tokens": 64,
        "cache_creation_input_tokens": 20,
        "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 15},
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 30},
    },
}
ANSWERS = {"openai": OPENAI_ANSWER, "anthropic": ANTHROPIC_ANSWER}


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with run_in_process() as process:
        yield process


@pytest.fixture(params=["openai", "anthropic"])
def provider(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def client(provider: str, simulator: SimulatorProcess) -> AsyncIterator[LLMClient]:
    """A client of the simulator."""
    made: LLMClient
    if provider == "openai":
        made = OpenAIClient(KEY, base_url=simulator.openai_base_url)
    else:
        made = AnthropicClient(KEY, base_url=simulator.anthropic_base_url)
    yield made
    await made.close()


@dataclass
class Recorder:
    """A server that gives one answer, and a client of it."""

    client: LLMClient
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def model(self) -> str:
        return MODELS[self.client.provider]


@asynccontextmanager
async def recorder(
    provider: str, answer: Any = None, *, status: int = 200, headers: dict[str, str] | None = None
) -> AsyncIterator[Recorder]:
    answer = ANSWERS[provider] if answer is None else answer
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    async def handle(request: web.Request) -> web.Response:
        recorded.bodies.append(await request.json())
        recorded.headers.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(
            body=content, status=status, headers=headers, content_type="application/json"
        )

    server = web.Application()
    server.router.add_post("/v1/chat/completions", handle)
    server.router.add_post("/v1/messages", handle)
    runner = web.AppRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    client: LLMClient
    if provider == "openai":
        client = OpenAIClient(KEY, base_url=f"{url}/v1", headers={"x-extra": "1"})
    else:
        client = AnthropicClient(KEY, base_url=url, headers={"x-extra": "1"})
    recorded = Recorder(client)
    yield recorded
    await client.close()
    await runner.cleanup()


def test_importing_the_clients_does_not_import_the_sdks() -> None:
    program = """
import sys
import app.llm.openai, app.llm.anthropic, app.llm.clients, app.costs.pricing
print([name for name in ("openai", "anthropic", "aiohttp", "genai_prices") if name in sys.modules])
"""

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


async def test_a_prompt_gets_a_text_and_what_it_took(
    client: LLMClient, simulator: SimulatorProcess
) -> None:
    model = MODELS[client.provider]

    response = await client.complete("Name a colour.", model, temperature=0.2, system="Be brief.")

    served = simulator.ledger()[-1]
    assert response.content
    assert (response.model, response.finish_reason) == (model, "stop")
    assert response.request_id
    assert response.request_id == served["request_id"]
    assert response.tool_calls is None
    assert response.usage.prompt_tokens == response.input_tokens == served["input_tokens"]
    assert response.usage.output_tokens == response.output_tokens == served["output_tokens"]


async def test_a_capped_answer_ends_with_length(client: LLMClient) -> None:
    response = await client.complete(
        "Go on. [[sim:output_tokens=500]]", MODELS[client.provider], max_tokens=10
    )

    assert response.finish_reason == "length"
    assert response.output_tokens == 10


async def test_cached_and_reasoning_tokens_are_told_apart(client: LLMClient) -> None:
    prompt = "x" * 4000 + "[[sim:cached_tokens=600,cache_write_tokens=100,reasoning_tokens=7]]"

    usage = (await client.complete(prompt, MODELS[client.provider])).usage

    assert (usage.cached_tokens, usage.cache_write_tokens) == (600, 100)
    assert usage.prompt_tokens == usage.input_tokens + 700
    assert usage.reasoning_tokens in (7, 0)  # Anthropic tells them only since November 2026


async def test_a_tool_is_asked_for_and_its_result_answered(client: LLMClient) -> None:
    model = MODELS[client.provider]
    question: Message = {"role": "user", "content": "Look up the key. [[sim:tool_turns=1]]"}

    first = await client.complete_with_tools([question], model, [TOOL])
    assert first.tool_calls is not None
    (call,) = first.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "forty-two"}
    second = await client.complete_with_tools([question, first.as_message(), result], model, [TOOL])

    assert first.finish_reason == "tool_calls"
    assert call.name == "look_up"
    assert "key" in json.loads(call.arguments)
    assert second.tool_calls is None
    assert "forty-two" in second.content


@pytest.mark.parametrize(
    ("marker", "expected", "status"),
    [
        ("status=400", BadRequest, 400),
        ("status=401", AuthenticationFailed, 401),
        ("status=403", AuthenticationFailed, 403),
        ("status=404", BadRequest, 404),
        ("status=413", BadRequest, 413),
        ("status=422", BadRequest, 422),
        ("status=429,retry_after=3", RateLimited, 429),
        ("status=429,code=insufficient_quota", QuotaExhausted, 429),
        ("status=500", ServerFailure, 500),
        ("status=502", ServerFailure, 502),
        ("status=503", Overloaded, 503),
        ("status=529", Overloaded, 529),
        ("garbage", ServerFailure, 200),
        ("drop", ConnectionFailed, None),
        ("cut_stream", ConnectionFailed, None),
        ("hang", ConnectionFailed, None),
    ],
)
async def test_every_failure_has_its_error_after_one_request(
    client: LLMClient,
    simulator: SimulatorProcess,
    marker: str,
    expected: type[ProviderError],
    status: int | None,
) -> None:
    served_before = simulator.summary()["requests"]

    with pytest.raises(ProviderError) as failed:
        await client.complete_with_tools(
            [{"role": "user", "content": f"Fail. [[sim:{marker}]]"}],
            MODELS[client.provider],
            timeout_s=1,
        )

    error = failed.value
    assert type(error) is expected
    assert (error.status, error.provider, error.reached) == (status, client.provider, True)
    assert error.retry_after_s == (3 if "retry_after" in marker else None)
    assert bool(error.request_id) is (status is not None)
    assert KEY not in str(error)
    assert simulator.summary()["requests"] == served_before + 1


async def test_an_unknown_model_is_a_bad_request(client: LLMClient) -> None:
    with pytest.raises(BadRequest, match="no-such-model"):
        await client.complete("Hello.", "no-such-model")


async def test_a_refused_connection_never_reached_the_provider(provider: str) -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    client = _client_of(provider, f"http://127.0.0.1:{port}")

    with pytest.raises(ConnectionFailed) as failed:
        await client.complete("Hello.", MODELS[provider])
    await client.close()

    assert not failed.value.reached
    assert "Connect" in str(failed.value)


async def test_a_deadline_also_ends_an_answer_that_stalls(provider: str) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        while await reader.read(1024):
            pass
        writer.close()

    async with _raw_server(stall) as url:
        client = _client_of(provider, url)
        with pytest.raises(ConnectionFailed, match=r"within 0\.3 s") as failed:
            await client.complete("Hello.", MODELS[provider], timeout_s=0.3)
        await client.close()

    assert failed.value.reached


async def test_cancelling_closes_the_connection(provider: str) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        while await reader.read(1024):
            pass
        hung_up.set()
        writer.close()

    async with _raw_server(listen) as url:
        client = _client_of(provider, url)
        call = asyncio.create_task(client.complete("Hello.", MODELS[provider]))
        await asyncio.wait_for(asked.wait(), 10)
        call.cancel()

        await asyncio.wait_for(hung_up.wait(), 2)
        with pytest.raises(asyncio.CancelledError):
            await call
        await client.close()


@pytest.mark.parametrize("key", [None, ""])
async def test_without_a_key_no_request_is_made(key: str | None) -> None:
    for client, variable in (
        (OpenAIClient(key), "OPENAI_API_KEY"),
        (AnthropicClient(key), "ANTHROPIC_API_KEY"),
        (OpenAIClient(key, provider="groq", api_key_env="GROQ_KEY"), "GROQ_KEY"),
    ):
        with pytest.raises(AuthenticationFailed) as failed:
            await client.complete("Hello.", MODELS["openai"])

        assert str(failed.value) == f"no API key for {client.provider}: set {variable}"
        assert not failed.value.reached


async def test_usage_of_both_protocols_becomes_disjoint_counts(provider: str) -> None:
    async with recorder(provider) as server:
        response = await server.client.complete("Hello.", server.model)

    if provider == "openai":
        written = {"cache_write_tokens": 20}
    else:
        written = {"cache_write_tokens": 5, "cache_write_1h_tokens": 15}
    assert response.usage == Usage(
        input_tokens=16, cached_tokens=64, output_tokens=50, reasoning_tokens=30, **written
    )
    assert (response.input_tokens, response.output_tokens) == (100, 50)
    assert response.raw_usage == ANSWERS[provider]["usage"]


async def test_limit_headers_come_with_answers_and_errors(provider: str) -> None:
    sent = {"x-ratelimit-remaining-requests": "9", "retry-after": "2", "set-cookie": "a=b"}
    kept = {"x-ratelimit-remaining-requests": "9", "retry-after": "2"}

    async with recorder(provider, headers=sent) as server:
        response = await server.client.complete("Hello.", server.model)
    async with recorder(provider, {"error": {}}, status=429, headers=sent) as server:
        with pytest.raises(RateLimited) as failed:
            await server.client.complete("Hello.", server.model)

    assert response.headers == kept
    assert failed.value.headers == kept


async def test_requests_carry_the_key_and_the_configured_headers(provider: str) -> None:
    async with recorder(provider) as server:
        await server.client.complete("Hello.", server.model)

    headers = server.headers[0]
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["x-extra"] == "1"
    assert headers["content-type"] == "application/json"


async def test_a_conversation_in_openais_form() -> None:
    async with recorder("openai") as server:
        await server.client.complete_with_tools(
            CONVERSATION, server.model, [TOOL | {"import": "shop:look_up"}], top_p=None, seed=7
        )

    assert server.bodies[0] == {
        "model": "gpt-4o-mini",
        "max_tokens": 4096,
        "seed": 7,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Look up a."},
            {
                "role": "assistant",
                "content": "I will.",
                "tool_calls": [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": "look_up", "arguments": call.arguments},
                    }
                    for call in CALLS
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "A"},
            {"role": "tool", "tool_call_id": "call_2", "content": "not JSON"},
            {"role": "user", "content": "And?"},
        ],
        "tools": [{"type": "function", "function": TOOL}],
    }


async def test_a_conversation_in_anthropics_form() -> None:
    async with recorder("anthropic") as server:
        await server.client.complete_with_tools(
            CONVERSATION, server.model, [TOOL | {"import": "shop:look_up"}], system="You are Ada."
        )

    assert server.bodies[0] == {
        "model": "claude-sonnet-4-6",
        "max_tokens": 4096,
        "system": "You are Ada.\n\nBe brief.",
        "messages": [
            {"role": "user", "content": "Look up a."},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I will."},
                    {"type": "tool_use", "id": "call_1", "name": "look_up", "input": {"key": "a"}},
                    {
                        "type": "tool_use",
                        "id": "call_2",
                        "name": "look_up",
                        "input": {"arguments": '{"key": '},
                    },
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": "A"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_2",
                        "content": "not JSON",
                        "is_error": True,
                    },
                ],
            },
            {"role": "user", "content": "And?"},
        ],
        "tools": [
            {
                "name": "look_up",
                "description": TOOL["description"],
                "input_schema": TOOL["parameters"],
            }
        ],
    }


async def test_instructions_may_be_blocks_for_anthropics_cache() -> None:
    block = {"type": "text", "text": "Be Ada.", "cache_control": {"type": "ephemeral"}}

    async with recorder("anthropic") as server:
        await server.client.complete_with_tools(CONVERSATION[:2], server.model, system=[block])

    assert server.bodies[0]["system"] == [block, {"type": "text", "text": "Be brief."}]


async def test_reasoning_goes_back_to_anthropic_unchanged() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "abc"},
        {"type": "text", "text": "I will."},
        {"type": "tool_use", "id": "t1", "name": "look_up", "input": {"key": "ä"}},
    ]

    async with recorder("anthropic", ANTHROPIC_ANSWER | {"content": blocks}) as server:
        response = await server.client.complete("Look.", server.model)
        await server.client.complete_with_tools(
            [{"role": "user", "content": "Look."}, response.as_message()], server.model
        )

    assert response.content == "I will."
    assert response.tool_calls == [ToolCall(id="t1", name="look_up", arguments='{"key":"ä"}')]
    assert server.bodies[1]["messages"][1] == {"role": "assistant", "content": blocks}


@pytest.mark.parametrize(
    ("model", "params", "sent"),
    [
        ("gpt-4o", {"temperature": 0.2}, {"temperature": 0.2, "max_tokens": 9}),
        ("gpt-5-mini", {}, {"max_completion_tokens": 9}),
        ("gpt-5-mini", {"temperature": 1, "top_p": 1}, {"max_completion_tokens": 9}),
        ("gpt-5.2", {"temperature": 0}, {"temperature": 0, "max_completion_tokens": 9}),
        (
            "o3",
            {"reasoning_effort": "low"},
            {"reasoning_effort": "low", "max_completion_tokens": 9},
        ),
    ],
)
async def test_parameters_are_sent_as_each_model_of_openai_takes_them(
    model: str, params: dict[str, Any], sent: dict[str, Any]
) -> None:
    async with recorder("openai") as server:
        await server.client.complete("Hello.", model, max_tokens=9, **params)

    body = server.bodies[0]
    assert body == sent | {"model": model, "messages": [{"role": "user", "content": "Hello."}]}


async def test_models_of_anthropic_that_sample_are_asked_by_the_version_that_allows_it() -> None:
    async with recorder("anthropic") as server:
        await server.client.complete("Hello.", "claude-haiku-4-5", temperature=0.2)
        await server.client.complete("Hello.", "claude-opus-5-5", temperature=1)
        await server.client.complete("Hello.", "claude-opus-5-5")

    versions = [headers["anthropic-version"] for headers in server.headers]
    assert server.bodies[0]["temperature"] == 0.2
    assert "temperature" not in server.bodies[1]
    assert versions[0] == "2023-06-01"
    assert versions[1] == versions[2] > "2023-06-01"


@pytest.mark.parametrize(
    ("provider", "model", "params", "complaint"),
    [
        ("openai", "gpt-5-mini", {"temperature": 0.2}, "takes no temperature: remove it"),
        ("openai", "gpt-6-sol", {"top_p": 0.2}, "takes no top_p"),
        ("openai", "gpt-4o", {"n": 3}, "one answer"),
        ("openai", "gpt-4o", {"stream": True}, "stream"),
        ("openai", "gpt-4o", {"web_search_options": {}}, "no price"),
        ("openai", "gpt-5", {"max_completion_tokens": 5}, "give max_tokens"),
        ("openai", "gpt-4o", {"metadata": {"a": {1, 2}}}, "not JSON"),
        ("openai", "gpt-4o", {"system": "\ud800"}, "not JSON"),
        ("anthropic", "claude-opus-5-5", {"temperature": 0.2}, "takes no temperature"),
        ("anthropic", "claude-opus-5-5", {"top_k": 1}, "takes no top_k"),
        ("anthropic", "claude-opus-5-5", {"mcp_servers": []}, "tools run in the workers"),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_it_is(
    provider: str, model: str, params: dict[str, Any], complaint: str
) -> None:
    async with recorder(provider) as server:
        with pytest.raises(BadRequest, match=complaint) as refused:
            await server.client.complete("Hello.", model, **params)

    assert not refused.value.reached
    assert not server.bodies


async def test_a_message_of_an_unknown_role_is_refused(provider: str) -> None:
    async with recorder(provider) as server:
        with pytest.raises(BadRequest, match="'critic'"):
            await server.client.complete_with_tools(
                [{"role": "critic", "content": "bad"}], server.model
            )


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>busy</html>",
        b"null",
        b"[]",
        b"{}",
        b'{"model": "m", "choices": [], "content": 5}',
        b'{"model": "m", "choices": [{"message": {"content": 5}}], "content": [{"type": "text"}]}',
        b'{"model": "m", "choices": [{"message": {}}], "content": [], "usage": {"total": 1}}',
    ],
)
async def test_an_answer_that_is_not_the_protocol_is_the_servers_failure(
    provider: str, answer: bytes
) -> None:
    async with recorder(provider, answer, headers={"x-request-id": "req_7"}) as server:
        with pytest.raises(ServerFailure, match="not its protocol") as failed:
            await server.client.complete("Hello.", server.model)

    assert (failed.value.status, failed.value.request_id) == (200, "req_7")
    assert failed.value.reached


async def test_a_key_that_the_provider_repeats_stays_out_of_the_traceback(provider: str) -> None:
    body = {"error": {"type": "authentication_error", "message": f"Incorrect API key: {KEY}"}}

    async with recorder(provider, body, status=401) as server:
        with pytest.raises(AuthenticationFailed, match="Incorrect API key") as failed:
            await server.client.complete("Hello.", server.model)

    assert KEY not in "".join(traceback.format_exception(failed.value))


async def test_an_error_in_a_200_is_an_error(provider: str) -> None:
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}

    async with recorder(provider, body) as server:
        with pytest.raises(Overloaded, match="busy"):
            await server.client.complete("Hello.", server.model)


async def test_an_answer_without_usage_is_counted_by_its_upper_bound(provider: str) -> None:
    answer = {key: value for key, value in ANSWERS[provider].items() if key != "usage"}

    async with recorder(provider, answer) as server:
        response = await server.client.complete("Hello." * 100, server.model)

    assert response.metadata["usage_missing"]
    assert response.usage.input_tokens == response.input_tokens > 600
    assert response.output_tokens == 2
    assert response.raw_usage == {}


async def test_a_refusal_is_told_by_its_finish_reason() -> None:
    message = {"role": "assistant", "content": None, "refusal": "I cannot."}
    choice = {"message": message, "finish_reason": "stop"}

    async with recorder("openai", OPENAI_ANSWER | {"choices": [choice]}) as server:
        of_openai = await server.client.complete("Hello.", server.model)
    refused = ANTHROPIC_ANSWER | {"stop_reason": "refusal", "content": []}
    async with recorder("anthropic", refused) as server:
        of_anthropic = await server.client.complete("Hello.", server.model)

    assert of_openai.finish_reason == of_anthropic.finish_reason == "content_filter"
    assert of_openai.content == of_anthropic.content == ""
    assert of_openai.metadata["refusal"] == "I cannot."


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [("stop_sequence", "stop"), ("model_context_window_exceeded", "length"), ("new", "stop")],
)
async def test_stop_reasons_of_anthropic_are_normalised(
    stop_reason: str, finish_reason: str
) -> None:
    answer = ANTHROPIC_ANSWER | {"stop_reason": stop_reason, "stop_sequence": "END"}

    async with recorder("anthropic", answer) as server:
        response = await server.client.complete("Hello.", server.model)

    assert response.finish_reason == finish_reason
    assert response.metadata["stop_sequence"] == "END"


def test_what_is_known_of_a_model_is_told() -> None:
    client = OpenAIClient(KEY, provider="azure")

    assert client.get_model_info("gpt-4o-mini") == {
        "provider": "azure",
        "model": "gpt-4o-mini",
        "context_window": 128_000,
        "max_output_tokens": 16_384,
    }
    assert client.get_model_info("llama")["context_window"] is None


async def test_preloading_makes_the_clients_that_have_keys(simulator: SimulatorProcess) -> None:
    client = OpenAIClient(KEY, base_url=simulator.openai_base_url)
    clients = Clients({"openai": lambda: client, "anthropic": lambda: AnthropicClient(None)})

    await asyncio.to_thread(clients.preload)
    response = await client.complete("Hello.", MODELS["openai"])
    await clients.close()

    assert response.content


async def test_clients_are_made_once_and_closed_together(simulator: SimulatorProcess) -> None:
    clients = Clients(
        {
            "openai": lambda: OpenAIClient(KEY, base_url=simulator.openai_base_url),
            "anthropic": lambda: AnthropicClient(KEY, base_url=simulator.anthropic_base_url),
        }
    )

    made = clients.get("openai")
    await made.complete("Hello.", MODELS["openai"])

    assert clients.providers == ["openai", "anthropic"]
    assert clients.get("openai") is made
    with pytest.raises(ConfigurationError, match=r"'openia' is not configured.*'openai'\?"):
        clients.get("openia")
    await clients.close()
    assert clients.get("openai") is not made


def _client_of(provider: str, url: str) -> LLMClient:
    if provider == "openai":
        return OpenAIClient(KEY, base_url=url)
    return AnthropicClient(KEY, base_url=url)


@asynccontextmanager
async def _raw_server(handle: Any) -> AsyncIterator[str]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

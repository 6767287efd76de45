"""The clients through the real SDKs, against the simulator and against servers that hang."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

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
from app.llm.base import LLMClient, Message
from app.llm.clients import Clients
from app.llm.openai import OpenAIClient
from app.simulator.process import SimulatorProcess, run_in_process
from tests.support.llm_clients import FORMS, KEY, PROTOCOL_OF, client_of
from tests.support.pace import scaled

pytestmark = pytest.mark.anyio

MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-6"}
TOOL = {
    "name": "look_up",
    "description": "Looks something up.",
    "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
}


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with run_in_process() as process:
        yield process


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def client(form: str, simulator: SimulatorProcess) -> AsyncIterator[LLMClient]:
    """A client of the simulator."""
    made = client_of(form, simulator.anthropic_base_url)
    yield made
    await made.close()


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
        "Go on. [[sim:output_tokens=500]]", MODELS[client.provider], max_tokens=16
    )

    assert response.finish_reason == "length"
    assert response.output_tokens == 16


async def test_cached_and_reasoning_tokens_are_told_apart(client: LLMClient) -> None:
    prompt = "x" * 4000 + "[[sim:cached_tokens=600,cache_write_tokens=100,reasoning_tokens=7]]"

    usage = (await client.complete(prompt, MODELS[client.provider])).usage

    assert (usage.cached_tokens, usage.cache_write_tokens) == (600, 100)
    assert usage.prompt_tokens == usage.input_tokens + 700
    assert usage.reasoning_tokens in (7, 0)  # Anthropic reports them only since November 2026


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
        ("error_in_200", ServerFailure, 500),
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


async def test_a_refused_connection_never_reached_the_provider(form: str) -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    client = client_of(form, f"http://127.0.0.1:{port}")

    with pytest.raises(ConnectionFailed) as failed:
        await client.complete("Hello.", MODELS[PROTOCOL_OF[form]])
    await client.close()

    assert not failed.value.reached
    assert "Connect" in str(failed.value)


async def test_a_deadline_also_ends_an_answer_that_stalls(form: str) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        while await reader.read(1024):
            pass
        writer.close()

    async with _raw_server(stall) as url:
        client = client_of(form, url)
        with pytest.raises(ConnectionFailed, match=r"within 0\.3 s") as failed:
            await client.complete("Hello.", MODELS[PROTOCOL_OF[form]], timeout_s=0.3)
        await client.close()

    assert failed.value.reached


async def test_cancelling_closes_the_connection(form: str) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        while await reader.read(1024):
            pass
        hung_up.set()
        writer.close()

    async with _raw_server(listen) as url:
        client = client_of(form, url)
        call = asyncio.create_task(client.complete("Hello.", MODELS[PROTOCOL_OF[form]]))
        await asyncio.wait_for(asked.wait(), scaled(10))
        call.cancel()

        await asyncio.wait_for(hung_up.wait(), scaled(2))
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

    await asyncio.to_thread(clients.preload, ["openai", "anthropic"])
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


@asynccontextmanager
async def _raw_server(handle: Any) -> AsyncIterator[str]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_the_text_of_an_error_is_decoded_in_no_time(form: str) -> None:
    async def refuse(_: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; charset=punycode"}
        return web.Response(status=400, body=b"no no no-" + b"a" * 200_000, headers=headers)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    client = client_of(form, url)
    client.preload()
    started_s = time.thread_time()

    with pytest.raises(BadRequest, match="no no no"):
        await client.complete("go", model="gpt-4o", max_tokens=50)

    assert time.thread_time() - started_s < 1.5
    await client.close()
    await runner.cleanup()

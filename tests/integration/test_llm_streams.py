"""Streamed answers through the real SDKs: from the simulator, and from faulty servers.

Over 400 lines because it has the events of all request forms as they are sent.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from app.domain.usage import Partial, Usage
from app.errors import ConnectionFailed, Overloaded, ProviderError, RateLimited, ServerFailure
from app.llm.base import LLMClient, LLMResponse, Message
from app.simulator.process import SimulatorProcess, run_in_process
from tests.support.llm_clients import FORMS, PROTOCOL_OF, client_of
from tests.support.pace import scaled
from tests.support.waiting import wait_until
from tests.support.wire_server import provider_server

pytestmark = pytest.mark.anyio

MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-5"}
TOOLS = [
    {
        "name": name,
        "description": "Does something.",
        "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
    }
    for name in ("look_up", "write_down")
]
LIMITS = {"x-ratelimit-remaining-requests": "9"}
OPENAI_EVENTS = [
    {"model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {"content": "Hel"}}]},
    {"model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {"content": "lo"}}]},
    {"model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
]
ANTHROPIC_EVENTS = [
    {
        "type": "message_start",
        "message": {
            "model": "claude-sonnet-5",
            "content": [],
            "usage": {"input_tokens": 9, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 2},
    },
    {"type": "message_stop"},
]
RESPONSE: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "status": "in_progress",
    "output": [],
    "usage": None,
}
MESSAGE = {"type": "message", "role": "assistant", "status": "completed"}
RESPONSES_EVENTS = [
    {"type": "response.created", "response": RESPONSE},
    {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {**MESSAGE, "status": "in_progress", "content": []},
    },
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hello"},
    {
        "type": "response.completed",
        "response": {
            **RESPONSE,
            "status": "completed",
            "output": [{**MESSAGE, "content": [{"type": "output_text", "text": "Hello"}]}],
            "usage": {"input_tokens": 9, "output_tokens": 2},
        },
    },
]
EVENTS: dict[str, list[Any]] = {
    "openai": OPENAI_EVENTS,
    "responses": RESPONSES_EVENTS,
    "anthropic": ANTHROPIC_EVENTS,
}
ERRORS: dict[str, Any] = {
    "openai": {"error": {"message": "busy", "type": "overloaded_error"}},
    "responses": {"type": "error", "code": "server_is_overloaded", "message": "busy"},
    "anthropic": {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "busy"},
        "request_id": "req_in_the_event",
    },
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
    made = client_of(form, simulator.anthropic_base_url)
    yield made
    await made.close()


def wire(events: list[Any]) -> bytes:
    """Events as server-sent events; bytes stay as they are."""
    parts = []
    for event in events:
        if isinstance(event, bytes):
            parts.append(event)
        else:
            name = f"event: {event['type']}\n" if "type" in event else ""
            parts.append(f"{name}data: {json.dumps(event)}\n\n".encode())
    return b"".join(parts)


@asynccontextmanager
async def serving(
    form: str, content: bytes, *, kind: str = "text/event-stream", cut: bool = False
) -> AsyncIterator[LLMClient]:
    """A client of a server that sends this, and then ends the connection if ``cut`` is set."""

    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        headers = {"x-request-id": "req_1", "request-id": "req_1", "content-type": kind, **LIMITS}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(content)
        if cut:
            assert request.transport is not None
            request.transport.close()
        return response

    async with provider_server(handle) as url:
        client = client_of(form, url)
        yield client
        await client.close()


async def failure_of(client: LLMClient, prompt: str = "Hello.", **kwargs: Any) -> ProviderError:
    with pytest.raises(ProviderError) as failed:
        await client.complete(prompt, MODELS[client.provider], stream=True, **kwargs)
    return failed.value


def comparable(response: LLMResponse) -> LLMResponse:
    """An answer without the parts that differ from request to request."""
    metadata = {name: value for name, value in response.metadata.items() if name != "first_token_s"}
    return replace(response, request_id=None, headers={}, metadata=metadata)


async def test_a_streamed_answer_is_the_same_as_a_whole_one(
    client: LLMClient, simulator: SimulatorProcess
) -> None:
    model, pieces = MODELS[client.provider], list[str]()
    prompt = "x" * 4000 + "[[sim:cached_tokens=600,cache_write_tokens=100,output_tokens=80]]"

    whole = await client.complete(prompt, model)
    streamed = await client.complete(prompt, model, stream=True, on_text=pieces.append)

    served = simulator.ledger()[-1]
    assert served["streamed"]
    assert streamed.request_id == served["request_id"]
    assert comparable(streamed) == comparable(whole)
    assert len(pieces) > 5
    assert "".join(pieces) == streamed.content
    assert 0 < streamed.metadata["first_token_s"] < 10


async def test_calls_of_tools_are_streamed_and_answered(client: LLMClient) -> None:
    model = MODELS[client.provider]
    question: Message = {"role": "user", "content": "look_up, then write_down"}

    whole = await client.complete_with_tools([question], model, TOOLS)
    first = await client.complete_with_tools([question], model, TOOLS, stream=True)
    assert first.tool_calls is not None
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": call.name} for call in first.tool_calls
    ]
    second = await client.complete_with_tools(
        [question, first.as_message(), *results], model, TOOLS, stream=True
    )

    assert [call.name for call in first.tool_calls] == ["look_up", "write_down"]
    assert comparable(first) == comparable(whole)
    assert second.finish_reason == "stop"
    assert "write_down" in second.content


async def test_the_time_to_the_first_token_is_told(client: LLMClient) -> None:
    response = await client.complete(
        "Slowly. [[sim:ttft=0.2,latency=0.4]]", MODELS[client.provider], stream=True
    )

    assert response.metadata["first_token_s"] >= 0.2


async def test_sending_is_announced_once(client: LLMClient) -> None:
    sent = list[int]()

    async def before_sent() -> None:
        sent.append(1)

    await client.complete("Hello.", MODELS[client.provider], stream=True, before_sent=before_sent)

    assert sent == [1]


async def test_connections_are_used_again_after_a_stream(
    client: LLMClient, simulator: SimulatorProcess
) -> None:
    for _ in range(3):
        await client.complete("Hello.", MODELS[client.provider], stream=True)

    inner = client._connection.open()._client._transport  # type: ignore[attr-defined]
    assert len(inner.client.connector._conns) <= 1


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("cut_stream,output_tokens=300", ConnectionFailed),
        ("stream_error,output_tokens=300", ServerFailure),
    ],
)
async def test_a_broken_stream_tells_what_had_come(
    client: LLMClient,
    form: str,
    simulator: SimulatorProcess,
    marker: str,
    expected: type[ProviderError],
) -> None:
    told = list[Partial]()

    error = await failure_of(client, f"Go on. [[sim:{marker}]]", on_broken=told.append)

    served = simulator.ledger()[-1]
    assert type(error) is expected
    assert error.retriable
    assert error.reached
    assert error.request_id == served["request_id"]
    assert error.partial is not None
    assert told == [error.partial]
    assert error.partial.request_id == served["request_id"]
    # Where a response has failed, its last event has its usage.
    counted = form == "responses" and expected is ServerFailure
    assert error.partial.final is counted
    assert error.partial.usage.prompt_tokens >= served["input_tokens"]
    assert 100 < served["output_tokens"] <= error.partial.usage.output_tokens
    if client.provider == "anthropic":
        assert error.partial.usage.prompt_tokens == served["input_tokens"]


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("garbage", ServerFailure),
        ("drop", ConnectionFailed),
        ("hang", ConnectionFailed),
        ("status=429", RateLimited),
    ],
)
async def test_a_stream_that_never_began_has_no_part(
    client: LLMClient, marker: str, expected: type[ProviderError]
) -> None:
    told = list[Partial]()

    error = await failure_of(
        client, f"Never. [[sim:{marker}]]", timeout_s=0.5, on_broken=told.append
    )

    assert type(error) is expected
    assert (error.partial, told) == (None, [])


async def test_the_deadline_covers_the_whole_stream(
    client: LLMClient, simulator: SimulatorProcess
) -> None:
    error = await failure_of(client, "Slow. [[sim:latency=30,output_tokens=500]]", timeout_s=0.6)

    assert type(error) is ConnectionFailed
    assert "no whole answer" in str(error)
    assert error.partial is not None
    assert error.partial.usage.output_tokens > 0


async def test_cancelling_a_stream_closes_it_and_tells_what_had_come(
    client: LLMClient, simulator: SimulatorProcess
) -> None:
    told, seen = list[Partial](), asyncio.Event()
    left = simulator.summary()["disconnected"]
    call = asyncio.create_task(
        client.complete(
            "Slow. [[sim:latency=20,output_tokens=800]]",
            MODELS[client.provider],
            stream=True,
            on_text=lambda _: seen.set(),
            on_broken=told.append,
        )
    )
    await asyncio.wait_for(seen.wait(), scaled(10))

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    wait_until(lambda: simulator.summary()["disconnected"] > left, what="it was noticed")
    (partial,) = told
    served = simulator.ledger()[-1]
    assert 0 < served["output_tokens"] <= partial.usage.output_tokens < 800
    assert partial.usage.prompt_tokens >= served["input_tokens"]


async def test_an_error_event_is_the_error_of_its_type(form: str) -> None:
    content = wire([*EVENTS[form][:3], ERRORS[form]])

    async with serving(form, content) as client:
        error = await failure_of(client)

    assert type(error) is Overloaded
    assert "busy" in str(error)
    assert (error.request_id, error.headers) == ("req_1", LIMITS)
    assert error.partial is not None


async def test_a_stream_that_ends_early_has_broken_off(form: str) -> None:
    async with serving(form, wire(EVENTS[form][:2])) as client:
        error = await failure_of(client)

    assert type(error) is ConnectionFailed
    assert "broke off" in str(error)
    assert error.partial is not None
    assert error.partial.headers == LIMITS


@pytest.mark.parametrize("garbage", [b"data: {,\n\n", b"event: x\ndata: \xff\n\n"])
async def test_garbage_in_the_middle_of_a_stream_is_the_servers_failure(
    form: str, garbage: bytes
) -> None:
    named = garbage if form == "openai" else b"event: x\n" + garbage

    async with serving(form, wire([*EVENTS[form][:3], named])) as client:
        error = await failure_of(client)

    assert type(error) is ServerFailure
    assert error.request_id == "req_1"
    assert error.partial is not None


async def test_the_providers_last_word_is_kept_when_the_stream_breaks_after_it(
    form: str,
) -> None:
    ending = EVENTS[form][:-1] if form == "anthropic" else EVENTS[form]

    async with serving(form, wire(ending), cut=True) as client:
        error = await failure_of(client)

    assert type(error) is ConnectionFailed
    assert error.partial is not None
    assert error.partial.final
    assert error.partial.usage == Usage(input_tokens=9, output_tokens=2)
    assert error.partial.raw_usage


async def test_a_server_that_cannot_stream_may_answer_whole() -> None:
    pieces = list[str]()
    answer = {
        "model": "gpt-4o-mini",
        "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1},
    }

    async with serving("openai", json.dumps(answer).encode(), kind="application/json") as client:
        response = await client.complete(
            "Hello.", "gpt-4o-mini", stream=True, on_text=pieces.append
        )

    assert (response.content, response.usage.output_tokens) == ("hi", 1)
    assert pieces == ["hi"]


async def test_a_stream_without_usage_is_counted_by_its_upper_bound() -> None:
    content = wire([*OPENAI_EVENTS[:3], b"data: [DONE]\n\n"])

    async with serving("openai", content) as client:
        response = await client.complete("Hello." * 100, "gpt-4o-mini", stream=True)

    assert response.content == "Hello"
    assert response.metadata["usage_missing"]
    assert response.usage.input_tokens > 600
    assert response.usage.output_tokens >= 5


async def test_a_listener_has_errors_of_its_own(form: str) -> None:
    told = list[Partial]()

    def listen(_: str) -> None:
        raise BrokenPipeError("nobody reads")

    async with serving(form, wire(EVENTS[form])) as client:
        with pytest.raises(BrokenPipeError, match="nobody reads"):
            await client.complete(
                "Hello.",
                MODELS[PROTOCOL_OF[form]],
                stream=True,
                on_text=listen,
                on_broken=told.append,
            )

    assert len(told) == 1

"""Answers of the Responses API: what each status means, and what goes back to whom."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import permutations
from typing import Any

import pytest
from aiohttp import web

from app.domain.usage import Partial, Usage
from app.errors import BadRequest, Overloaded, ProviderError, ServerFailure
from app.llm.base import LLMClient, LLMResponse, Message, ToolCall
from app.llm.openai import OpenAIClient
from tests.support.llm_clients import FORMS, KEY, client_of
from tests.support.wire_server import provider_server, serving

pytestmark = pytest.mark.anyio

MODEL = "gpt-5.6-terra"
MODELS = {"openai": "gpt-4o-mini", "responses": MODEL, "anthropic": "claude-sonnet-5"}
TOOLS = [
    {
        "name": name,
        "description": "Looks something up.",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
    }
    for name in ("get_weather", "get_time")
]
QUESTION: Message = {"role": "user", "content": "get_weather, then get_time"}
USAGE = {"input_tokens": 40, "output_tokens": 12}
COUNTED = Usage(input_tokens=40, output_tokens=12)
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Half a", "annotations": []}],
}
#: Keys of the blocks of each form, which no other form may see.
FOREIGN = ("encrypted_content", "signature", "phase")


def response(**given: Any) -> dict[str, Any]:
    return {
        "object": "response",
        "model": MODEL,
        "status": "completed",
        "output": [MESSAGE],
        "usage": USAGE,
        "error": None,
        "incomplete_details": None,
    } | given


@asynccontextmanager
async def answering(body: Mapping[str, Any], *, stream: bool) -> AsyncIterator[LLMClient]:
    """A client of a server with one answer, whole or as a stream of its first and last event."""
    kind = "response.completed"
    if body.get("status") in ("incomplete", "failed", "cancelled"):
        kind = f"response.{body['status']}"
    started = {"type": "response.created", "response": response(output=[], usage=None)}
    events = [started, {"type": kind, "response": body}]

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        headers = {"x-request-id": "req_7"}
        if not stream:
            return web.json_response(body, headers=headers)
        text = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)
        return web.Response(text=text, content_type="text/event-stream", headers=headers)

    async with provider_server(handle) as url:
        client = client_of("responses", url)
        try:
            yield client
        finally:
            await client.close()


async def ask(body: Mapping[str, Any], *, stream: bool, **given: Any) -> LLMResponse:
    async with answering(body, stream=stream) as client:
        return await client.complete("Go.", MODEL, stream=stream, **given)


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    streamed: bool = request.param
    return streamed


@pytest.mark.parametrize(
    ("given", "finish"),
    [
        ({}, "stop"),
        ({"status": None}, "stop"),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "length",
        ),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            "content_filter",
        ),
    ],
)
async def test_the_status_tells_how_an_answer_has_ended(
    given: dict[str, Any], finish: str, stream: bool
) -> None:
    answer = await ask(response(**given), stream=stream)

    assert (answer.content, answer.finish_reason) == ("Half a", finish)
    assert answer.usage == COUNTED


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"status": "failed", "error": {"code": "server_error", "message": "x"}}, ServerFailure),
        (
            {"status": "failed", "error": {"code": "server_is_overloaded", "message": "x"}},
            Overloaded,
        ),
        ({"status": "failed", "error": {"code": "invalid_prompt", "message": "x"}}, BadRequest),
        ({"status": "failed"}, ServerFailure),
        ({"status": "cancelled"}, ServerFailure),
        ({"status": "queued"}, ServerFailure),
        ({"status": "unheard_of"}, ServerFailure),
        ({"status": "incomplete"}, ServerFailure),
        ({"status": "incomplete", "incomplete_details": {"reason": "new"}}, ServerFailure),
        ({"status": "completed", "error": {"code": "server_error"}}, ServerFailure),
    ],
)
async def test_a_response_that_has_failed_is_an_error_that_costs_its_usage(
    given: dict[str, Any], expected: type[ProviderError], stream: bool
) -> None:
    with pytest.raises(ProviderError) as failed:
        await ask(response(**given), stream=stream)

    error = failed.value
    assert type(error) is expected
    assert error.request_id == "req_7"
    assert error.partial == Partial(
        usage=COUNTED,
        prompt_counted=True,
        final=True,
        raw_usage=USAGE,
        model=MODEL,
        request_id="req_7",
    )


async def test_parts_of_unknown_kinds_cost_neither_text_nor_usage(stream: bool) -> None:
    news = {"id": "x_1", "type": "hologram", "shape": [1]}
    content = [{"type": "smell", "smell": "sweet"}, *MESSAGE["content"]]

    answer = await ask(
        response(output=[news, MESSAGE | {"content": content}], service_tier=None), stream=stream
    )

    assert answer.content == "Half a"
    assert answer.usage == COUNTED
    assert answer.metadata["original"]["message"][0] == news


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "server_is_overloaded", "message": "busy", "param": None},
        {
            "type": "error",
            "error": {"type": "service_unavailable_error", "code": None, "message": "busy"},
        },
    ],
    ids=["documented", "seen"],
)
async def test_an_error_event_is_the_error_of_its_code(event: dict[str, Any]) -> None:
    started = {"type": "response.created", "response": response(output=[], usage=None)}
    text = "".join(f"data: {json.dumps(each)}\n\n" for each in (started, event))

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text=text, content_type="text/event-stream")

    async with provider_server(handle) as url:
        client = client_of("responses", url)
        with pytest.raises(Overloaded, match="busy") as failed:
            await client.complete("Go.", MODEL, stream=True, max_tokens=300)
        await client.close()

    # An error in place of an answer costs what that error costs: nothing.
    assert failed.value.partial is None
    assert failed.value.status == 503


@pytest.mark.parametrize(
    "given",
    [
        {"model": None},
        {"incomplete_details": "none"},
        {"output": [None, 5, {}, MESSAGE]},
        {"output": [MESSAGE | {"id": None, "status": 7, "role": None}]},
        {"output": [MESSAGE | {"content": [None, "x", {}, *MESSAGE["content"]]}]},
        {"output": [{"type": "reasoning"}, MESSAGE]},
        {"created_at": "yesterday", "metadata": 5, "text": None, "tools": 1},
    ],
)
async def test_one_odd_field_costs_neither_text_nor_usage(
    given: dict[str, Any], stream: bool
) -> None:
    answer = await ask(response(**given), stream=stream)

    assert answer.content == "Half a"
    assert answer.usage == COUNTED
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize("usage", [None, 5, {}, {"input_tokens": "many", "output_tokens": 1}])
async def test_a_usage_that_cannot_be_read_counts_as_missing(usage: Any, stream: bool) -> None:
    answer = await ask(response(usage=usage), stream=stream)

    assert answer.content == "Half a"
    assert answer.metadata["usage_missing"]
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.output_tokens > 0


@pytest.mark.parametrize(
    ("arguments", "read"), [('{"a":1}', '{"a":1}'), ({"a": 1}, '{"a":1}'), (None, "{}"), ("", "{}")]
)
async def test_arguments_are_read_in_every_form(arguments: Any, read: str, stream: bool) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments}

    answer = await ask(response(output=[call]), stream=stream)

    assert answer.tool_calls == [ToolCall(id="c", name="f", arguments=read)]
    assert answer.finish_reason == "tool_calls"


async def test_comments_are_no_part_of_a_final_answer(stream: bool) -> None:
    said = {"type": "output_text", "text": "I shall add up.", "annotations": []}
    comment = MESSAGE | {"phase": "commentary", "content": [said]}

    whole = await ask(
        response(output=[comment, MESSAGE | {"phase": "final_answer"}]), stream=stream
    )
    only = await ask(response(output=[comment]), stream=stream)

    assert (whole.content, only.content) == ("Half a", "I shall add up.")
    assert [block["phase"] for block in whole.metadata["original"]["message"]] == [
        "commentary",
        "final_answer",
    ]


async def test_a_stream_whose_last_event_has_no_items_has_those_before_it() -> None:
    events = [
        {"type": "response.created", "response": response(output=[], usage=None)},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": MESSAGE | {"content": []},
        },
        {"type": "response.output_text.delta", "output_index": 0, "delta": "Hello"},
        {
            "type": "response.output_item.added",
            "output_index": 1,
            "item": {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""},
        },
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"a":'},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "1}"},
        {"type": "response.hologram.delta", "output_index": 2},
        {"type": "response.completed", "response": response(output=[])},
    ]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text=text, content_type="text/event-stream")

    async with provider_server(handle) as url:
        client = client_of("responses", url)
        answer = await client.complete("Go.", MODEL, stream=True)
        await client.close()

    assert answer.content == "Hello"
    assert answer.tool_calls == [ToolCall(id="c", name="f", arguments='{"a":1}')]
    assert answer.finish_reason == "tool_calls"


@pytest.mark.parametrize(("first", "second"), [*permutations(FORMS, 2)])
async def test_a_conversation_goes_on_elsewhere_without_foreign_parts(
    first: str, second: str
) -> None:
    told = "parallel_tools" if first != "anthropic" else "caching"
    async with serving(first, told) as server:
        client = client_of(first, server.url)
        answer = await client.complete_with_tools([QUESTION], MODELS[first], TOOLS)
        await client.close()
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "14 degrees"}
        for call in answer.tool_calls or ()
    ]

    async with serving(second, "text") as server:
        client = client_of(second, server.url)
        end = await client.complete_with_tools(
            [QUESTION, answer.as_message(), *results], MODELS[second], TOOLS
        )
        await client.close()

    sent = json.dumps(server.requests[0])
    assert end.content.startswith("Hello!")
    assert not [name for name in FOREIGN if f'"{name}"' in sent]
    assert "blocks" not in sent
    assert all(call.id in sent for call in answer.tool_calls or ())


async def test_sealed_reasoning_goes_only_to_the_provider_that_has_sealed_it() -> None:
    async with serving("responses", "one_tool") as server:
        client = client_of("responses", server.url)
        answer = await client.complete_with_tools([QUESTION], MODEL, TOOLS)
        await client.close()
    result = {"role": "tool", "tool_call_id": "call_DdmO9pD3xa9XTPNJ32zg2hcA", "content": "14"}

    async with serving("responses", "text") as server:
        client = OpenAIClient(KEY, base_url=f"{server.url}/v1", api="responses", provider="azure")
        await client.complete_with_tools([QUESTION, answer.as_message(), result], MODEL, TOOLS)
        await client.close()

    kinds = [item.get("type", "message") for item in server.requests[0]["input"]]
    assert kinds == ["message", "function_call", "function_call_output"]


async def test_reasoning_that_nobody_can_read_is_left_out() -> None:
    open_: dict[str, Any] = {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [],
        "encrypted_content": None,
    }
    answer = await ask(response(output=[open_, MESSAGE]), stream=False)

    async with serving("responses", "text") as server:
        client = client_of("responses", server.url)
        await client.complete_with_tools([QUESTION, answer.as_message(), QUESTION], MODEL)
        await client.close()

    asked, said, again = server.requests[0]["input"]
    assert asked == again == QUESTION
    assert said == {k: v for k, v in MESSAGE.items() if k not in ("id", "status")}

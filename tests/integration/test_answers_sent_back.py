"""Hostile answers that go back with the next request, through the real SDKs."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from app.llm.base import LLMClient, Message
from tests.support.llm_clients import FORMS, client_of
from tests.support.wire_server import provider_server

pytestmark = pytest.mark.anyio

HALF, SENT, LARGE = "\ud83d", "\N{REPLACEMENT CHARACTER}", 10**300
MODELS = {"openai": "gpt-4o", "responses": "gpt-5.6-terra", "anthropic": "claude-sonnet-4-6"}
ARGUMENTS = json.dumps({f"k{HALF}": HALF, "large": LARGE})
USAGE = {"input_tokens": 20, "output_tokens": 10, "prompt_tokens": 20, "completion_tokens": 10}
FUNCTION = {"name": f"functions.check {HALF}", "arguments": ARGUMENTS}
BLOCKS = [
    {"type": "thinking", "thinking": f"hm {HALF}", "signature": "s"},
    {"type": "text", "text": f"half {HALF}"},
    {
        "type": "tool_use",
        "id": HALF,
        "name": FUNCTION["name"],
        "input": {f"k{HALF}": HALF, "large": LARGE},
    },
]
CHAT = {
    "role": "assistant",
    "content": f"half {HALF}",
    "reasoning_content": f"hm {HALF}",
    "reasoning_details": [{"type": "reasoning.text", "text": HALF, "index": LARGE}],
    "tool_calls": [{"index": 0, "id": HALF, "type": "function", "function": FUNCTION}],
}
ITEMS = [
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": f"hm {HALF}"}],
        "encrypted_content": "sealed",
    },
    {"type": "message", "content": [{"type": "output_text", "text": f"half {HALF}"}]},
    {"type": "function_call", "call_id": HALF, **FUNCTION},
]
WHOLE: dict[str, Any] = {
    "openai": {
        "choices": [{"index": 0, "message": CHAT, "finish_reason": "tool_calls"}],
        "usage": USAGE,
    },
    "anthropic": {"content": BLOCKS, "stop_reason": "tool_use", "usage": USAGE},
    "responses": {"status": "completed", "output": ITEMS, "usage": USAGE},
}
STREAMS: dict[str, list[Any]] = {
    "openai": [
        {"choices": [{"index": 0, "delta": CHAT, "finish_reason": "tool_calls"}], "usage": USAGE},
        "[DONE]",
    ],
    "anthropic": [
        {"type": "message_start", "message": {"usage": USAGE}},
        *(
            {"type": "content_block_start", "index": place, "content_block": block}
            for place, block in enumerate(BLOCKS)
        ),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": USAGE},
        {"type": "message_stop"},
    ],
    "responses": [{"type": "response.completed", "response": WHOLE["responses"]}],
}


def events(parts: list[Any]) -> bytes:
    texts = [part if isinstance(part, str) else json.dumps(part) for part in parts]
    return b"".join(f"data: {text}\n\n".encode() for text in texts)


@asynccontextmanager
async def serving(form: str, *, stream: bool) -> AsyncIterator[tuple[LLMClient, list[bytes]]]:
    """A client of a server that gives the hostile answer, and the bodies of the requests."""
    bodies: list[bytes] = []

    async def handle(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        if stream:
            return web.Response(body=events(STREAMS[form]), content_type="text/event-stream")
        return web.Response(body=json.dumps(WHOLE[form]).encode(), content_type="application/json")

    async with provider_server(handle) as url:
        client = client_of(form, url)
        try:
            yield client, bodies
        finally:
            await client.close()


@pytest.mark.parametrize("to", FORMS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", FORMS)
async def test_a_hostile_answer_goes_back_to_its_provider_and_to_a_fallback(
    form: str, stream: bool, to: str
) -> None:
    async with serving(form, stream=stream) as (client, _):
        answer = await client.complete("Check it.", MODELS[form], stream=stream)
    (call,) = answer.tool_calls or ()
    messages: list[Message] = [
        {"role": "user", "content": "Check it."},
        answer.as_message(),
        {"role": "tool", "tool_call_id": call.id, "content": f"there is no tool {HALF}"},
    ]

    async with serving(to, stream=stream) as (client, bodies):
        await client.complete_with_tools(messages, MODELS[to], stream=stream)

    (body,) = bodies
    assert json.dumps(json.loads(body), ensure_ascii=False).encode()  # no half characters
    assert call.name == FUNCTION["name"]
    assert b"functions_check__" in body
    assert f"half {SENT}".encode() in body
    assert str(LARGE).encode() in body
    assert (f"hm {SENT}".encode() in body) == (form == to)


@pytest.mark.parametrize("form", FORMS)
async def test_a_cut_answer_with_half_a_character_is_continued(form: str) -> None:
    messages: list[Message] = [
        {"role": "user", "content": "Tell."},
        {"role": "assistant", "content": f"Once {HALF}"},
        {"role": "user", "content": "Continue."},
    ]

    async with serving(form, stream=False) as (client, bodies):
        await client.complete_with_tools(messages, MODELS[form])

    assert f"Once {SENT}" in bodies[0].decode()

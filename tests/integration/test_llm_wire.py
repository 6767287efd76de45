"""Requests and answers of the clients, through the real SDKs, with a server that records.

Over 400 lines because it has the payloads of all request forms as they are sent.
"""

import json
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from app.domain.usage import Usage
from app.errors import (
    AuthenticationFailed,
    BadRequest,
    Overloaded,
    RateLimited,
    ServerFailure,
)
from app.llm.base import LLMClient, Message, ToolCall
from tests.support.llm_clients import FORMS, KEY, PROTOCOL_OF, client_of
from tests.support.wire_server import provider_server

pytestmark = pytest.mark.anyio

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
RESPONSES_ANSWER = {
    "object": "response",
    "status": "completed",
    "model": "gpt-4o-mini-2024-07-18",
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "hi", "annotations": []}],
        }
    ],
    "usage": {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 20},
        "output_tokens": 50,
        "output_tokens_details": {"reasoning_tokens": 30},
        "total_tokens": 150,
    },
}
ANSWERS: dict[str, dict[str, Any]] = {
    "openai": OPENAI_ANSWER,
    "responses": RESPONSES_ANSWER,
    "anthropic": ANTHROPIC_ANSWER,
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


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
    form: str, answer: Any = None, *, status: int = 200, headers: dict[str, str] | None = None
) -> AsyncIterator[Recorder]:
    answer = ANSWERS[form] if answer is None else answer
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    async def handle(request: web.Request) -> web.Response:
        recorded.bodies.append(await request.json())
        recorded.headers.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(
            body=content, status=status, headers=headers, content_type="application/json"
        )

    async with provider_server(handle) as url:
        recorded = Recorder(client_of(form, url, headers={"x-extra": "1"}))
        yield recorded
        await recorded.client.close()


async def test_usage_of_every_form_becomes_disjoint_counts(form: str) -> None:
    async with recorder(form) as server:
        response = await server.client.complete("Hello.", server.model)

    if PROTOCOL_OF[form] == "openai":
        written = {"cache_write_tokens": 20}
    else:
        written = {"cache_write_tokens": 5, "cache_write_1h_tokens": 15}
    assert response.usage == Usage(
        input_tokens=16, cached_tokens=64, output_tokens=50, reasoning_tokens=30, **written
    )
    assert (response.input_tokens, response.output_tokens) == (100, 50)
    assert response.raw_usage == ANSWERS[form]["usage"]


async def test_limit_headers_come_with_answers_and_errors(form: str) -> None:
    sent = {"x-ratelimit-remaining-requests": "9", "retry-after": "2", "set-cookie": "a=b"}
    kept = {"x-ratelimit-remaining-requests": "9", "retry-after": "2"}

    async with recorder(form, headers=sent) as server:
        response = await server.client.complete("Hello.", server.model)
    async with recorder(form, {"error": {}}, status=429, headers=sent) as server:
        with pytest.raises(RateLimited) as failed:
            await server.client.complete("Hello.", server.model)

    assert response.headers == kept
    assert failed.value.headers == kept


async def test_requests_carry_the_key_and_the_configured_headers(form: str) -> None:
    async with recorder(form) as server:
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


async def test_a_conversation_in_the_form_of_responses() -> None:
    async with recorder("responses") as server:
        await server.client.complete_with_tools(
            CONVERSATION, server.model, [TOOL | {"import": "shop:look_up"}], system="You are Ada."
        )

    assert server.bodies[0] == {
        "model": "gpt-4o-mini",
        "max_output_tokens": 4096,
        "store": False,
        "instructions": "You are Ada.\n\nBe brief.",
        "input": [
            {"role": "user", "content": "Look up a."},
            {"role": "assistant", "content": "I will."},
            *(
                {
                    "type": "function_call",
                    "call_id": call.id,
                    "name": "look_up",
                    "arguments": call.arguments,
                }
                for call in CALLS
            ),
            {"type": "function_call_output", "call_id": "call_1", "output": "A"},
            {"type": "function_call_output", "call_id": "call_2", "output": "not JSON"},
            {"role": "user", "content": "And?"},
        ],
        "tools": [{"type": "function", **TOOL, "strict": False}],
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
        ("openai", "gpt-4o", {"stream": "yes"}, "use true or false"),
        ("openai", "gpt-4o", {"web_search_options": {}}, "the tool .*web_search"),
        ("openai", "gpt-4o", {"background": True}, "no hold, no limit"),
        ("responses", "gpt-4o", {"background": True}, "no hold, no limit"),
        ("responses", "gpt-4o", {"previous_response_id": "resp_1"}, "its whole conversation"),
        ("responses", "gpt-4o", {"max_tokens": 9}, "no max_tokens below 16"),
        ("responses", "gpt-4o", {"seed": 1}, "not a parameter of OpenAI's Responses API"),
        ("responses", "gpt-6-sol", {"temperature": 0}, "takes no temperature"),
        ("responses", "gpt-6-sol", {"api": "completions"}, "use one of 'chat', 'responses'"),
        ("responses", "gpt-6-sol", {"text": "long"}, "give an object"),
        ("openai", "gpt-5", {"max_completion_tokens": 5}, "give max_tokens"),
        ("openai", "gpt-4o", {"chat_template_kwargs": {"a": {1, 2}}}, "not JSON"),
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


async def test_a_message_of_an_unknown_role_is_refused(form: str) -> None:
    async with recorder(form) as server:
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
        b'{"model": "m", "choices": [7], "content": [7], "usage": 3}',
        b'{"model": "m", "choices": [{"message": {}}], "content": [], "usage": {"total": 1}}',
    ],
)
async def test_an_answer_that_is_not_the_protocol_is_the_servers_failure(
    form: str, answer: bytes
) -> None:
    async with recorder(form, answer, headers={"x-request-id": "req_7"}) as server:
        with pytest.raises(ServerFailure, match="not its protocol") as failed:
            await server.client.complete("Hello.", server.model)

    assert (failed.value.status, failed.value.request_id) == (200, "req_7")
    assert failed.value.reached


async def test_a_key_that_the_provider_repeats_stays_out_of_the_traceback(form: str) -> None:
    body = {"error": {"type": "authentication_error", "message": f"Incorrect API key: {KEY}"}}

    async with recorder(form, body, status=401) as server:
        with pytest.raises(AuthenticationFailed, match="Incorrect API key") as failed:
            await server.client.complete("Hello.", server.model)

    assert KEY not in "".join(traceback.format_exception(failed.value))


async def test_an_error_in_a_200_is_an_error(form: str) -> None:
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}

    async with recorder(form, body) as server:
        with pytest.raises(Overloaded, match="busy"):
            await server.client.complete("Hello.", server.model)


async def test_an_answer_without_usage_is_counted_by_its_upper_bound(form: str) -> None:
    answer = {key: value for key, value in ANSWERS[form].items() if key != "usage"}

    async with recorder(form, answer) as server:
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
    [("stop_sequence", "stop"), ("model_context_window_exceeded", "length"), (None, "stop")],
)
async def test_stop_reasons_of_anthropic_are_normalised(
    stop_reason: str | None, finish_reason: str
) -> None:
    answer = ANTHROPIC_ANSWER | {"stop_reason": stop_reason, "stop_sequence": "END"}

    async with recorder("anthropic", answer) as server:
        response = await server.client.complete("Hello.", server.model)

    assert response.finish_reason == finish_reason
    assert response.metadata["stop_sequence"] == "END"


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
        (
            {"reasoning": {"effort": "low", "summary": "auto"}},
            {"reasoning": {"effort": "low", "summary": "auto"}},
        ),
        ({"verbosity": "low"}, {"text": {"verbosity": "low"}}),
        ({"text": {"verbosity": "high"}}, {"text": {"verbosity": "high"}}),
        (
            {"response_format": {"type": "json_object"}},
            {"text": {"format": {"type": "json_object"}}},
        ),
        (
            {"tool_choice": {"type": "function", "function": {"name": "look_up"}}},
            {"tool_choice": {"type": "function", "name": "look_up"}},
        ),
        ({"temperature": 1, "n": 1}, {}),
        ({"include": ["message.output_text.logprobs"]}, {}),
        ({"store": True, "service_tier": "flex"}, {"store": True, "service_tier": "flex"}),
    ],
)
async def test_parameters_are_written_as_the_responses_api_takes_them(
    params: dict[str, Any], sent: dict[str, Any]
) -> None:
    async with recorder("responses") as server:
        await server.client.complete("Hello.", "gpt-5.6-terra", **params)

    body = server.bodies[0]
    assert (
        body
        == {
            "model": "gpt-5.6-terra",
            "input": [{"role": "user", "content": "Hello."}],
            "max_output_tokens": 4096,
            "store": False,
            "include": ["reasoning.encrypted_content", *params.get("include", [])],
        }
        | sent
    )


SCHEMA = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}


async def test_a_schema_goes_into_the_mode_that_the_provider_has_for_it(form: str) -> None:
    async with recorder(form) as server:
        await server.client.complete("Sum up.", server.model, output_schema=SCHEMA)

    body = server.bodies[0]
    closed = SCHEMA | {"additionalProperties": False}
    if form == "responses":
        assert body["text"] == {
            "format": {"type": "json_schema", "name": "output", "schema": closed, "strict": True}
        }
    elif form == "openai":
        named = {"name": "output", "schema": closed, "strict": True}
        assert body["response_format"] == {"type": "json_schema", "json_schema": named}
    else:
        assert body["output_config"] == {"format": {"type": "json_schema", "schema": closed}}
    assert "output_schema" not in body
    assert "JSON Schema" not in json.dumps(body.get("messages") or body["input"])


async def test_a_model_without_such_a_mode_is_told_the_schema_in_words(form: str) -> None:
    by_openai = PROTOCOL_OF[form] == "openai"
    model = "gpt-3.5-turbo" if by_openai else "claude-3-haiku-20240307"
    async with recorder(form) as server:
        await server.client.complete("Sum up.", model, output_schema=SCHEMA, system="Be brief.")

    body = server.bodies[0]
    assert not {"response_format", "output_config", "output_schema", "text"} & body.keys()
    if form == "openai":
        told = [m["content"] for m in body["messages"] if m["role"] == "system"]
    else:
        told = [body["instructions" if by_openai else "system"]]
    assert any(json.dumps(SCHEMA) in text for text in told)
    assert any("Be brief." in text for text in told)

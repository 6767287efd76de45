"""Odd answers of both protocols, whole and streamed, read through the real SDKs.

Each law is shown for its clearest cases; tests/integration/test_answer_corpus.py has the answers
that real servers have given.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from app.domain.usage import Partial, Usage
from app.errors import ConnectionFailed, Overloaded, ProviderError, ServerFailure
from app.llm.base import LLMClient, LLMResponse, Message
from tests.support.llm_clients import client_of
from tests.support.wire_server import provider_server

pytestmark = pytest.mark.anyio

MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-6"}
USAGE = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
# Models with open weights whose servers may leave their reasoning out of the answer.
REASONING = (
    *("deepseek-reasoner", "deepseek/deepseek-r1", "kimi-k2-thinking", "MiniMax-M2"),
    *("magistral-small-latest", "command-a-reasoning-08-2025", "qwq-32b", "openai/gpt-oss-120b"),
)
TOOL = {"name": "look_up", "description": "Looks up.", "parameters": {"type": "object"}}


@asynccontextmanager
async def serving(
    content: bytes, kind: str = "application/json", protocol: str = "openai"
) -> AsyncIterator[tuple[LLMClient, list[dict[str, Any]]]]:
    """A client of a server that gives this answer, and the bodies of the requests."""
    bodies: list[dict[str, Any]] = []

    async def handle(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.Response(body=content, headers={"content-type": kind})

    async with provider_server(handle) as url:
        client = client_of(protocol, url)
        try:
            yield client, bodies
        finally:
            await client.close()


def completion(message: Mapping[str, Any], finish: Any = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"model": "gpt-4o-mini", "choices": [choice], "usage": USAGE} | more


def chunks(*deltas: Mapping[str, Any], finish: Any = "stop") -> list[Any]:
    """The chunks of a stream, with its usage at the end."""
    parts: list[Any] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    parts.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return [*parts, {"choices": [], "usage": USAGE}, "[DONE]"]


def events(parts: list[Any], start: bytes = b"") -> bytes:
    texts = [part if isinstance(part, str) else json.dumps(part) for part in parts]
    return start + b"".join(f"data: {text}\n\n".encode() for text in texts)


async def read(answer: Any, **kwargs: Any) -> LLMResponse:
    """Read a whole answer, or the parts of a stream if it is a list."""
    streamed = isinstance(answer, list)
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    kind = "text/event-stream" if streamed else "application/json"
    async with serving(events(answer) if streamed else content, kind) as (client, _):
        return await client.complete("Hello.", MODELS["openai"], stream=streamed, **kwargs)


@pytest.mark.parametrize("word", ["error", "network_error", "abort", "new"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_unknown_word_is_a_failure_whose_tokens_are_booked(
    word: str, streamed: bool
) -> None:
    told = list[Partial]()
    answer = chunks({"content": "half"}, finish=word) if streamed else completion({}, word)

    with pytest.raises(ProviderError, match=word) as failed:
        await read(answer, on_broken=told.append)

    assert type(failed.value) is (ConnectionFailed if word == "network_error" else ServerFailure)
    assert failed.value.retriable
    assert told == [failed.value.partial]
    assert told[0].final
    assert told[0].usage == Usage(input_tokens=20, output_tokens=10)


async def test_an_error_inside_a_choice_has_the_class_of_its_code() -> None:
    answer = completion({"content": "half"}, "error")
    answer["choices"][0]["error"] = {"code": 503, "message": "provider overloaded"}

    with pytest.raises(Overloaded, match="provider overloaded") as failed:
        await read(answer)

    assert failed.value.partial is not None
    assert failed.value.partial.usage.output_tokens == 10


ODD_WHOLE: dict[str, Any] = {
    "null beside the answer": completion({"content": "hi"}) | {"choices_extra": None},
    "not a number": json.dumps(completion({"content": "hi"}, logprobs=[float("-inf")])).encode(),
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(completion({"content": "hi"})).encode(),
    "no model": {**completion({"content": "hi"}), "model": None},
    "counts as floats": completion(
        {"content": "hi"}, usage={"prompt_tokens": 20.0, "completion_tokens": 10.0}
    ),
    "parts": completion(
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "hi"},
            ]
        }
    ),
}
ODD_STREAMS: dict[str, list[Any]] = {
    "data null": ["null", *chunks({"content": "hi"})],
    "empty events": ["", *chunks({"content": "hi"}), ""],
    "no finish reason": [
        {"choices": [{"index": 0, "delta": {"content": "hi"}}]},
        {"choices": [], "usage": USAGE},
        "[DONE]",
    ],
    "parts": chunks(
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
        {"content": "hi"},
    ),
    "not a number": chunks({"content": "hi"}, {"logprobs": float("nan")}),
}


@pytest.mark.parametrize("answer", [*ODD_WHOLE.values(), *ODD_STREAMS.values()])
async def test_one_odd_field_costs_neither_the_answer_nor_its_usage(answer: Any) -> None:
    response = await read(answer)

    assert (response.content, response.finish_reason) == ("hi", "stop")
    assert response.model == "gpt-4o-mini"
    assert response.usage == Usage(input_tokens=20, output_tokens=10)
    assert "usage_missing" not in response.metadata


async def test_a_stream_may_begin_with_a_byte_order_mark() -> None:
    content = events(chunks({"content": "hi"}), b"\xef\xbb\xbf")
    async with serving(content, "text/event-stream") as (client, _):
        response = await client.complete("Hello.", MODELS["openai"], stream=True)

    assert response.content == "hi"


@pytest.mark.parametrize("given", [None, {}, {"key": "a"}, '{"key": "a"}', "null"])
async def test_arguments_may_be_missing_or_an_object_and_an_id_is_made_up(given: Any) -> None:
    call = {"function": {"name": "look_up", "arguments": given}}

    response = await read(completion({"tool_calls": [call]}))

    assert response.finish_reason == "tool_calls"
    assert response.tool_calls is not None
    assert response.tool_calls[0].id
    expected = {"key": "a"} if given and given != "null" else {}
    assert json.loads(response.tool_calls[0].arguments) == expected


@pytest.mark.parametrize("index", [{"index": 0}, {}])
async def test_streamed_calls_with_one_index_are_told_apart_by_their_ids(
    index: dict[str, int],
) -> None:
    parts = [
        {"id": "a", "function": {"name": "look_up", "arguments": '{"key":'}} | index,
        {"function": {"arguments": '"x"}'}} | index,
        {"id": "b", "function": {"name": "look_up", "arguments": '{"key":"y"}'}} | index,
    ]

    response = await read(chunks(*({"tool_calls": [part]} for part in parts)))

    calls = [(call.id, json.loads(call.arguments)) for call in response.tool_calls or ()]
    assert calls == [("a", {"key": "x"}), ("b", {"key": "y"})]


async def test_streamed_calls_without_ids_are_told_apart_when_one_is_whole() -> None:
    parts = [{"index": 0, "function": {"name": "look_up", "arguments": "{}"}}] * 2

    response = await read(chunks(*({"tool_calls": [part]} for part in parts)))

    ids = [call.id for call in response.tool_calls or ()]
    assert len(set(ids)) == len(ids) == 2


@pytest.mark.parametrize("streamed", [False, True])
async def test_integers_of_any_size_reach_the_tool(streamed: bool) -> None:
    call = {"id": "a", "function": {"name": "look_up", "arguments": {"number": 2**70}}}
    message = {"tool_calls": [call]}

    response = await read(chunks(message) if streamed else completion(message))

    assert json.loads(response.tool_calls[0].arguments) == {"number": 2**70}  # type: ignore[index]


async def test_a_character_that_is_cut_between_two_events_is_joined() -> None:
    pieces = list[str]()
    first, second = "\ud83d", "\ude00"

    response = await read(
        chunks({"content": f"a{first}"}, {"content": f"{second}b"}), on_text=pieces.append
    )

    assert response.content == "".join(pieces) == "a\N{GRINNING FACE}b"


ORIGINAL = {
    "content": None,
    "reasoning_content": "I look it up.",
    "reasoning_details": [{"type": "reasoning.encrypted", "data": "abc", "index": 0}],
    "tool_calls": [
        {
            "id": "functions.look_up:0",
            "type": "function",
            "function": {"name": "look_up", "arguments": '{"key":"x"}'},
            "extra_content": {"google": {"thought_signature": "sig"}},
        }
    ],
}


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_message_goes_back_as_it_came_to_its_own_provider_only(streamed: bool) -> None:
    answer = chunks(ORIGINAL) if streamed else completion(ORIGINAL)
    content = events(answer) if isinstance(answer, list) else json.dumps(answer).encode()
    kind = "text/event-stream" if streamed else "application/json"
    async with serving(content, kind) as (client, bodies):
        question: Message = {"role": "user", "content": "Look."}
        first = await client.complete_with_tools(
            [question], MODELS["openai"], [TOOL], stream=streamed
        )
        (call,) = first.tool_calls or ()
        result = {"role": "tool", "tool_call_id": call.id, "content": "found"}
        conversation = [question, first.as_message(), result]
        await client.complete_with_tools(conversation, MODELS["openai"], [TOOL], stream=streamed)
    message = {"type": "message", "content": [], "stop_reason": "end_turn"}
    async with serving(json.dumps(message).encode(), protocol="anthropic") as (other, foreign):
        await other.complete_with_tools(conversation, MODELS["anthropic"], [TOOL])

    assert bodies[1]["messages"][1] == {"role": "assistant", **ORIGINAL}
    ((block,), (answered,)) = (each["content"] for each in foreign[0]["messages"][1:])
    assert block.keys() == {"type", "id", "name", "input"}
    assert block["id"] == answered["tool_use_id"] != call.id


async def test_running_counts_of_a_stream_are_no_final_counts() -> None:
    running = {"prompt_tokens": 20, "completion_tokens": 1}
    parts = [
        {"choices": [{"index": 0, "delta": {"content": "hi"}}], "usage": running},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        "[DONE]",
    ]

    response = await read(parts)

    assert response.metadata["usage_missing"]
    assert response.metadata["prompt_counted"]
    assert response.usage.input_tokens == 20
    assert response.usage.output_tokens > 1


async def test_later_zeros_erase_no_counts() -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    parts = chunks({"content": "hi"})

    response = await read([*parts[:-1], {"choices": [], "usage": zeros}, parts[-1]])

    assert response.usage == Usage(input_tokens=20, output_tokens=10)


@pytest.mark.parametrize(
    ("model", "params", "hides"),
    [
        ("gpt-4o-mini", {}, False),
        ("llama-3.3-70b", {}, False),
        ("o3", {}, True),
        ("grok-4", {}, True),
        ("unheard-of", {}, True),
        ("qwen3-32b", {"reasoning_effort": "low"}, True),
        ("qwen3-32b", {"enable_thinking": True}, True),
        ("qwen3-32b", {"enable_thinking": False}, False),
        ("qwen3-32b", {"thinking_budget": 500}, True),
        ("qwen3-32b", {"chat_template_kwargs": {"enable_thinking": True}}, True),
        ("qwen3-32b", {"include_reasoning": False}, True),
        ("deepseek-chat", {}, False),
        *((model, {}, True) for model in REASONING),
    ],
)
async def test_without_usage_hidden_reasoning_is_estimated_by_the_whole_bound(
    model: str, params: dict[str, Any], hides: bool
) -> None:
    answer = completion({"content": "hi", "reasoning_content": "hm"}, usage=None)
    async with serving(json.dumps(answer).encode()) as (client, _):
        response = await client.complete("Hello.", model, max_tokens=700, **params)

    assert response.metadata["usage_missing"]
    assert response.output_tokens == (700 if hides else 4)


@pytest.mark.parametrize("streamed", [False, True])
async def test_encrypted_reasoning_is_estimated_by_the_whole_bound(streamed: bool) -> None:
    details = [{"type": "reasoning.encrypted", "data": "gAAAA", "index": 0}]
    message = {"content": "hi", "reasoning_details": details}
    answer: Any = completion(message, usage=None)
    if streamed:
        answer = [part for part in chunks(message) if part == "[DONE]" or part["choices"]]

    response = await read(answer, max_tokens=700)

    assert response.metadata["usage_missing"]
    assert response.output_tokens == 700


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("usage", "prompt", "output"),
    [
        ({"prompt_tokens": 10**9, "completion_tokens": 10}, None, 10),
        ({"prompt_tokens": 20, "completion_tokens": 10**9}, 20, 700),
        ({"prompt_tokens": 10**9, "completion_tokens": 10**9}, None, 700),
        ({"total_tokens": 10**9}, None, None),
    ],
)
async def test_a_count_that_is_too_large_for_the_request_is_no_fact(
    usage: dict[str, int], prompt: int | None, output: int | None, streamed: bool
) -> None:
    answer: Any = completion({"content": "hi"}, usage=usage)
    if streamed:
        answer = [*chunks({"content": "hi"})[:-2], {"choices": [], "usage": usage}, "[DONE]"]

    response = await read(answer, max_tokens=700)

    assert response.metadata["usage_missing"]
    assert response.input_tokens == prompt or (prompt is None and 6 <= response.input_tokens < 200)
    assert response.output_tokens == output or (output is None and response.output_tokens < 100)


@pytest.mark.parametrize(
    ("model", "usage"),
    [
        ("gpt-4o-mini", {"prompt_tokens": 90_000, "completion_tokens": 10}),
        ("gpt-4o-mini", {"prompt_tokens": 20, "completion_tokens": 90_000}),
        ("sonar-deep-research", {"prompt_tokens": 900_000, "completion_tokens": 10}),
    ],
)
async def test_a_count_that_a_server_can_have_is_a_fact(model: str, usage: dict[str, int]) -> None:
    answer = completion({"content": "hi"}, usage=usage)
    async with serving(json.dumps(answer).encode()) as (client, _):
        response = await client.complete("Hello.", model, max_tokens=700)

    assert "usage_missing" not in response.metadata
    assert response.input_tokens == usage["prompt_tokens"]
    assert response.output_tokens == usage["completion_tokens"]


@pytest.mark.parametrize("later", ["many", False, 10**20, {}])
async def test_what_is_no_count_replaces_no_count_of_a_stream(later: Any) -> None:
    spoilt = {"prompt_tokens": later, "completion_tokens": later}
    parts = chunks({"content": "hi"})

    response = await read([*parts[:-1], {"choices": [], "usage": spoilt}, parts[-1]])

    assert response.usage == Usage(input_tokens=20, output_tokens=10)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"[" * 100_000, b'{"choices": 1e999}', b'"x"', b'{"choices":[{"message":[]}]}'],
)
@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain"])
async def test_nothing_but_an_agent_error_leaves_a_client(
    content: bytes, protocol: str, kind: str
) -> None:
    streamed = kind != "application/json"
    body = b"data: " + content + b"\n\n" if streamed else content
    async with serving(body, kind, protocol) as (client, _):
        with pytest.raises(ProviderError) as failed:
            await client.complete("Hello.", MODELS[protocol], stream=streamed)

    assert failed.value.retriable
    assert failed.value.reached


async def test_a_running_count_beside_text_does_not_end_a_stream() -> None:
    running = {"prompt_tokens": 20, "completion_tokens": 1}
    parts = [{"choices": [{"delta": {"content": "half"}}], "usage": running}, "[DONE]"]

    with pytest.raises(ConnectionFailed, match="broke off"):
        await read(parts)


@pytest.mark.parametrize("index", [{"index": 0}, {}])
async def test_an_id_that_every_chunk_repeats_is_one_call(index: dict[str, int]) -> None:
    pieces = ["", '{"quan', 'tity":', "2}"]
    parts = [
        {"id": "a", "type": "function", "function": {"name": "look_up", "arguments": piece}} | index
        for piece in pieces
    ]

    response = await read(chunks(*({"tool_calls": [part]} for part in parts)))

    (call,) = response.tool_calls or ()
    assert (call.id, call.name, json.loads(call.arguments)) == ("a", "look_up", {"quantity": 2})


async def test_fragments_of_calls_with_one_index_find_their_call_by_its_id() -> None:
    parts = [
        {"index": 0, "id": "a", "function": {"name": "look_up", "arguments": ""}},
        {"index": 0, "id": "b", "function": {"name": "look_up", "arguments": ""}},
        {"index": 0, "id": "a", "function": {"arguments": '{"key":"x"}'}},
        {"index": 0, "id": "b", "function": {"arguments": '{"key":"y"}'}},
    ]

    response = await read(chunks(*({"tool_calls": [part]} for part in parts)))

    calls = [(call.id, json.loads(call.arguments)) for call in response.tool_calls or ()]
    assert calls == [("a", {"key": "x"}), ("b", {"key": "y"})]


async def test_empty_arguments_before_the_real_ones_are_none() -> None:
    parts: list[dict[str, Any]] = [
        {"index": 0, "id": "a", "function": {"name": "look_up", "arguments": "{}"}}
    ]
    parts += [{"index": 0, "function": {"arguments": piece}} for piece in ('{"key":', '"x"}')]

    response = await read(chunks(*({"tool_calls": [part]} for part in parts)))

    assert [json.loads(call.arguments) for call in response.tool_calls or ()] == [{"key": "x"}]


@pytest.mark.parametrize("content", [None, "I will now look it up."])
async def test_calls_that_were_lost_on_their_way_are_a_failure(content: str | None) -> None:
    with pytest.raises(ServerFailure, match="tool_calls"):
        await read(completion({"content": content, "tool_calls": []}, "tool_calls"))


@pytest.mark.parametrize("finish", ["length", "content_filter"])
async def test_of_several_words_the_worst_holds(finish: str) -> None:
    parts = chunks({"content": "hi"})
    ends = [
        {"choices": [{"index": 0, "delta": {}, "finish_reason": word}]} for word in (finish, "stop")
    ]

    response = await read([parts[0], *ends, *parts[-2:]])

    assert response.finish_reason == finish


async def test_an_error_after_text_is_no_success_whatever_comes_after_it() -> None:
    parts = chunks({"content": "half"})
    failed = {"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}

    with pytest.raises(ServerFailure):
        await read([parts[0], failed, *parts[1:]])


async def test_zeros_at_the_end_do_not_make_an_early_count_final() -> None:
    early = {"prompt_tokens": 20, "completion_tokens": 1}
    parts = [
        {"choices": [{"delta": {"content": "x" * 90}}], "usage": early},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}},
        "[DONE]",
    ]

    response = await read(parts)

    assert response.metadata["usage_missing"]
    assert response.output_tokens >= 90


async def test_an_error_that_says_nothing_is_none() -> None:
    answer = completion({"content": "hi"}, error={"code": 0, "message": ""})

    assert (await read(answer)).content == "hi"


async def test_a_whole_message_beside_the_pieces_is_not_read_twice() -> None:
    message = {"role": "assistant", "content": "hi"}
    parts = chunks({"content": "hi"})
    end = {"choices": [{"index": 0, "delta": {}, "message": message, "finish_reason": "stop"}]}

    assert (await read([parts[0], end, *parts[-2:]])).content == "hi"


def of_anthropic(*blocks: tuple[int, str], stop: str | None = "end_turn") -> list[Any]:
    """The events of a message of Anthropic with these texts, each at its index."""
    usage = {"input_tokens": 20, "output_tokens": 1}
    parts: list[Any] = [{"type": "message_start", "message": {"usage": usage}}]
    for index, text in blocks:
        block, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": text}
        parts.append({"type": "content_block_start", "index": index, "content_block": block})
        parts.append({"type": "content_block_delta", "index": index, "delta": delta})
        parts.append({"type": "content_block_stop", "index": index})
    if stop:
        ended = {"stop_reason": stop}
        parts.append({"type": "message_delta", "delta": ended, "usage": {"output_tokens": 10}})
    return [*parts, {"type": "message_stop"}]


async def read_stream(protocol: str, parts: list[Any]) -> LLMResponse:
    async with serving(events(parts), "text/event-stream", protocol) as (client, _):
        model = MODELS.get(protocol, MODELS["openai"])
        return await client.complete("Hello.", model, stream=True)


async def test_blocks_of_anthropic_that_use_an_index_again_are_all_read() -> None:
    response = await read_stream("anthropic", of_anthropic((0, "one "), (0, "two")))

    assert response.content == "one two"
    assert response.usage == Usage(input_tokens=20, output_tokens=10)


async def test_a_message_of_anthropic_without_its_end_broke_off() -> None:
    with pytest.raises(ConnectionFailed, match="broke off"):
        await read_stream("anthropic", of_anthropic((0, "half"), stop=None))


@pytest.mark.parametrize("kind", ["failed", "cancelled"])
async def test_the_kind_of_the_last_event_decides_if_a_response_has_no_status(kind: str) -> None:
    delta = {"type": "response.output_text.delta", "output_index": 0, "delta": "half an answer"}
    last = {"type": f"response.{kind}", "response": {"output": []}}

    with pytest.raises(ServerFailure, match=kind):
        await read_stream("responses", [delta, last])


async def test_a_text_without_the_beginning_of_its_item_is_read() -> None:
    delta = {"type": "response.output_text.delta", "output_index": 0, "delta": "The answer"}
    usage = {"input_tokens": 20, "output_tokens": 10}
    whole = {"status": "completed", "output": [], "usage": usage}
    last = {"type": "response.completed", "response": whole}

    response = await read_stream("responses", [delta, last])

    assert response.content == "The answer"

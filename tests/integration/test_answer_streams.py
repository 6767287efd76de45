"""Odd streams of all request forms, read through the real SDKs.

A stream is read as what it is, a character is whole wherever a server has cut it, and the pieces of
several texts may come in turns. The file is over 400 lines because the cases share one server and
its clients.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from app.domain.usage import Partial, Usage
from app.errors import ConnectionFailed, Overloaded, ProviderError, RateLimited, ServerFailure
from app.llm.base import LLMClient, LLMResponse
from tests.support.llm_clients import FORMS, client_of
from tests.support.waiting import wait_until_async
from tests.support.wire_server import provider_server

pytestmark = pytest.mark.anyio

MODELS = {"openai": "gpt-4o-mini", "responses": "gpt-4o-mini", "anthropic": "claude-sonnet-4-6"}
USAGE = {"prompt_tokens": 20, "completion_tokens": 10, "input_tokens": 20, "output_tokens": 10}
COUNTED = Usage(input_tokens=20, output_tokens=10)
EMOJI = "\N{GRINNING FACE}"
KINDS = (
    *("text/event-stream", "text/plain", "application/json; charset=utf-8", "text/html"),
    *("application/octet-stream", None),
)


def chat(delta: Any, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def events(*parts: Any) -> bytes:
    """The events with these documents, texts or bytes of JSON as their data."""
    datas = (part if isinstance(part, bytes | str) else json.dumps(part) for part in parts)
    encoded = (data if isinstance(data, bytes) else data.encode() for data in datas)
    return b"".join(b"data: " + data + b"\n\n" for data in encoded)


def text_events(form: str, *pieces: bytes) -> bytes:
    """The stream of an answer whose text comes in these pieces of JSON."""
    if form == "openai":
        start = b'{"choices":[{"index":0,"delta":{"content":"%s"}}]}'
        end: list[Any] = [chat({}, "stop"), {"choices": [], "usage": USAGE}, "[DONE]"]
        return events(*(start % piece for piece in pieces), *end)
    if form == "responses":
        start = b'{"type":"response.output_text.delta","output_index":0,"delta":"%s"}'
        response = {"status": "completed", "output": [], "usage": USAGE}
        last = {"type": "response.completed", "response": response}
        return events(*(start % piece for piece in pieces), last)
    start = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}'
    begun = [{"type": "message_start", "message": {"usage": {"input_tokens": 20}}}]
    ended = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": USAGE}
    deltas = (start % piece for piece in pieces)
    return events(*begun, *deltas, ended, {"type": "message_stop"})


def argument_events(form: str, *pieces: bytes) -> bytes:
    """The stream of an answer that calls ``look_up`` with arguments in these pieces of JSON."""
    if form == "openai":
        first = chat({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "look_up"}}]})
        part = b'{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"%s"}}]}}]}'
        end: list[Any] = [chat({}, "tool_calls"), {"choices": [], "usage": USAGE}, "[DONE]"]
        return events(first, *(part % piece for piece in pieces), *end)
    if form == "responses":
        item = {"type": "function_call", "call_id": "a", "name": "look_up", "arguments": ""}
        begun = {"type": "response.output_item.added", "output_index": 0, "item": item}
        part = b'{"type":"response.function_call_arguments.delta","output_index":0,"delta":"%s"}'
        response = {"status": "completed", "output": [], "usage": USAGE}
        last = {"type": "response.completed", "response": response}
        return events(begun, *(part % piece for piece in pieces), last)
    block = {"type": "tool_use", "id": "a", "name": "look_up", "input": {}}
    begun = {"type": "content_block_start", "index": 0, "content_block": block}
    part = b'{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta",'
    part += b'"partial_json":"%s"}}'
    ended = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": USAGE}
    return events(begun, *(part % piece for piece in pieces), ended, {"type": "message_stop"})


def document(form: str) -> Any:
    """A whole answer with the text "hi"."""
    if form == "openai":
        choice = {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}
        return {"choices": [choice], "usage": USAGE}
    text = {"type": "text", "text": "hi"}
    if form == "anthropic":
        return {"content": [text], "stop_reason": "end_turn", "usage": USAGE}
    message = {"type": "message", "content": [{**text, "type": "output_text"}]}
    return {"status": "completed", "output": [message], "usage": USAGE}


@dataclass
class Server:
    """A server that gives the same bytes to each request, and its clients.

    Attributes:
        clients: A client for each form.
        content: The body of the answers.
        kind: Content type of the answers, or None for none.
        slice_bytes: Size of the slices in which the body is written.
        stays_open: Whether the server goes on with comments until the client leaves.
    """

    clients: dict[str, LLMClient] = field(default_factory=dict)
    content: bytes = b""
    kind: str | None = "text/event-stream"
    slice_bytes: int = 1 << 20
    stays_open: bool = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {} if self.kind is None else {"content-type": self.kind}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for start in range(0, len(self.content), self.slice_bytes):
            await response.write(self.content[start : start + self.slice_bytes])
        if self.stays_open:
            await wait_until_async(partial(self._has_left, request, response))
        return response

    async def _has_left(self, request: web.Request, response: web.StreamResponse) -> bool:
        if request.transport is None or request.transport.is_closing():
            return True
        await response.write(b": still here\n\n")
        return False

    async def read(
        self, form: str, content: bytes, *, stream: bool = True, **options: Any
    ) -> LLMResponse:
        """Read an answer; the further options are those of the server or of the call."""
        own = {each.name: each.default for each in fields(self) if each.name != "clients"}
        for name, value in own.items():
            setattr(self, name, options.pop(name, value))
        self.content = content
        return await self.clients[form].complete("Hello.", MODELS[form], stream=stream, **options)


Read = Callable[..., Awaitable[LLMResponse]]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def read(anyio_backend: str) -> AsyncIterator[Read]:
    """Read an answer in one of the forms, from the bytes of its body."""
    server = Server()
    async with provider_server(server.handle) as url:
        server.clients = {form: client_of(form, url) for form in FORMS}
        yield server.read
        for client in server.clients.values():
            await client.close()


@pytest.mark.parametrize("slice_bytes", [1, 7, 1 << 20])
@pytest.mark.parametrize("character", ["\N{LATIN SMALL LETTER E WITH ACUTE}", "\u20ac", EMOJI])
@pytest.mark.parametrize("form", FORMS)
async def test_the_bytes_of_a_character_that_is_cut_between_events_are_joined(
    read: Read, form: str, character: str, slice_bytes: int
) -> None:
    content = character.encode()
    for cut in range(1, len(content)):
        shown = list[str]()
        stream = text_events(form, b"a" + content[:cut], content[cut:] + b"b")

        response = await read(form, stream, slice_bytes=slice_bytes, on_text=shown.append)

        assert response.content == "".join(shown) == f"a{character}b"
        assert response.usage == COUNTED


@pytest.mark.parametrize("form", FORMS)
async def test_a_character_of_arguments_may_come_byte_by_byte(read: Read, form: str) -> None:
    each = [bytes([byte]) for byte in EMOJI.encode()]

    response = await read(form, argument_events(form, rb"{\"key\":\"", *each, rb"\"}"))

    (call,) = response.tool_calls or ()
    assert json.loads(call.arguments) == {"key": EMOJI}


async def test_a_character_of_reasoning_goes_back_whole(read: Read) -> None:
    delta = b'{"choices":[{"delta":{"reasoning":"%s","reasoning_details":[{"type":"reasoning.text",'
    delta += b'"index":0,"text":"%s"}]}}]}'
    parts = [delta % (piece, piece) for piece in (b"\xf0", b"\x9f\x98", b"\x80")]

    response = await read("openai", events(*parts) + text_events("openai", b"hi"))

    message = response.metadata["original"]["message"]
    assert message["reasoning"] == message["reasoning_details"][0]["text"] == EMOJI


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ((b"a\xf0\x9f", b"b"), "a\ufffd\ufffdb"),
        ((b"caf\xe9 au lait", b""), "caf\ufffd au lait"),
        ((b"\x98", b"b"), "\ufffdb"),
        ((b"a\xed\xa0\xbd", b"\xed\xb8\x80b"), f"a{EMOJI}b"),  # halves of a pair, as UTF-8
        ((rb"a\ud83d", rb"\udc80b"), "a\N{SKULL}b"),  # a half that could be a byte, too
    ],
)
@pytest.mark.parametrize("form", FORMS)
async def test_what_is_no_character_costs_nothing_else(
    read: Read, form: str, pieces: tuple[bytes, ...], text: str
) -> None:
    shown = list[str]()

    response = await read(form, text_events(form, *pieces), on_text=shown.append)

    assert response.content == "".join(shown) == text
    assert response.usage == COUNTED


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
async def test_an_answer_is_read_as_what_it_is_whatever_its_type_says(
    read: Read, form: str, kind: str | None, stream: bool
) -> None:
    whole = json.dumps(document(form), indent=1).encode()
    for content in (text_events(form, b"h", b"i"), b"\n " + whole):
        shown = list[str]()

        response = await read(form, content, stream=stream, kind=kind, on_text=shown.append)

        assert (response.content, response.finish_reason) == ("hi", "stop")
        assert response.usage == COUNTED
        assert "".join(shown) == ("hi" if stream else "")
        assert ("first_token_s" in response.metadata) <= stream


@pytest.mark.parametrize("stream", [False, True])
async def test_documents_that_follow_each_other_in_lines_are_a_stream(
    read: Read, stream: bool
) -> None:
    parts = [chat({"content": "hi"}), chat({}, "stop"), {"choices": [], "usage": USAGE}]
    content = "\n".join(map(json.dumps, parts)).encode()

    response = await read("openai", content, stream=stream, kind="application/x-ndjson")

    assert (response.content, response.usage) == ("hi", COUNTED)


async def test_a_stream_that_nobody_asked_for_and_that_breaks_off_is_booked(read: Read) -> None:
    told = list[Partial]()

    with pytest.raises(ConnectionFailed, match="broke off") as failed:
        await read("openai", events(chat({"content": "half"})), stream=False, on_broken=told.append)

    assert told == [failed.value.partial]
    assert told[0].usage.output_tokens >= 4


HI = chat({"content": "hi"})
END = (chat({}, "stop"), {"choices": [], "usage": USAGE}, "[DONE]")
STREAM = events(HI, *END)
FRAMES = {
    "no blank lines": STREAM.replace(b"\n\n", b"\n"),
    "no blank line at the end": STREAM.removesuffix(b"\n\n"),
    "returns": STREAM.replace(b"\n", b"\r"),
    "returns and new lines": STREAM.replace(b"\n", b"\r\n"),
    "two prefixes": STREAM.replace(b"data: ", b"data: data: "),
    "no space": STREAM.replace(b"data: ", b"data:"),
    "byte order mark": b"\xef\xbb\xbf" + STREAM,
    "blank lines first": b"\n\r\n \n" + STREAM,
    "comments that are no UTF-8": b": caf\xe9\n\n" + STREAM,
    "comments in an event": STREAM.replace(b"\n\n", b"\n: ping\n\n"),
    "document in many lines": events(HI)
    + b"data: "
    + json.dumps(END[0], indent=1).encode()
    + b"\n\n"
    + events(*END[1:]),
    "ids": STREAM.replace(b"data: ", b"id: 7\nretry: 3000\ndata: "),
    "names": STREAM.replace(b"data: ", b"event: message\ndata: "),
    "ping": b"event: ping\ndata: 2023-02-20 08:40:33.556053\n\n" + STREAM,
    "ping without a name": events("ping", HI, "2024-04-27 01:35:43.686476", ": keep-alive", *END),
    "empty ping": b"event: keepalive\ndata: \n\n" + STREAM,
}


@pytest.mark.parametrize("slice_bytes", [1, 1 << 20])
@pytest.mark.parametrize("content", FRAMES.values(), ids=FRAMES)
async def test_events_need_not_follow_the_standard(
    read: Read, content: bytes, slice_bytes: int
) -> None:
    response = await read("openai", content, slice_bytes=slice_bytes)

    assert (response.content, response.finish_reason) == ("hi", "stop")
    assert response.usage == COUNTED


FAILURES: dict[str, tuple[bytes, type[ProviderError]]] = {
    "without a prefix": (b'{"error":{"code":503,"message":"busy"}}\n', Overloaded),
    "in many lines": (b'{\n "error": {\n  "code": 429\n }\n}\n', RateLimited),
    "as a text": (b"data: error: the engine has stopped\n\n", ServerFailure),
    "as a text with a name": (b"event: error\ndata: Too many requests\n\n", RateLimited),
    "as a string with a name": (b'event: error\ndata: "Too many requests"\n\n', RateLimited),
    "in an event that had begun": (
        b'data: {"choices":[{"del\ndata: {"error":{"code":503,"message":"busy"}}\n\n',
        Overloaded,
    ),
}


@pytest.mark.parametrize(("failure", "kind"), FAILURES.values(), ids=FAILURES)
async def test_a_failure_in_a_stream_has_its_class_in_whatever_form_it_comes(
    read: Read, failure: bytes, kind: type[ProviderError]
) -> None:
    with pytest.raises(ProviderError) as failed:
        await read("openai", events(chat({"content": "half"})) + failure)

    assert type(failed.value) is kind
    assert failed.value.partial is not None


@pytest.mark.parametrize(
    "end", [b'data: {"choices":[{"del', b"<html>504 Gateway Time-out</html>\n"]
)
async def test_a_stream_that_ends_inside_an_event_broke_off(read: Read, end: bytes) -> None:
    with pytest.raises(ConnectionFailed, match="broke off"):
        await read("openai", events(chat({"content": "half"})) + end)


@pytest.mark.parametrize("form", FORMS)
async def test_an_answer_is_whole_at_its_end_also_if_its_stream_stays_open(
    read: Read, form: str
) -> None:
    content = text_events(form, b"hi").removesuffix(b"data: [DONE]\n\n")
    response = await read(form, content, stays_open=True, timeout_s=20)

    assert (response.content, response.usage) == ("hi", COUNTED)


async def test_a_message_of_anthropic_ends_with_its_stop_reason(read: Read) -> None:
    content = text_events("anthropic", b"hi").replace(b'data: {"type": "message_stop"}\n\n', b"")

    response = await read("anthropic", content)

    assert (response.content, response.usage) == ("hi", COUNTED)


@pytest.mark.parametrize("form", ["anthropic", "responses"])
async def test_the_name_of_an_event_may_be_its_type(read: Read, form: str) -> None:
    lines = text_events(form, b"hi").split(b"\n\n")
    named = []
    for line in filter(None, lines):
        data = json.loads(line.removeprefix(b"data: "))
        name = data.pop("type")
        named.append(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())

    response = await read(form, b"".join(named))

    assert (response.content, response.usage) == ("hi", COUNTED)


async def test_a_usage_without_a_choice_ends_a_stream_without_a_word_for_its_end(
    read: Read,
) -> None:
    response = await read("openai", events(HI, {"choices": [], "usage": USAGE}))

    assert (response.content, response.finish_reason) == ("hi", "stop")
    assert response.usage == COUNTED


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("form", FORMS)
async def test_a_usage_after_done_counts(read: Read, form: str, counted: bool) -> None:
    larger = {name: 9 * count for name, count in USAGE.items()}
    late = {
        "openai": {"choices": [chat({"content": "no"})["choices"][0]], "usage": larger},
        "responses": {"type": "response.completed", "response": {"usage": larger}},
        "anthropic": {"type": "message_delta", "delta": {}, "usage": larger},
    }
    stream = text_events(form, b"hi").removesuffix(events("[DONE]"))
    if not counted:
        stream = stream.replace(json.dumps(USAGE).encode(), b"null")

    response = await read(form, stream + events("[DONE]", late[form], {"usage": "none"}))

    assert response.content == "hi"
    assert response.usage == Usage(input_tokens=180, output_tokens=90)


async def details_of(read: Read, *pieces: dict[str, Any]) -> Any:
    """The reasoning of an answer whose pieces come in this order, as it is sent back."""
    parts = [chat({"reasoning_details": [piece]}) for piece in pieces]
    response = await read("openai", events(*parts) + STREAM)
    return response.metadata["original"]["message"]["reasoning_details"]


@pytest.mark.parametrize("name", ["index", "id"])
async def test_pieces_of_reasoning_find_their_element_in_whatever_order_they_come(
    read: Read, name: str
) -> None:
    places = [1, 2, 1, 2] if name == "index" else ["b", "a", "b", "a"]
    pieces = [
        {"type": "reasoning.text", name: place, "text": text}
        for place, text in zip(places, "wxyz", strict=True)
    ]

    details = await details_of(read, *pieces)

    assert details == [
        {"type": "reasoning.text", name: places[0], "text": "wy"},
        {"type": "reasoning.text", name: places[1], "text": "xz"},
    ]


async def test_elements_of_reasoning_with_one_index_are_told_apart_by_type_and_id(
    read: Read,
) -> None:
    text = {"type": "reasoning.text", "index": 0}
    sealed = {"type": "reasoning.encrypted", "index": 0}

    details = await details_of(
        read,
        {**text, "text": "a"},
        {**sealed, "id": "rs_1", "data": "E"},
        {**text, "text": "b"},
        {**sealed, "id": "rs_2", "data": "F"},
        {**text, "signature": "s"},
        {**text, "text": "c", "signature": "s"},
    )

    assert details == [
        {**text, "text": "abc", "signature": "s"},
        {**sealed, "id": "rs_1", "data": "E"},
        {**sealed, "id": "rs_2", "data": "F"},
    ]


async def test_what_is_no_text_is_not_continued(read: Read) -> None:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in ("one", "two")]

    content = events(*(chat({"images": [image]}) for image in images)) + STREAM
    response = await read("openai", content)

    assert response.metadata["original"]["message"]["images"] == images


async def test_texts_of_responses_may_come_in_turns(read: Read) -> None:
    delta = (
        b'{"type":"response.output_text.delta","output_index":%d,"content_index":%d,"delta":"%s"}'
    )
    turns = [(0, 0, b"a"), (0, 1, b"c"), (1, 0, b"e"), (0, 0, b"b"), (0, 1, b"d"), (1, 0, b"f")]
    end = {"status": "completed", "output": [], "usage": USAGE}
    last = {"type": "response.completed", "response": end}

    response = await read("responses", events(*(delta % turn for turn in turns), last))

    assert response.content == "abcdef"


def parts_of_calls(*parts: dict[str, Any]) -> bytes:
    calls = (chat({"tool_calls": [part]}) for part in parts)
    return events(*calls, chat({}, "tool_calls"), {"choices": [], "usage": USAGE}, "[DONE]")


def part(arguments: Any, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {**more, "function": {"name": name, "arguments": arguments}}


ONE_CALL: dict[str, tuple[dict[str, Any], ...]] = {
    "repeated at the end": (
        part("", "look_up", index=0, id="a"),
        part('{"key":', index=0),
        part('"x"}', index=0),
        part('{"key": "x"}', index=0),
    ),
    "all so far in every part": (
        part('{"key"', "look_up", index=0, id="a"),
        part('{"key":"x"', index=0),
        part('{"key":"x"}', index=0),
    ),
    "another id in every part": (
        part("", "look_up", index=0, id="1"),
        part('{"key":', "", index=0, id="2"),
        part('"x"}', "", index=0, id="3"),
    ),
    "name in pieces": (part("", "look", index=0, id="a"), part('{"key":"x"}', "_up", index=0)),
    "name so far": (part("", "look", index=0, id="a"), part('{"key":"x"}', "look_up", index=0)),
    "name in every part": (
        part('{"key":', "look_up", index=0, id="a"),
        part('"x"}', "look_up", index=0),
    ),
    "index as a text": (
        part('{"key":', "look_up", index="0", id="a"),
        part('"x"}', index=0),
    ),
    "null at the end": (
        part('{"key":"x"}', "look_up", index=0, id="a"),
        part(None, index=0),
    ),
    "JSON twice": (part(json.dumps('{"key":"x"}'), "look_up", index=0, id="a"),),
}


@pytest.mark.parametrize("parts", ONE_CALL.values(), ids=ONE_CALL)
async def test_a_call_in_odd_parts_is_one_call(
    read: Read, parts: tuple[dict[str, Any], ...]
) -> None:
    response = await read("openai", parts_of_calls(*parts))

    (call,) = response.tool_calls or ()
    assert (call.name, json.loads(call.arguments)) == ("look_up", {"key": "x"})


async def test_parts_without_an_index_belong_to_the_last_call(read: Read) -> None:
    first, second = (part("", "look_up", index=place, id=str(place)) for place in (0, 1))
    content = parts_of_calls(first, part('{"key":1}'), second, part('{"key"'), part(":2}"))

    response = await read("openai", content)

    assert [json.loads(call.arguments)["key"] for call in response.tool_calls or ()] == [1, 2]


@pytest.mark.parametrize(
    "parts",
    [
        [{"choices": [{"index": 1, "delta": {"content": "hi"}}]}],
        [{"choices": [{"index": 0, "text": "hi"}]}],
        [chat({"tool_calls": [None], "content": "hi"})],
        [chat(None), {"choices": None}, HI],
    ],
)
async def test_an_odd_chunk_costs_no_text(read: Read, parts: list[dict[str, Any]]) -> None:
    index = parts[0]["choices"][0].get("index")
    end = {"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}], "usage": USAGE}

    response = await read("openai", events(*parts, end, "[DONE]"))

    assert (response.content, response.usage) == ("hi", COUNTED)


@pytest.mark.parametrize("given", [None, {}, "missing"])
async def test_an_empty_part_of_a_response_costs_no_text(read: Read, given: Any) -> None:
    added: dict[str, Any] = {"type": "response.output_item.added", "output_index": 0}
    created: dict[str, Any] = {"type": "response.created"}
    last: dict[str, Any] = {"type": "response.completed"}
    if given != "missing":
        added["item"], created["response"], last["response"] = given, given, given
    delta = {"type": "response.output_text.delta", "output_index": 0, "delta": "hi"}

    response = await read("responses", events(created, added, delta, last))

    assert (response.content, response.finish_reason) == ("hi", "stop")
    assert response.metadata["usage_missing"]

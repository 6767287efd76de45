"""Bodies of answers: one document or a stream of events, in chunks of any size."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.llm.server_events import document_or_stream, events_of
from app.llm.wire import NotTheProtocol

VALUES = st.none() | st.integers(0, 9) | st.text(max_size=4) | st.lists(st.text(max_size=2))
DOCUMENTS = st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, min_size=1), max_size=4)
SIZES = st.integers(1, 30)
ENDS = st.sampled_from(["\n\n", "\r\n\r\n", "\r\r", "\n", "\n\n\n", "\n: comment\n\n"])
PREFIXES = st.sampled_from(["data: ", "data:", "event: message\ndata: ", "id: 1\ndata: "])


async def chunks_of(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def read(content: bytes, size: int = 1 << 20, kind: str = "") -> bytes | list[Any]:
    """The body if it is one document, or the values of its events."""

    async def body() -> bytes | list[Any]:
        chunks = chunks_of(content, size)
        document, whole = await document_or_stream(chunks, {"content-type": kind})
        if document is not None:
            return document
        return [value async for value in events_of(whole)]

    return asyncio.run(body())


@given(DOCUMENTS, SIZES, ENDS, PREFIXES, st.booleans())
@example([{"a": "\r"}, {"b": "\u2028"}], 1, "\r\n\r\n", "data: ", False)
def test_events_are_the_same_in_chunks_of_any_size(
    documents: list[Any], size: int, end: str, prefix: str, indent: bool
) -> None:
    texts = [json.dumps(document, indent=1 if indent else None) for document in documents]
    content = "".join(prefix + text + end for text in texts).encode()

    assert read(content, size, "text/event-stream") == documents


def test_documents_in_lines_are_a_stream() -> None:
    assert read(b'{"a":1}\n{"a":2}\n\n{"a":3}\n', 3) == [{"a": 1}, {"a": 2}, {"a": 3}]


@given(VALUES, SIZES, st.sampled_from(["", "text/event-stream", "application/json", "text/plain"]))
def test_a_document_stays_what_it_is(value: Any, size: int, kind: str) -> None:
    content = json.dumps({"value": value}, indent=1).encode()

    assert read(b" \n" + content, size, kind) == b" \n" + content


@pytest.mark.parametrize("kind", ["", "text/event-stream", "text/html"])
def test_a_page_is_a_document(kind: str) -> None:
    assert read(b"<html>Sign in</html>", 1, kind) == b"<html>Sign in</html>"


def test_a_stream_ends_with_done_or_with_its_bytes() -> None:
    assert read(b'data: {"a":1}\n\ndata: [DONE]\n\ndata: {"b":2}\n\n') == [{"a": 1}, None]
    assert read(b'data: {"a":1}\n\ndata: {"b":') == [{"a": 1}]
    assert read(b"", kind="text/event-stream") == []


@given(SIZES)
def test_of_the_events_after_done_only_objects_with_a_usage_are_read(size: int) -> None:
    others = b'data: {"a":2}\n\ndata: ["usage"]\n\ndata: usage\n\n'
    late = others + b'data: {"usage":{"a":\ndata: 3}}\n\n'

    found = read(b'data: {"a":1}\n\ndata: [DONE]\n\n' + late, size, "text/event-stream")

    assert found == [{"a": 1}, None, {"usage": {"a": 3}}]


def test_no_number_of_events_after_done_fills_the_memory() -> None:
    content = b"data: [DONE]\n\n" + b'data: {"usage":1}\n\n' * 1000

    assert read(content) == [None, *[{"usage": 1}] * 100]


def test_a_stream_that_stays_open_after_done_is_left_soon() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'data: [DONE]\n\ndata: {"usage":1}\n\n'
        await asyncio.Event().wait()

    async def values() -> list[Any]:
        return [value async for value in events_of(body())]

    assert asyncio.run(values()) == [None, {"usage": 1}]


def test_the_name_of_an_event_stands_for_a_type_that_its_data_lack() -> None:
    content = b'event: message_stop\ndata: {}\n\nevent: message\ndata: {"type":"x"}\n\n'

    assert read(content) == [{"type": "message_stop"}, {"type": "x"}]


@pytest.mark.parametrize("garbage", [b"data: {,\n\n", b"data: \xff\n\n", b"event: x\ndata: y\n\n"])
def test_garbage_is_not_the_protocol(garbage: bytes) -> None:
    with pytest.raises(NotTheProtocol):
        read(b'data: {"a":1}\n\n' + garbage)

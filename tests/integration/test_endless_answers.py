"""Answers without an end, through the real SDKs: bounded by the deadline and by bytes."""

import time
from contextlib import suppress

import pytest

from app.errors import ProviderError
from app.llm import answer_bytes, streams
from tests.support.bombs import bomb
from tests.support.cheapness import assert_cheap
from tests.support.endless_server import endless
from tests.support.llm_clients import FORMS, PROTOCOL_OF, client_of
from tests.support.pace import at_this_pace

pytestmark = pytest.mark.anyio

MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}
MAX_TOKENS = 100
OK = b"HTTP/1.1 200 OK\r\n"
EVENTS = OK + b"content-type: text/event-stream\r\n\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
#: What is sent before, and what follows again and again.
BEFORE_THE_ANSWER = {
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 500),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500),
    "processing": (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 500),
    "header lines": (OK, b"x-a: b\r\n" * 5000),
    "a header line": (OK + b"x-a: ", b"b" * 50_000),
    "header lines of hints": (b"HTTP/1.1 103 Early Hints\r\n", b"x-a: b\r\n" * 5000),
    "a status line": (b"HTTP/1.1 200 ", b"b" * 50_000),
    "trailers": (CHUNKED + b"0\r\n", b"x-a: b\r\n" * 5000),
}
IN_THE_ANSWER = {
    "comments": (EVENTS, b": keep-alive\n\n" * 3000),
    "empty comments": (EVENTS, b":\n" * 30_000),
    "pings": (EVENTS, b"event: ping\ndata: {}\n\n" * 2000),
    "blanks": (OK + b"content-type: application/json\r\n\r\n", b" " * 50_000),
    "a line": (EVENTS + b"data: ", b"x" * 50_000),
    "lines of data": (EVENTS, b"data: {\n" * 5000),
    "lines that look whole": (EVENTS + b"data: [\n", b"data: {},{}\n" * 5000),
    "an error": (b"HTTP/1.1 500 Oops\r\n\r\n", b"x" * 50_000),
    "an error of events": (b"HTTP/1.1 500 Oops\r\ncontent-type: text/event-stream\r\n\r\n", b":\n"),
}
SOCKET_BUFFERS = 32_000_000


#: Headers of an answer, the beginning of its content, and what follows 250 MB long.
COMPRESSED = {
    "blanks": (OK + b"content-type: application/json\r\n", b"", b" " * 1_000_000),
    "a text": (OK + b"content-type: application/json\r\n", b'{"a": "', b"x" * 1_000_000),
    "events": (OK + b"content-type: text/event-stream\r\n", b"", b": a\n\n" * 200_000),
    "an error": (b"HTTP/1.1 500 Oops\r\n", b"", b"x" * 1_000_000),
}
LARGE = 15_500_000
ANSWER = b'{"choices": [{"finish_reason": "stop", "message": {"content": "'
#: The beginning of a document, and what is repeated until the document is large.
DOCUMENTS = {
    "objects": (b'{"a": [', b"{},"),
    "objects and a long number": (b'{"n": 1234567890123456789012, "a": [', b'{"a":1},'),
    "numbers": (b'{"a": [', b"1.5,"),
    "long integers": (b'{"a": [', b"1" * 4000 + b","),
    "half pairs": (ANSWER, rb"\ud83d"),
    "characters in two halves": (ANSWER, rb"\ud83d\ude00"),
    "half characters": (ANSWER, b"\xf0\x9f"),
    "lines": (b"", b'{"a": "' + b"x" * 10_000 + b'"}\n'),
    "ends of objects": (b"{", b"} "),
}
#: 120 lines of headers, which are slow to read.
SLOW_HEADERS = {
    "cookies": [b"set-cookie: a%d=b" % n + b";a" * 4000 for n in range(120)],
    "a type": [b"content-type: text/html" + b";" * 8000],
    "a type with parameters": [b"content-type: text/html" + b";a" * 4000],
    "a type in quotes": [b"content-type: text/html; a=" + b'"' * 8000],
}


async def ask(form: str, url: str, *, stream: bool, timeout_s: float) -> ProviderError:
    with pytest.raises(ProviderError) as failed:
        await asked(form, url, stream=stream, timeout_s=timeout_s)
    return failed.value


async def asked(form: str, url: str, *, stream: bool, timeout_s: float) -> None:
    client = client_of(form, url)
    model = MODELS[PROTOCOL_OF[form]]
    try:
        client.preload()  # the import of an SDK is no part of a call
        await client.complete_with_tools(
            [{"role": "user", "content": "Go."}],
            model,
            max_tokens=MAX_TOKENS,
            timeout_s=timeout_s,
            stream=stream,
        )
    finally:
        await client.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", BEFORE_THE_ANSWER)
def test_what_never_comes_to_the_answer_ends_long_before_the_deadline(
    what: str, form: str, stream: bool
) -> None:
    with endless(*BEFORE_THE_ANSWER[what]) as server:

        async def attack() -> None:
            sent = server.sent
            await ask(form, server.url, stream=stream, timeout_s=600)
            assert server.sent - sent < SOCKET_BUFFERS

        assert_cheap(attack)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", ["openai", "anthropic"])
@pytest.mark.parametrize("what", IN_THE_ANSWER)
def test_an_answer_without_an_end_ends_at_its_largest_size(
    what: str, form: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_bytes, "MOST_STREAMED", 2_000_000)
    begin, piece = IN_THE_ANSWER[what]
    with endless(begin, piece * max(1, 10_000 // len(piece))) as server:

        async def attack() -> None:
            sent = server.sent
            await ask(form, server.url, stream=stream, timeout_s=600)
            assert server.sent - sent < answer_bytes.MOST_WHOLE + SOCKET_BUFFERS

        assert_cheap(attack)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", ["comments", "empty comments", "pings", "blanks", "lines of data"])
def test_an_answer_without_an_end_ends_at_its_deadline(
    what: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MOST_STREAMED", "MOST_WHOLE"):
        monkeypatch.setattr(answer_bytes, name, 10**12)
    with endless(*IN_THE_ANSWER[what]) as server:

        async def attack() -> None:
            started_s = time.monotonic()
            await ask("openai", server.url, stream=stream, timeout_s=0.3)
            assert time.monotonic() - started_s < at_this_pace(30)

        assert_cheap(attack)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", ["openai", "anthropic"])
@pytest.mark.parametrize("what", COMPRESSED)
def test_a_compressed_answer_ends_at_its_largest_size(
    what: str, form: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_bytes, "MOST_STREAMED", 2_000_000)
    headers, begin, piece = COMPRESSED[what]
    content = bomb(piece, 250, begin=begin)
    length = b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(content)
    with endless(headers + length + content, b"") as server:

        async def attack() -> None:
            error = await ask(form, server.url, stream=stream, timeout_s=600)
            assert what == "an error" or "bytes" in str(error)

        assert_cheap(attack)


@pytest.mark.parametrize("what", DOCUMENTS)
def test_a_large_document_takes_no_time_of_the_loop(what: str) -> None:
    begin, piece = DOCUMENTS[what]
    content = begin + piece * (LARGE // len(piece)) + b'"}}]}' * begin.startswith(ANSWER)
    length = b"content-length: %d\r\n\r\n" % len(content)
    with endless(OK + length + content, b"") as server:

        async def attack() -> None:
            with suppress(ProviderError):
                await asked("openai", server.url, stream=False, timeout_s=600)

        assert_cheap(attack)


async def test_a_stream_keeps_no_more_output_than_an_answer_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "MOST_KEPT", 500_000)
    event = b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n' % (b"x" * 1000)
    with endless(EVENTS, event) as server:
        error = await ask("openai", server.url, stream=True, timeout_s=600)

    assert "over 500,000 bytes of output" in str(error)
    assert error.partial is not None
    assert error.partial.usage.output_tokens == MAX_TOKENS


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad", b"500 Oops"])
@pytest.mark.parametrize("form", ["openai", "anthropic"])
@pytest.mark.parametrize("what", SLOW_HEADERS)
def test_headers_of_an_answer_are_cheap_to_read(what: str, form: str, status: bytes) -> None:
    lines = [b"HTTP/1.1 " + status, *SLOW_HEADERS[what], b"content-length: 2", b"", b"no"]
    with endless(b"\r\n".join(lines), b"") as server:

        async def attack() -> None:
            await ask(form, server.url, stream=False, timeout_s=600)

        assert_cheap(attack)

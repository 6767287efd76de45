"""Answers without an end, through the real SDKs: bounded by the deadline and by bytes."""

import time

import pytest

from app.errors import ProviderError
from app.llm import answer_bytes
from tests.support.cheapness import assert_cheap
from tests.support.endless_server import endless
from tests.support.llm_clients import FORMS, PROTOCOL_OF, client_of
from tests.support.pace import at_this_pace

MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}
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
SOCKET_BUFFERS = 16_000_000


async def ask(form: str, url: str, *, stream: bool, timeout_s: float) -> ProviderError:
    client = client_of(form, url)
    model = MODELS[PROTOCOL_OF[form]]
    try:
        client.preload()  # the import of an SDK is no part of a call
        with pytest.raises(ProviderError) as failed:
            await client.complete_with_tools(
                [{"role": "user", "content": "Go."}],
                model,
                max_tokens=100,
                timeout_s=timeout_s,
                stream=stream,
            )
    finally:
        await client.close()
    return failed.value


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

"""Bounds the bytes that a server may send for one call; the call's deadline bounds only the time.

A server may send comments or blanks without end, or a few compressed bytes that become gigabytes.
``app.outbound.responses`` bounds the responses before the answer. The HTTP library itself refuses
more than 128 lines of headers, and lines of more than 8 kB.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from contextvars import ContextVar
from http.cookiejar import CookieJar
from typing import Any

import aiohttp
import httpx2

from app.outbound.responses import BoundedResponse

#: Bytes of one answer, as they come from the network, and again when they are decompressed. A
#: stream is not kept, but an event of a stream may have 300 bytes for one token.
MOST_STREAMED = 256 * 1024 * 1024
MOST_WHOLE = 16 * 1024 * 1024
MOST_OF_AN_ERROR = 1024 * 1024
# A decompressed piece is long, and its events are read at once.
_PIECE_BYTES = 65_536
#: Whether the present request asks for a stream. The answer to another request is kept whole, even
#: if it has the form of a stream.
STREAMS: ContextVar[bool] = ContextVar("streams", default=False)


class NoCookies(CookieJar):
    """Keeps no cookies, so a server cannot make later requests larger.

    The reading of 120 cookies can also take most of a second.
    """

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Do nothing."""


class BoundedBody(httpx2.AsyncByteStream):
    """The body of an answer, with a largest number of bytes.

    Args:
        body: The body, in pieces.
        most: Largest number of bytes.

    Raises:
        httpx2.ReadError: In the iteration, if the body is larger.
    """

    def __init__(self, body: httpx2.AsyncByteStream, most: int) -> None:
        self._body = body
        self._left = most
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces of the body."""
        async for chunk in self._body:
            self._left -= len(chunk)
            if self._left < 0:
                raise httpx2.ReadError(f"the answer has over {self._most:,} bytes")
            for start in range(0, len(chunk), _PIECE_BYTES):
                yield chunk[start : start + _PIECE_BYTES]
                # A piece that has already come is read without a pause; other work comes between.
                await asyncio.sleep(0)

    async def aclose(self) -> None:
        """Close the body."""
        await self._body.aclose()


def bound_body(response: httpx2.Response) -> None:
    """Bound the body of a response that is not read yet."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    most = MOST_WHOLE
    if response.is_error:
        most = MOST_OF_AN_ERROR
    elif STREAMS.get():
        most = MOST_STREAMED
    raw = BoundedBody(response.stream, most)
    if "content-encoding" not in response.headers:
        response.stream = raw
        return
    # The library decompresses at most 1 MB at once. The decompressed bytes are bounded, too.
    compressed = httpx2.Response(response.status_code, headers=response.headers, stream=raw)
    response.stream = BoundedBody(_Decompressed(compressed), most)
    del response.headers["content-encoding"]


class _Decompressed(httpx2.AsyncByteStream):
    """The decompressed body of a response."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with aclosing(self._response.aiter_bytes()) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        await self._response.aclose()


def bounded(http_client: type[Any]) -> type[Any]:
    """Return a subclass of an SDK's HTTP client class whose responses are bounded.

    Args:
        http_client: The class, which uses aiohttp, such as ``openai.DefaultAioHttpClient``.
    """

    class BoundedClient(http_client):  # type: ignore[misc]
        def _init_transport(self, *args: Any, **kwargs: Any) -> Any:
            return _with_bounded_responses(super()._init_transport(*args, **kwargs))

        def _init_proxy_transport(self, *args: Any, **kwargs: Any) -> Any:
            return _with_bounded_responses(super()._init_proxy_transport(*args, **kwargs))

    return BoundedClient


def _with_bounded_responses(transport: Any) -> Any:
    """Let the transport of an SDK make its session, when it needs one, with bounded responses."""

    def session() -> aiohttp.ClientSession:
        transport.client = None
        plain: aiohttp.ClientSession = transport.get_client()
        found = aiohttp.ClientSession(
            connector=plain.connector,
            response_class=BoundedResponse,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        plain.detach()
        return found

    transport.client = session
    return transport

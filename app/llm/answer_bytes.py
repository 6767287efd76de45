"""Bounds the bytes that a server may send for one call; the call's deadline bounds only the time.

A server may send early hints, comments or blanks without end. The HTTP library skips early hints
and other responses before the answer, so they are counted here. The library itself refuses more
than 128 lines of headers, and lines of more than 8 kB.
"""

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import aiohttp
import httpx2

#: Responses with a status of 1xx that may come before the answer.
MOST_INFORMATIONAL = 100
#: Bytes of one answer, as they come from the network. A stream is not kept, but an event of a
#: stream may have 300 bytes for one token.
MOST_STREAMED = 256 * 1024 * 1024
MOST_WHOLE = 32 * 1024 * 1024
MOST_OF_AN_ERROR = 1024 * 1024
#: Whether the present request asks for a stream. The answer to another request is kept whole, even
#: if it has the form of a stream.
STREAMS: ContextVar[bool] = ContextVar("streams", default=False)


class BoundedResponse(aiohttp.ClientResponse):
    """A response before which only some responses with a status of 1xx may come."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """Read the beginning of the answer; see ``aiohttp.ClientResponse.start``."""
        protocol = connection.protocol
        unbounded, reads = protocol.read, 0

        async def read() -> Any:
            nonlocal reads
            reads += 1
            if reads > MOST_INFORMATIONAL + 1:
                raise aiohttp.ClientPayloadError(
                    f"over {MOST_INFORMATIONAL} responses came before the answer"
                )
            return await unbounded()

        protocol.read = read
        try:
            return await super().start(connection)
        finally:
            del protocol.read


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
            yield chunk
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
    response.stream = BoundedBody(response.stream, most)


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
        found = aiohttp.ClientSession(connector=plain.connector, response_class=BoundedResponse)
        plain.detach()
        return found

    transport.client = session
    return transport

"""Bounds the responses that a server may send before its answer.

A server may send early hints and other responses with a status of 1xx without end. The HTTP library
skips these responses, so they are counted here.
"""

from typing import Any

import aiohttp

#: Responses with a status of 1xx that may come before the answer.
MOST_INFORMATIONAL = 100


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

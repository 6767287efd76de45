"""A request to a provider in the form in which it is sent."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request.

    Attributes:
        body: Its body, before it is encoded.
        headers: Headers beside the client's own.
        timeout_s: Seconds until it is given up.
        before_sent: As in ``LLMClient.complete_with_tools``.
        max_tokens: Most tokens that it lets the model generate.
        prompt_tokens: Returns the upper bound of its prompt; raises BadRequest if that is not only
            text.
    """

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    timeout_s: float
    before_sent: Callable[[], Awaitable[None]] | None
    max_tokens: int
    prompt_tokens: Callable[[], int]

    def content(self, encoded: bytes) -> tuple[bytes | AsyncIterator[bytes], dict[str, str]]:
        """Return the body as the SDK takes it, and the headers that go with it.

        Args:
            encoded: The body, encoded.
        """
        if self.before_sent is None:
            return encoded, dict(self.headers)
        length = {"Content-Length": str(len(encoded))}
        return _held_back(encoded, self.before_sent), {**self.headers, **length}


async def _held_back(
    content: bytes, before_sent: Callable[[], Awaitable[None]]
) -> AsyncIterator[bytes]:
    """Yield the body once the connection is there, which asks for it; headers go with it."""
    await before_sent()
    yield content

"""A request to a provider as it is going to be sent."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request.

    Attributes:
        body: Its body, before it is encoded.
        headers: Headers beside the client's own.
        timeout_s: Seconds until it is given up.
        on_sent: As in ``LLMClient.complete_with_tools``.
        max_tokens: Most tokens that it lets the model generate.
        prompt_tokens: Asked for the upper bound of its prompt; raises BadRequest if that is not
            only text.
    """

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    timeout_s: float
    on_sent: Callable[[], None] | None
    max_tokens: int
    prompt_tokens: Callable[[], int]

    def content(self, encoded: bytes) -> tuple[bytes | AsyncIterator[bytes], dict[str, str]]:
        """The body as the SDK takes it, and the headers that go with it.

        Args:
            encoded: The body, encoded.
        """
        if self.on_sent is None:
            return encoded, dict(self.headers)
        length = {"Content-Length": str(len(encoded))}
        return _announced(encoded, self.on_sent), {**self.headers, **length}


async def _announced(content: bytes, on_sent: Callable[[], None]) -> AsyncIterator[bytes]:
    """A body that says when it is taken to be written: then the connection is there."""
    on_sent()
    yield content

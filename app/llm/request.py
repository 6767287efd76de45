"""A request to a provider, in the form that is sent."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.domain.containers import ContainerRules


@dataclass(frozen=True, kw_only=True, slots=True)
class Programs:
    """The programs that the provider may run for a request.

    Attributes:
        rules: The rules by which the provider runs programs.
        gigabytes: How often a container counts.
        most_containers: Largest number of containers.
        billed: Whether the provider bills containers for this request.
        preloaded: Whether the request has files; the provider may put these files into a container
            before any program runs.
        elapsed_s: Returns the seconds since the call began.
    """

    rules: ContainerRules
    gigabytes: int
    most_containers: int
    billed: bool
    preloaded: bool
    elapsed_s: Callable[[], float]

    def container_seconds(self, shown: int, *, ran: bool) -> int:
        """Return the longest time for which the containers of an answer may be billed.

        Args:
            shown: Number of different containers that the answer names.
            ran: Whether the answer shows that a program ran.
        """
        if not self.billed:
            return 0
        containers = self.rules.count(shown, ran=ran or self.preloaded) * self.gigabytes
        return self.rules.seconds(self.elapsed_s(), containers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request.

    Attributes:
        body: Body of the request, before it is encoded.
        headers: Headers in addition to the client's own headers.
        timeout_s: Seconds after which the request fails.
        before_sent: As in ``LLMClient.complete_with_tools``.
        max_tokens: Largest number of tokens that the model may generate.
        prompt_tokens: Returns the upper bound of the prompt's tokens; raises BadRequest if the
            prompt has parts that cannot be priced.
        may_pause: Whether the provider may pause its answer, because the provider runs tools of its
            own.
        programs: The programs that the provider may run; None if it may run none.
    """

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    timeout_s: float
    before_sent: Callable[[], Awaitable[None]] | None
    max_tokens: int
    prompt_tokens: Callable[[], int]
    may_pause: bool = False
    programs: Programs | None = None

    def content(self, encoded: bytes) -> tuple[bytes | AsyncIterator[bytes], dict[str, str]]:
        """Return the body in the form for the SDK, and the headers of the request.

        Args:
            encoded: The encoded body.
        """
        if self.before_sent is None:
            return encoded, dict(self.headers)
        length = {"Content-Length": str(len(encoded))}
        return _held_back(encoded, self.before_sent), {**self.headers, **length}


async def _held_back(
    content: bytes, before_sent: Callable[[], Awaitable[None]]
) -> AsyncIterator[bytes]:
    """Yield the body after ``before_sent``.

    The transport asks for the body when the connection is open, and sends headers and body
    together.
    """
    await before_sent()
    yield content

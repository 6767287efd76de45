"""Streamed answers: reads the SDK's events and puts the answer together from its pieces.

The result has the form of a whole answer, so that one reader serves both. The part of an answer
that came before it broke off is counted, because the provider bills it.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from app.domain.usage import Partial, Usage
from app.llm.headers import limit_headers, request_id
from app.llm.tokens import text_bytes

if TYPE_CHECKING:
    import httpx2

#: Exceptions of reading an answer that is not in the form of its protocol.
PROTOCOL_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError)
# Tokens that a provider may have generated beyond those that were read, until it notices that the
# connection is closed: 100 a second, and 0.6 s for the way and for pieces in buffers.
_UNSEEN_TOKENS = 64
# Tokens of a call's form beside its name and arguments.
_CALL_TOKENS = 64


class NotTheProtocol(Exception):
    """The stream holds something that is not the provider's protocol."""


class ListenerFailed(Exception):
    """The listener to the text raised ``reason``."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class Assembly(ABC):
    """An answer in the making.

    Args:
        hidden: Whether the model may generate tokens that it does not show.
    """

    def __init__(self, *, hidden: bool) -> None:
        self._hidden = hidden
        self._output_tokens = 0
        #: Whether the provider has begun to answer: then it bills the prompt.
        self.begun = False
        #: Whether the last event of an answer has come.
        self.complete = False
        #: Whether ``raw_usage`` is the provider's last word.
        self.final = False
        #: The provider's own usage, as far as it has come.
        self.raw_usage: dict[str, Any] = {}
        #: Model that answers, as the provider names it.
        self.model: str | None = None

    @property
    def has_output(self) -> bool:
        """Whether anything that was generated has come."""
        return self._output_tokens > 0

    @property
    def prompt_counted(self) -> bool:
        """Whether the provider has counted the prompt; some servers begin with a zero."""
        return bool(self.raw_usage) and (self.final or self._usage().prompt_tokens > 0)

    @abstractmethod
    def add(self, event: Any) -> str:
        """Take an event in.

        Args:
            event: Its data, parsed.

        Returns:
            The text that the event adds to the answer; empty for most kinds of events.

        Raises:
            Exception: One of ``PROTOCOL_ERRORS``, if the event is not in the provider's form.
        """

    @abstractmethod
    def answer(self) -> dict[str, Any]:
        """Return the answer in the form in which the provider sends a whole one."""

    @abstractmethod
    def _usage(self) -> Usage:
        """Return ``raw_usage`` in the form of the domain."""

    def bounded(self, *, prompt_tokens: int, max_tokens: int) -> Usage:
        """Return the tokens so far, never too few; the provider's own as far as it sent them.

        Args:
            prompt_tokens: Upper bound of the prompt.
            max_tokens: Most tokens that the request lets the model generate.
        """
        counted = self._usage() if self.raw_usage else Usage()
        if self.final:
            return counted
        if not self.prompt_counted:
            counted = replace(counted, input_tokens=prompt_tokens)
        seen = self._output_tokens + _UNSEEN_TOKENS
        bound = max_tokens if self._hides() else min(seen, max_tokens)
        return replace(counted, output_tokens=max(bound, counted.output_tokens))

    def _hides(self) -> bool:
        """Return whether more may have been generated than was shown."""
        return self._hidden

    def _count(self, text: str) -> None:
        self._output_tokens += text_bytes(text)

    def _count_call(self, name: str) -> None:
        self._output_tokens += _CALL_TOKENS + text_bytes(name)


@dataclass(kw_only=True, slots=True)
class Reading:
    """One request whose answer is streamed.

    Attributes:
        assembly: Takes the events in.
        on_text: Called with each piece of text, or None.
        clock: Returns the time in seconds.
        started_at_s: When the request was made, by that clock.
        headers: Headers of the answer, once they are there.
        first_token_s: Seconds until something that was generated came, or None.
    """

    assembly: Assembly
    on_text: Callable[[str], None] | None
    clock: Callable[[], float]
    started_at_s: float
    headers: Mapping[str, str] | None = None
    first_token_s: float | None = None

    async def take_all(self, events: AsyncIterable[Any]) -> None:
        """Read the stream to its end.

        Args:
            events: The SDK's stream.

        Raises:
            NotTheProtocol: If an event is not in the provider's form.
            ListenerFailed: If ``on_text`` raises.
            Exception: Any exception of the SDK.
        """
        iterator = aiter(events)
        while True:
            try:
                event = await anext(iterator)
            except StopAsyncIteration:
                return
            except ValueError as error:  # the SDK's: no JSON, no UTF-8
                raise NotTheProtocol(str(error)) from error
            try:
                text = self.assembly.add(event)
            except PROTOCOL_ERRORS as error:
                raise NotTheProtocol(f"{type(error).__name__}: {error}") from error
            if self.first_token_s is None and self.assembly.has_output:
                self.first_token_s = self.clock() - self.started_at_s
            self.tell(text)

    def tell(self, text: str) -> None:
        """Pass a piece of text on.

        Raises:
            ListenerFailed: If ``on_text`` raises.
        """
        if text and self.on_text is not None:
            try:
                self.on_text(text)
            except Exception as error:
                raise ListenerFailed(error) from error

    def partial(self, *, prompt_tokens: int, max_tokens: int) -> Partial | None:
        """Return the known part of the answer so far; None if nothing but headers came.

        Args:
            prompt_tokens: Upper bound of the prompt.
            max_tokens: Most tokens that the request lets the model generate.
        """
        assembly = self.assembly
        if not assembly.begun:
            return None
        headers = self.headers or {}
        return Partial(
            usage=assembly.bounded(prompt_tokens=prompt_tokens, max_tokens=max_tokens),
            prompt_counted=assembly.prompt_counted,
            final=assembly.final,
            raw_usage=assembly.raw_usage,
            model=assembly.model,
            request_id=request_id(headers),
            headers=limit_headers(headers),
        )


def is_event_stream(response: "httpx2.Response") -> bool:
    """Return whether a response is a stream; a server that cannot stream answers in JSON."""
    return not response.headers.get("content-type", "").startswith("application/json")


def text_of(value: Any) -> str:
    """Return a text of an answer, or an empty one for null.

    Raises:
        TypeError: If it is neither.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a text is expected")
    return value

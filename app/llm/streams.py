"""Streamed answers: reads the SDK's events and builds the answer from its pieces.

The result has the form of a whole answer, so that the same code reads streamed and whole answers.
If an answer breaks off, the tokens of its first part are counted, because the provider bills them.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from app.domain.usage import Partial, Usage, served_by
from app.llm.headers import limit_headers, request_id
from app.llm.tokens import text_bytes

if TYPE_CHECKING:
    import httpx2

#: Exceptions that the code raises when it reads an answer that does not follow the protocol.
PROTOCOL_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError)
# A provider goes on generating tokens until it notices that the connection is closed. This is the
# largest number of tokens that it has perhaps generated and that this process has not read: about
# 100 tokens a second, for 0.6 s of network delay and of pieces in buffers.
_UNSEEN_TOKENS = 64
# Tokens that a tool call has in addition to its name and arguments.
_CALL_TOKENS = 64


class NotTheProtocol(Exception):
    """The stream has an event that does not follow the provider's protocol."""


class ListenerFailed(Exception):
    """The listener for the answer's text raised ``reason``."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class Assembly(ABC):
    """Builds an answer from the events of its stream.

    Args:
        hidden: Whether the model may generate tokens that the stream does not show.
    """

    def __init__(self, *, hidden: bool) -> None:
        self._hidden = hidden
        self._output_tokens = 0
        #: Whether the provider has begun to answer, so that it bills the prompt.
        self.begun = False
        #: Whether the last event of the answer has arrived.
        self.complete = False
        #: Whether ``raw_usage`` is the provider's final usage.
        self.final = False
        #: The provider's own usage, with the fields that have arrived so far.
        self.raw_usage: dict[str, Any] = {}
        #: Name of the answering model, as the provider gives it.
        self.model: str | None = None

    @property
    def has_output(self) -> bool:
        """Whether any generated text or tool call has arrived."""
        return self._output_tokens > 0

    @property
    def prompt_counted(self) -> bool:
        """Whether the provider has counted the prompt; some servers first report zero tokens."""
        return bool(self.raw_usage) and (self.final or self._usage().prompt_tokens > 0)

    @abstractmethod
    def add(self, event: Any) -> str:
        """Add an event to the answer.

        Args:
            event: The parsed data of the event.

        Returns:
            The text that the event adds to the answer; empty for most kinds of events.

        Raises:
            Exception: One of ``PROTOCOL_ERRORS``, if the event does not follow the protocol.
        """

    @abstractmethod
    def answer(self) -> dict[str, Any]:
        """Return the answer in the form of an answer that is not streamed."""

    def facts(self) -> Mapping[str, Any]:
        """Return the facts that have arrived, among them those that change the price."""
        return self.raw_usage

    @abstractmethod
    def _usage(self) -> Usage:
        """Convert ``raw_usage`` to ``Usage``."""

    def bounded(self, *, prompt_tokens: int, max_tokens: int) -> Usage:
        """Return the tokens so far: the provider's counts, or upper bounds if a count is missing.

        Args:
            prompt_tokens: Upper bound of the prompt's tokens.
            max_tokens: Largest number of tokens that the model may generate.
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
        """Return whether the model may have generated more than the stream has shown."""
        return self._hidden

    def _count(self, text: str) -> None:
        self._output_tokens += text_bytes(text)

    def _count_call(self, name: str) -> None:
        self._output_tokens += _CALL_TOKENS + text_bytes(name)


@dataclass(kw_only=True, slots=True)
class Reading:
    """One request whose answer is streamed.

    Attributes:
        assembly: Builds the answer from the events.
        on_text: Function to call with each piece of text, or None.
        clock: Returns the time in seconds.
        started_at_s: Time of the request, by ``clock``.
        headers: Headers of the answer, or None until they have arrived.
        first_token_s: Seconds until the first generated output arrived, or None.
    """

    assembly: Assembly
    on_text: Callable[[str], None] | None
    clock: Callable[[], float]
    started_at_s: float
    headers: Mapping[str, str] | None = None
    first_token_s: float | None = None

    async def take_all(self, events: AsyncIterable[Any]) -> None:
        """Read the whole stream.

        Args:
            events: The SDK's stream.

        Raises:
            NotTheProtocol: If an event does not follow the provider's protocol.
            ListenerFailed: If ``on_text`` raises.
            Exception: Any exception of the SDK.
        """
        iterator = aiter(events)
        while True:
            try:
                event = await anext(iterator)
            except StopAsyncIteration:
                return
            except ValueError as error:  # from the SDK, if an event is not JSON or not UTF-8
                raise NotTheProtocol(str(error)) from error
            try:
                text = self.assembly.add(event)
            except PROTOCOL_ERRORS as error:
                raise NotTheProtocol(f"{type(error).__name__}: {error}") from error
            if self.first_token_s is None and self.assembly.has_output:
                self.first_token_s = self.clock() - self.started_at_s
            self.tell(text)

    def tell(self, text: str) -> None:
        """Pass a piece of text to ``on_text``.

        Raises:
            ListenerFailed: If ``on_text`` raises.
        """
        if text and self.on_text is not None:
            try:
                self.on_text(text)
            except Exception as error:
                raise ListenerFailed(error) from error

    def partial(self, *, prompt_tokens: int, max_tokens: int) -> Partial | None:
        """Return the known part of the answer so far; None if no part has arrived.

        Args:
            prompt_tokens: Upper bound of the prompt's tokens.
            max_tokens: Largest number of tokens that the model may generate.
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
            served=served_by(assembly.facts()),
            model=assembly.model,
            request_id=request_id(headers),
            headers=limit_headers(headers),
        )


def is_event_stream(response: "httpx2.Response") -> bool:
    """Return whether a response is a stream; a server that cannot stream sends plain JSON."""
    return not response.headers.get("content-type", "").startswith("application/json")


def text_of(value: Any) -> str:
    """Return a string of an answer, or an empty string for null.

    Raises:
        TypeError: If the value is neither a string nor null.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a string is expected")
    return value

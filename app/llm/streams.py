"""Streamed answers: reads the events and builds the answer from their pieces.

The result has the form of a whole answer, so that the same code reads streamed and whole answers.
If an answer breaks off, the tokens of the answer's first part are counted, because the provider
bills these tokens.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from app.domain.usage import Partial, Usage, served_by
from app.llm.errors import reports_failure
from app.llm.headers import limit_headers, request_id
from app.llm.tokens import CALL_TOKENS, text_bytes
from app.llm.usage import Counts
from app.llm.wire import (
    PROTOCOL_ERRORS,
    ErrorEvent,
    NotTheProtocol,
    joined,
    legible,
    name_of,
    split_begun,
    storable,
)

# A provider goes on generating tokens until it notices that the connection is closed. This constant
# is the largest number of tokens that the provider may have generated and that this process has not
# read. The number is about 100 tokens a second, for 0.6 s of network delay and of pieces in
# buffers.
_UNSEEN_TOKENS = 64
#: Bytes of output that are kept; the whole stream may have more bytes.
MOST_KEPT = 16 * 1024 * 1024
#: Seconds without an event after which a stream is over that a server does not close: after its
#: last event, and after the word for its end, which some servers send in each event.
LINGER_S, LINGER_AFTER_WORD_S = 1.0, 60.0


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
        # The first part of a character whose rest has not arrived.
        self._cut = ""
        #: Whether the provider has begun to answer, so that it bills the prompt.
        self.begun = False
        #: Whether the last event of the answer has arrived.
        self.complete = False
        #: Whether no further part of the answer can come.
        self.ended = False
        #: Whether ``raw_usage`` came at the end of the answer, so that it can be the final usage.
        self.final = False
        #: The provider's own usage, with the fields that have arrived so far.
        self.raw_usage: dict[str, Any] = {}
        #: Name of the answering model, as the provider gives it.
        self.model: Any = None

    @property
    def has_output(self) -> bool:
        """Whether any generated text or tool call has arrived."""
        return self._output_tokens > 0

    @property
    def output_bytes(self) -> int:
        """About the bytes of the generated text and tool calls that have arrived."""
        return self._output_tokens

    @property
    def prompt_counted(self) -> bool:
        """Whether the provider has counted the prompt; some servers first report zero tokens."""
        return self._counts().prompt

    @property
    def counts(self) -> Counts:
        """The provider's counts; a count of the output that came too early is left out."""
        counts = self._counts()
        return counts if self.final else replace(counts, output=False)

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
    def add_late(self, event: Any) -> None:
        """Take the usage of an event that comes after [DONE]; no text is added to the answer.

        Args:
            event: The parsed data of the event.

        Raises:
            Exception: As in ``add``.
        """

    def end(self, *, said: bool) -> None:  # noqa: B027 most protocols have an event for the end
        """Take note that the stream has ended.

        Args:
            said: Whether it has ended with [DONE].
        """

    def reports_failure(self, event: Mapping[str, Any]) -> bool:
        """Return whether an event is a failure; after a failure, no answer can come."""
        return reports_failure(event)

    @abstractmethod
    def answer(self) -> dict[str, Any]:
        """Return the answer in the form of an answer that is not streamed."""

    def facts(self) -> Mapping[str, Any]:
        """Return the facts that have arrived, including the facts that change the price."""
        return self.raw_usage

    @abstractmethod
    def _counts(self) -> Counts:
        """Convert ``raw_usage`` to ``Counts``."""

    def bounded(self, *, prompt_tokens: int, max_tokens: int) -> Usage:
        """Return the tokens so far: the provider's counts, or upper bounds if a count is missing.

        Args:
            prompt_tokens: Upper bound of the prompt's tokens.
            max_tokens: Largest number of tokens that the model may generate.
        """
        seen = self._output_tokens + _UNSEEN_TOKENS
        bound = max_tokens if self._hides() else min(seen, max_tokens)
        counts = self.plausible(max_tokens=max_tokens)
        if self.counts.output and not counts.output:
            bound = max_tokens
        return counts.bounded(prompt_tokens=prompt_tokens, output_tokens=bound)

    def plausible(self, *, max_tokens: int) -> Counts:
        """Return the provider's counts, but leave out counts that no request can have."""
        return self.counts.plausible(prompt_bound=lambda: 0, max_tokens=max_tokens)

    def _hides(self) -> bool:
        """Return whether the model may have generated more than the stream has shown."""
        return self._hidden

    def _shown(self, text: str) -> str:
        """Return the text to show now; a part of a character waits for the rest."""
        if text.isascii() and not self._cut:
            return text
        text, self._cut = split_begun(joined([self._cut, text]))
        return str(legible(text))

    def _count(self, text: str) -> None:
        self._output_tokens += text_bytes(text)

    def _count_call(self, name: str) -> None:
        self._output_tokens += CALL_TOKENS + text_bytes(name)


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
        over: Whether the whole stream has been read.
    """

    assembly: Assembly
    on_text: Callable[[str], None] | None
    clock: Callable[[], float]
    started_at_s: float
    headers: Mapping[str, str] | None = None
    first_token_s: float | None = None
    over: bool = False

    async def take_all(self, events: AsyncIterable[Any]) -> None:
        """Read the whole stream.

        Args:
            events: The data of each event; None means [DONE]. Of the events after [DONE], only the
                usage counts.

        Raises:
            ErrorEvent: If an event reports a failure.
            NotTheProtocol: If an event does not follow the provider's protocol.
            ListenerFailed: If ``on_text`` raises.
            Exception: Any exception of the SDK.
        """
        iterator, said = aiter(events), False
        while True:
            max_wait_s = self._max_wait_s
            try:
                if max_wait_s is None:
                    event = await anext(iterator)
                else:
                    async with asyncio.timeout(max_wait_s):
                        event = await anext(iterator)
            except StopAsyncIteration:
                break
            except TimeoutError:
                if max_wait_s is None:
                    raise
                break
            if event is None:
                said = True
            elif said and isinstance(event, Mapping):
                with suppress(*PROTOCOL_ERRORS):  # the answer is whole without this event
                    self.assembly.add_late(event)
            elif isinstance(event, Mapping):
                self._take(event)
                if self.assembly.output_bytes > MOST_KEPT:
                    raise NotTheProtocol(f"the answer has over {MOST_KEPT:,} bytes of output")
        self.assembly.end(said=said)
        self.over = True

    @property
    def _max_wait_s(self) -> float | None:
        """Seconds to wait for the next event; None means that only the request's deadline ends."""
        if self.assembly.ended:
            return LINGER_S
        return LINGER_AFTER_WORD_S if self.assembly.complete else None

    def _take(self, event: Mapping[str, Any]) -> None:
        if self.assembly.reports_failure(event):
            with suppress(*PROTOCOL_ERRORS):  # the usage may come with the failure
                self.assembly.add(event)
            raise ErrorEvent(event)
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
        counts = assembly.plausible(max_tokens=max_tokens)
        return Partial(
            usage=assembly.bounded(prompt_tokens=prompt_tokens, max_tokens=max_tokens),
            prompt_counted=counts.prompt,
            final=counts.whole,
            raw_usage=storable(assembly.raw_usage),
            model=name_of(assembly.model),
            served=served_by(storable(assembly.facts())),
            request_id=request_id(headers),
            headers=limit_headers(headers),
        )

"""The interface of all providers' clients, and the form of the clients' answers."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.usage import Partial, Usage

Message = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A model's request to call a tool.

    Attributes:
        id: The provider's id of this request; the tool's answer must carry the id.
        name: Name of the tool.
        arguments: The model's arguments: a string of JSON that is neither parsed nor checked.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class LLMResponse:
    """One answer of a model.

    Attributes:
        content: Generated text.
        model: Name of the model that answered, as the provider gives it.
        input_tokens: Tokens of the prompt, including cached tokens.
        output_tokens: Generated tokens.
        finish_reason: ``stop``, ``length``, ``tool_calls``, ``content_filter`` or ``pause``. After
            ``pause``, the provider goes on with its own tools as soon as the provider gets the
            message back.
        tool_calls: Tool calls that the model requests, or None.
        usage: The same tokens in full detail.
        raw_usage: The provider's own usage object, as JSON values.
        request_id: The provider's id of the request, or None.
        headers: Rate-limit headers of the answer, with lower-case names.
        metadata: Further facts, such as ``refusal`` and ``stop_sequence``. The provider served the
            call by ``service_tier``, ``speed`` and ``inference_geo``, and bills the call by these
            facts. ``original`` has the unchanged message, and the name (``by``) of the reader that
            understands the message. ``original`` exists only if the message has more parts than
            text and calls. These parts, for example reasoning, must go back to their provider
            unchanged. ``original`` also has the ``container`` of the message's programs; the
            provider may use this container again. ``citations`` has the ``url`` and the ``title``
            of each cited page.
            ``usage_missing`` means that the provider has not counted all tokens, and that the rest
            is an upper bound. ``prompt_counted`` means that only the output was not counted.
            ``first_token_s`` is the number of seconds from the request to the first token of a
            stream.
    """

    content: str
    model: str
    input_tokens: int
    output_tokens: int
    finish_reason: str = "stop"
    tool_calls: Sequence[ToolCall] | None = None
    usage: Usage = field(default_factory=Usage)
    raw_usage: Mapping[str, Any] = field(default_factory=dict)
    request_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def as_message(self) -> Message:
        """Return the answer as an assistant's message; the conversation continues with it."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
        if original := self.metadata.get("original"):
            message["original"] = original
        return message


class LLMClient(ABC):
    """An asynchronous client of a provider; the client makes no retries.

    A client raises the subclasses of ``app.errors.ProviderError``. If the caller cancels the
    coroutine, the client closes the connection, and this ends the generation.

    Weakness: the interface has only text, images, PDFs and tools. Audio, video and other files are
    refused, because these files cannot be priced before a call. A function agent can use the SDK
    itself for these files, but then the call has no hold.

    Example:
        class EchoClient(LLMClient):
            provider = "echo"

            async def complete_with_tools(self, messages, model, tools=None, **kwargs):
                text = messages[-1]["content"]
                return LLMResponse(content=text, model=model, input_tokens=1, output_tokens=1)

            def get_model_info(self, model):
                return {"provider": "echo", "model": model}

            async def close(self): ...
    """

    #: Name of the provider; the provider's queue has the same name.
    provider: str

    async def complete(
        self,
        prompt: str,
        model: str,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        stream: bool = False,
        on_text: Callable[[str], None] | None = None,
        **kwargs: Any,
    ) -> LLMResponse:
        """Answer a single prompt.

        Args:
            prompt: The user's message.
            model: Model name.
            temperature: Sampling temperature, or None for the provider's default.
            max_tokens: Largest number of tokens to generate, or None for the client's default
                (4096).
            tools: Tools that the model may call. Each tool is a dict with name, description and
                parameters (JSON Schema), or a tool that runs at the provider, such as
                ``{"server": "web_search", "max_uses": 2}``.
            stream: As in ``complete_with_tools``.
            on_text: As in ``complete_with_tools``.
            **kwargs: ``system`` and further parameters of the provider's API.

        Returns:
            The answer.

        Raises:
            ProviderError: The subclass for the cause.
        """
        return await self.complete_with_tools(
            [{"role": "user", "content": prompt}],
            model,
            tools,
            temperature=temperature,
            max_tokens=max_tokens,
            stream=stream,
            on_text=on_text,
            **kwargs,
        )

    @abstractmethod
    async def complete_with_tools(  # noqa: PLR0913 keywords, most of which a caller leaves out
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        before_sent: Callable[[], Awaitable[None]] | None = None,
        stream: bool = False,
        on_text: Callable[[str], None] | None = None,
        on_broken: Callable[[Partial], None] | None = None,
        **kwargs: Any,
    ) -> LLMResponse:
        """Answer a conversation in which the model may have called tools.

        A streamed answer has the same result as a whole answer. If the stream breaks off, the call
        raises a ProviderError. ``partial`` of this error is the part that had arrived.

        Args:
            messages: Dicts with ``role`` (system, user, assistant, tool) and ``content``. A content
                is a string, or a list of the parts of ``app.llm.parts``. An assistant's message may
                have ``tool_calls`` (a list of ToolCall); ``LLMResponse.as_message`` makes such a
                message. A tool's message has ``tool_call_id`` and may have ``is_error``. Each
                client translates this form. If the client's own provider wrote a message, the
                client sends the ``original`` of this message instead.
            model: Model name.
            tools: As in ``complete``.
            temperature: As in ``complete``.
            max_tokens: As in ``complete``.
            timeout_s: Seconds after which the request fails with ConnectionFailed, or None.
            before_sent: Function that is awaited when a connection is open, immediately before the
                request is sent. With this function the limiter holds back the request until the
                start of the call. A client may ignore this function.
            stream: Whether the provider sends the answer in pieces while it generates the answer.
            on_text: Function to call with each piece of a streamed answer's text.
            on_broken: Function to call once if a stream has begun and then fails for any reason,
                including cancellation. The function is also called once if the call is cancelled
                while it waits for credentials; such a cancelled call costs nothing. In both cases,
                the function is called before the exception is raised.
            **kwargs: Further parameters of the provider's API, and ``output_schema``, the JSON
                Schema for the answer. If the provider has a mode for schemas, the schema is sent in
                this mode.
        """

    @abstractmethod
    def get_model_info(self, model: str) -> dict[str, Any]:
        """Return the known facts about a model; an unknown number is None.

        The keys are ``provider``, ``model``, ``context_window`` and ``max_output_tokens``.
        """

    async def count_tokens(
        self,
        messages: Sequence[Message],  # noqa: ARG002 most clients cannot count
        model: str,  # noqa: ARG002
        tools: Sequence[Mapping[str, Any]] | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> int | None:
        """Return the provider's own count of the tokens of a prompt; the count is free.

        Args:
            messages: As in ``complete_with_tools``.
            model: Model name.
            tools: As in ``complete``.
            **kwargs: The further parameters of the call.

        Returns:
            The number, or None if the provider offers no count.

        Raises:
            ProviderError: If the request fails.
        """
        return None

    def preload(self) -> None:  # noqa: B027 most clients have nothing to load
        """Import and set up everything that the first call needs, so that this call is fast."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""

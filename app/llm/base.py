"""The interface of every provider's client, and the shape of its answers."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.usage import Partial, Usage

Message = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A model's request to have a tool called.

    Attributes:
        id: The provider's id of this request; the answer must carry it.
        name: Name of the tool.
        arguments: The arguments as the model wrote them: JSON text, not parsed and not trusted.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class LLMResponse:
    """One answer of a model.

    Attributes:
        content: Generated text.
        model: Model that answered, as the provider names it.
        input_tokens: Tokens of the prompt, cached ones included.
        output_tokens: Generated tokens.
        finish_reason: ``stop``, ``length``, ``tool_calls`` or ``content_filter``.
        tool_calls: Tools the model asks for, or None.
        usage: The same tokens in full detail.
        raw_usage: The provider's own usage object, as JSON values.
        request_id: The provider's id of the request, or None.
        headers: Rate-limit headers of the answer, lower-case names.
        metadata: Anything else: ``refusal``, ``service_tier``, ``speed``, ``stop_sequence``;
            ``blocks``, which the provider wants back unchanged (its reasoning);
            ``usage_missing`` when the provider sent no usage and the tokens are an upper bound;
            and ``first_token_s``, seconds from the request to the first token, of a stream.
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
        """Return the answer as the assistant's message of the conversation that goes on from it."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
        if blocks := self.metadata.get("blocks"):
            message["blocks"] = blocks
        return message


class LLMClient(ABC):
    """A provider's client: asynchronous, without retries of its own.

    Errors are those of ``app.errors.ProviderError``; cancelling the coroutine closes the
    connection and with it the generation.

    Weakness: the interface has text and tools only. Images, audio and files cannot be priced
    before a call, and are refused; a function agent may use the SDK itself, without a hold.

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

    #: Name of the provider, which is also the name of its queue.
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
            max_tokens: Most tokens to generate, or None for the client's default (4096).
            tools: Tools the model may ask for: dicts with name, description and parameters
                (JSON Schema).
            stream: As in ``complete_with_tools``.
            on_text: As in ``complete_with_tools``.
            **kwargs: ``system`` and further parameters of the provider's API.

        Returns:
            The answer.

        Raises:
            ProviderError: One of its subclasses, by cause.
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
    async def complete_with_tools(  # noqa: PLR0913 keywords, each of which most callers leave out
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
        """Answer a conversation in which tools may have been called.

        A streamed answer is the same as a whole one in the end. One that breaks off raises a
        ProviderError whose ``partial`` says what had come.

        Args:
            messages: Dicts with ``role`` (system, user, assistant, tool) and ``content``; an
                assistant's may carry ``tool_calls`` (list of ToolCall; ``LLMResponse.as_message``
                makes one), a tool's has ``tool_call_id`` and optionally ``is_error``. Each client
                translates this one form.
            model: Model name.
            tools: As in ``complete``.
            temperature: As in ``complete``.
            max_tokens: As in ``complete``.
            timeout_s: Seconds until the request is given up (ConnectionFailed), or None.
            before_sent: Awaited once a connection is there, in the moment before the request is
                sent on it: limits hold it back until its time; a client may ignore it.
            stream: Whether the answer is to come in pieces, as it is generated.
            on_text: Called with each piece of the answer's text as it comes, if it is streamed.
            on_broken: Called once if a stream that had begun brings no answer, for any reason,
                before the exception leaves: also when the coroutine is cancelled.
            **kwargs: Further parameters of the provider's API; and ``output_schema``, the JSON
                Schema that the answer is to fit, in the provider's own mode where it has one.
        """

    @abstractmethod
    def get_model_info(self, model: str) -> dict[str, Any]:
        """Return what is known of a model: provider, context_window, max_output_tokens or None."""

    def preload(self) -> None:  # noqa: B027 most clients have nothing to load
        """Import and set up now everything that the first call would otherwise wait for."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""

"""The client for Anthropic's messages."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from app.domain.protocols import PROTOCOLS, Protocol
from app.domain.server_tools import CODE_EXECUTION, is_server_tool, server_tools_in
from app.llm.answers import Answer
from app.llm.anthropic_answer import hides, read_message, tool_input
from app.llm.anthropic_content import blocks_of
from app.llm.anthropic_parameters import KNOWN, REFUSED, SAMPLING, adapt_anthropic
from app.llm.anthropic_stream import AnthropicAssembly
from app.llm.anthropic_tools import bills_containers, own_tool, server_tool
from app.llm.base import Message, ToolCall
from app.llm.call_ids import for_anthropic
from app.llm.call_names import ANTHROPIC_CHARS, with_valid_names
from app.llm.connection import Sdk
from app.llm.counting import CountEndpoint
from app.llm.dialect import Dialect
from app.llm.lazy_packages import lazy_packages
from app.llm.prompt_cache import ask_anthropic, least_anthropic
from app.llm.sdk import SdkClient
from app.llm.sendable import sendable
from app.llm.streams import Assembly
from app.llm.structured import OUTPUT_SCHEMA, anthropic_format, instruction

# The SDK asks for the API version 2026-10-21. That version refuses sampling parameters for every
# model. Some models still take these parameters, but only under the earlier version.
_SAMPLING_VERSION = {"anthropic-version": "2023-06-01"}


class AnthropicClient(SdkClient):
    """Client of Anthropic, or of any server with Anthropic's messages.

    The client has no retries, no limits and no budget; agents of a ``Workflow`` get these from the
    workers. The client sends text, images, PDFs and tools. For files that were uploaded before, use
    the SDK.

    Args: as in ``SdkClient``; ``base_url`` is without ``/v1``.

    Example:
        client = AnthropicClient(os.environ["ANTHROPIC_API_KEY"])
        response = await client.complete("Say hello.", "claude-haiku-4-5", max_tokens=50)
        await client.close()
    """

    protocol: ClassVar[Protocol] = PROTOCOLS["anthropic"]
    default_base_url: ClassVar[str] = "https://api.anthropic.com"
    path: ClassVar[str] = "/v1/messages"
    count_endpoint: ClassVar[CountEndpoint | None] = CountEndpoint(
        "/v1/messages/count_tokens",
        frozenset(
            {"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"}
        ),
    )

    def _sdk(self) -> Sdk:
        with lazy_packages("anthropic"):
            import anthropic
            import anthropic.types.shared.error_details  # which the first error would import

            return Sdk(
                client=anthropic.AsyncAnthropic,
                http_client=anthropic.DefaultAioHttpClient,
                stream=anthropic.AsyncStream[object],
                error=anthropic.AnthropicError,
            )

    def _request(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]],
        max_tokens: int | None,
        params: dict[str, Any],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        params = self._adapted(model, params, max_tokens)
        headers = _SAMPLING_VERSION if any(name in params for name in SAMPLING) else {}
        system = [params.pop("system", None)]
        system += [message["content"] for message in messages if message.get("role") == "system"]
        if schema := params.pop(OUTPUT_SCHEMA, None):
            if format_ := anthropic_format(schema, model):
                params["output_config"] = {"format": format_} | params.get("output_config", {})
            else:
                system.append(instruction(schema))
        body = {
            "model": model,
            "max_tokens": max_tokens,
            "messages": self._messages(with_valid_names(for_anthropic(messages), ANTHROPIC_CHARS)),
        } | params
        if instructions := _joined([part for part in system if part]):
            body["system"] = instructions
        if tools:
            body["tools"] = [
                self._server_tool(model, tool) if is_server_tool(tool) else own_tool(tool)
                for tool in tools
            ]
        if max_tokens is not None and (container := self._container(messages, tools)):
            body["container"] = container
        ask_anthropic(body)
        return body, headers

    def _stream_request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {**body, "stream": True}

    def _assembly(self, body: Mapping[str, Any]) -> Assembly:
        return AnthropicAssembly(body)

    def _messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        wire: list[dict[str, Any]] = []
        results: list[dict[str, Any]] = []
        for message in messages:
            role = message.get("role")
            if role == "system":
                continue
            if role == "tool":
                # The results of all tool calls of one answer belong in one message.
                if not results:
                    wire.append({"role": "user", "content": results})
                results.append(sendable(_tool_result(message)))
                continue
            results = []
            if role == "user":
                wire.append({"role": "user", "content": blocks_of(message["content"])})
            elif role == "assistant":
                wire.append({"role": "assistant", "content": sendable(self._assistant(message))})
            else:
                raise self._refused(
                    f"a message has the role {role!r}: use system, user, assistant or tool"
                )
        return wire

    def _container(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
    ) -> str | None:
        """Return the container in which the conversation's programs ran, or None."""
        if all(tool.name != CODE_EXECUTION for tool in server_tools_in(tools)):
            return None
        kept = (self._kept_container(message) for message in reversed(messages))
        return next(filter(None, kept), None)

    def _bills_containers(self, body: Mapping[str, Any]) -> bool:
        return bills_containers(body)

    def _assistant(self, message: Message) -> str | list[Any]:
        content, calls = message.get("content") or "", message.get("tool_calls") or ()
        if original := self._own_original(message):
            return _as_they_came(original, calls)
        if not calls:
            return content
        text = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        return [*(text if content else ()), *map(_tool_use, calls)]

    def _answer(self, answer: Any) -> Answer:
        return read_message(answer)

    def _hides(self, body: Mapping[str, Any]) -> bool:
        return hides(body)


def _joined(parts: list[Any]) -> str | list[Any]:
    """Join system instructions into one string, or into blocks if some instructions are blocks."""
    if all(isinstance(part, str) for part in parts):
        return "\n\n".join(parts)
    blocks: list[Any] = []
    for part in parts:
        blocks += [{"type": "text", "text": part}] if isinstance(part, str) else part
    return blocks


def _tool_result(message: Message) -> dict[str, Any]:
    result = {
        "type": "tool_result",
        "tool_use_id": message["tool_call_id"],
        "content": message["content"],
    }
    return result | {"is_error": True} if message.get("is_error") else result


def _as_they_came(blocks: Sequence[Mapping[str, Any]], calls: Sequence[ToolCall]) -> list[Any]:
    """Return the original blocks of a message, but with calls that the provider takes."""
    uses = map(_tool_use, calls)
    return [
        {**block, **next(uses)} if block.get("type") == "tool_use" else block for block in blocks
    ]


def _tool_use(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": call.id,
        "name": call.name,
        "input": tool_input(call.arguments),
    }


DIALECT = Dialect(
    client=AnthropicClient,
    known=KNOWN,
    refused=REFUSED,
    adapt=adapt_anthropic,
    least_cached_tokens=least_anthropic,
    server_tool=server_tool,
)

"""Anthropic's messages."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from app.llm.anthropic_stream import AnthropicAssembly, tool_input
from app.llm.base import LLMResponse, Message, ToolCall
from app.llm.headers import limit_headers, request_id
from app.llm.prompt_cache import ask_anthropic
from app.llm.sdk import SdkClient
from app.llm.streams import Assembly
from app.llm.structured import OUTPUT_SCHEMA, anthropic_format, instruction
from app.llm.usage import anthropic_usage

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

BASE_URL = "https://api.anthropic.com"
_FINISH_REASONS = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "tool_use": "tool_calls",
}
_SAMPLING = ("temperature", "top_p", "top_k")
# The API version 2026-10-21, which the SDK asks for, refuses sampling parameters for every model;
# the models that still sample do it under the version before.
_SAMPLING_VERSION = {"anthropic-version": "2023-06-01"}


class AnthropicClient(SdkClient):
    """Client of Anthropic, or of any server that speaks its messages.

    Args:
        api_key: Key; None makes every call raise AuthenticationFailed.
        base_url: Where the API is, without ``/v1``; None means Anthropic's own.
        provider: Name of the provider.
        api_key_env: Name of the environment variable that errors tell the user to set.
        headers: Further headers of every request.
        query: Query parameters of every request.
        timeout_s: Seconds until a request without a timeout of its own is given up.
        max_connections: Connections open at once.
    """

    path: ClassVar[str] = "/v1/messages"

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        provider: str = "anthropic",
        api_key_env: str = "ANTHROPIC_API_KEY",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        timeout_s: float = 600.0,
        max_connections: int = 1000,
    ) -> None:
        super().__init__(
            api_key,
            provider=provider,
            base_url=base_url or BASE_URL,
            api_key_env=api_key_env,
            headers=headers,
            query=query,
            timeout_s=timeout_s,
            max_connections=max_connections,
        )

    def _sdk_error(self) -> type[Exception]:
        import anthropic

        return anthropic.AnthropicError

    def _connect(self, options: dict[str, Any], http_options: dict[str, Any]) -> "AsyncAnthropic":
        import anthropic

        return anthropic.AsyncAnthropic(
            **options, http_client=anthropic.DefaultAioHttpClient(**http_options)
        )

    def _request(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]],
        max_tokens: int,
        params: dict[str, Any],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        params = self._adapted("anthropic", model, params, max_tokens)
        headers = _SAMPLING_VERSION if any(name in params for name in _SAMPLING) else {}
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
            "messages": self._messages(messages),
        } | params
        if instructions := _joined([part for part in system if part]):
            body["system"] = instructions
        if tools:
            body["tools"] = [_tool(tool) for tool in tools]
        ask_anthropic(body)
        return body, headers

    def _stream_request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {**body, "stream": True}

    def _stream_class(self) -> Any:
        import anthropic

        return anthropic.AsyncStream[object]

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
                # All results of one answer's calls belong into one message.
                if not results:
                    wire.append({"role": "user", "content": results})
                results.append(_tool_result(message))
                continue
            results = []
            if role == "user":
                wire.append({"role": "user", "content": message["content"]})
            elif role == "assistant":
                wire.append({"role": "assistant", "content": _assistant(message)})
            else:
                raise self._refused(
                    f"a message has the role {role!r}: system, user, assistant or tool"
                )
        return wire

    def _response(self, answer: Any, headers: Mapping[str, str]) -> LLMResponse:
        blocks = answer["content"]
        calls = [_read_call(block) for block in blocks if block["type"] == "tool_use"]
        raw_usage = answer.get("usage") or {}
        usage = anthropic_usage(raw_usage) if raw_usage else None
        facts = {
            "stop_sequence": answer.get("stop_sequence"),
            "service_tier": raw_usage.get("service_tier"),
            "speed": raw_usage.get("speed"),
            "blocks": None
            if all(block["type"] in ("text", "tool_use") for block in blocks)
            else blocks,
        }
        return LLMResponse(
            content="".join(block["text"] for block in blocks if block["type"] == "text"),
            model=answer["model"],
            input_tokens=usage.prompt_tokens if usage else 0,
            output_tokens=usage.output_tokens if usage else 0,
            finish_reason=_FINISH_REASONS.get(answer.get("stop_reason"), "stop"),
            tool_calls=calls or None,
            **({"usage": usage} if usage else {}),
            raw_usage=raw_usage,
            request_id=request_id(headers),
            headers=limit_headers(headers),
            metadata={name: value for name, value in facts.items() if value is not None},
        )


def _joined(parts: list[Any]) -> str | list[Any]:
    """System instructions as one text, or as blocks when some of them are blocks already."""
    if all(isinstance(part, str) for part in parts):
        return "\n\n".join(parts)
    blocks: list[Any] = []
    for part in parts:
        blocks += [{"type": "text", "text": part}] if isinstance(part, str) else part
    return blocks


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    wire = {name: tool[name] for name in ("name", "description", "cache_control") if name in tool}
    return wire | {"input_schema": tool.get("parameters") or {"type": "object"}}


def _tool_result(message: Message) -> dict[str, Any]:
    result = {
        "type": "tool_result",
        "tool_use_id": message["tool_call_id"],
        "content": message["content"],
    }
    return result | {"is_error": True} if message.get("is_error") else result


def _assistant(message: Message) -> str | list[Any]:
    if blocks := message.get("blocks"):
        return list(blocks)
    content, calls = message.get("content") or "", message.get("tool_calls")
    if not calls:
        return content
    text = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    return [*(text if content else ()), *map(_tool_use, calls)]


def _tool_use(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": call.id,
        "name": call.name,
        "input": tool_input(call.arguments),
    }


def _read_call(block: Mapping[str, Any]) -> ToolCall:
    return ToolCall(
        id=block["id"], name=block["name"], arguments=orjson.dumps(block["input"]).decode()
    )

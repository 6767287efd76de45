"""The client for OpenAI's chat completions, which vLLM, Ollama and other servers also offer."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from app.domain.protocols import PROTOCOLS, Protocol
from app.llm.base import LLMResponse, Message, ToolCall
from app.llm.dialect import Dialect
from app.llm.headers import limit_headers, request_id
from app.llm.models import is_openai_reasoning
from app.llm.openai_parameters import REFUSED, adapt_openai
from app.llm.openai_stream import OpenAIAssembly
from app.llm.prompt_cache import ask_openai, least_openai
from app.llm.sdk import Sdk, SdkClient
from app.llm.streams import Assembly, text_of
from app.llm.structured import OUTPUT_SCHEMA, instruction, openai_format
from app.llm.usage import openai_usage

_FINISH_REASONS = {"length": "length", "content_filter": "content_filter"}


class OpenAIClient(SdkClient):
    """Client of OpenAI, or of any server with OpenAI's chat completions.

    The client has no retries, no limits and no budget; agents of a ``Workflow`` get these from the
    workers. The client reads only text and tool calls. For audio, images or the Responses API, use
    the SDK.

    Args: as in ``SdkClient``; ``base_url`` includes ``/v1``.

    Example:
        client = OpenAIClient(os.environ["OPENAI_API_KEY"])
        response = await client.complete("Say hello.", "gpt-4o-mini", max_tokens=50)
        await client.close()
    """

    protocol: ClassVar[Protocol] = PROTOCOLS["openai"]
    default_base_url: ClassVar[str] = "https://api.openai.com/v1"
    path: ClassVar[str] = "/chat/completions"

    def _sdk(self) -> Sdk:
        import openai

        return Sdk(
            client=openai.AsyncOpenAI,
            http_client=openai.DefaultAioHttpClient,
            stream=openai.AsyncStream[object],
            error=openai.OpenAIError,
        )

    def _request(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]],
        max_tokens: int,
        params: dict[str, Any],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        params = self._adapted(model, params, max_tokens)
        wire_messages = [self._message(message) for message in messages]
        if system := params.pop("system", None):
            wire_messages.insert(0, {"role": "system", "content": system})
        if schema := params.pop(OUTPUT_SCHEMA, None):
            if format_ := openai_format(schema, model):
                params.setdefault("response_format", format_)
            else:
                wire_messages.insert(0, {"role": "system", "content": instruction(schema)})
        limit = "max_completion_tokens" if is_openai_reasoning(model) else "max_tokens"
        body = {"model": model, "messages": wire_messages, limit: max_tokens} | params
        if tools:
            body["tools"] = [_tool(tool) for tool in tools]
        ask_openai(body)
        return body, {}

    def _stream_request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        options = {**(body.get("stream_options") or {}), "include_usage": True}
        return {**body, "stream": True, "stream_options": options}

    def _assembly(self, body: Mapping[str, Any]) -> Assembly:
        return OpenAIAssembly(body)

    def _message(self, message: Message) -> dict[str, Any]:
        role, content = message.get("role"), message.get("content")
        match role:
            case "system" | "user":
                return {"role": role, "content": content}
            case "tool":
                return {"role": role, "tool_call_id": message["tool_call_id"], "content": content}
            case "assistant":
                wire: dict[str, Any] = {"role": role, "content": content or None}
                if calls := message.get("tool_calls"):
                    wire["tool_calls"] = [_call(call) for call in calls]
                return wire
        raise self._refused(f"a message has the role {role!r}: use system, user, assistant or tool")

    def _response(self, answer: Any, headers: Mapping[str, str]) -> LLMResponse:
        choice = answer["choices"][0]
        message = choice["message"]
        refusal = message.get("refusal")
        calls = [_read_call(call) for call in message.get("tool_calls") or ()]
        finish = _FINISH_REASONS.get(choice.get("finish_reason"), "stop")
        if refusal:
            finish = "content_filter"
        elif calls and finish == "stop":
            finish = "tool_calls"
        raw_usage = answer.get("usage") or {}
        usage = openai_usage(raw_usage) if raw_usage else None
        facts = {"refusal": refusal, "service_tier": answer.get("service_tier")}
        return LLMResponse(
            content=text_of(message.get("content")),
            model=answer["model"],
            input_tokens=usage.prompt_tokens if usage else 0,
            output_tokens=usage.output_tokens if usage else 0,
            finish_reason=finish,
            tool_calls=calls or None,
            **({"usage": usage} if usage else {}),
            raw_usage=raw_usage,
            request_id=request_id(headers),
            headers=limit_headers(headers),
            metadata={name: value for name, value in facts.items() if value is not None},
        )


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {
        name: tool[name] for name in ("name", "description", "parameters", "strict") if name in tool
    }
    return {"type": "function", "function": function}


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _read_call(call: Mapping[str, Any]) -> ToolCall:
    function = call["function"]
    return ToolCall(
        id=text_of(call["id"]),
        name=text_of(function["name"]),
        arguments=text_of(function["arguments"]),
    )


DIALECT = Dialect(
    client=OpenAIClient, refused=REFUSED, adapt=adapt_openai, least_cached_tokens=least_openai
)

"""The client for OpenAI's chat completions, which vLLM, Ollama and other servers also offer.

If OpenAI serves a request only in its Responses API, the request goes to that API; see
``app.llm.openai_responses``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from app.domain.server_tools import is_server_tool
from app.llm.answers import Answer
from app.llm.base import LLMResponse, Message, ToolCall
from app.llm.call_ids import for_openai
from app.llm.call_names import OPENAI_CHARS, with_valid_names
from app.llm.dialect import Dialect
from app.llm.models import is_openai_reasoning
from app.llm.openai_answer import hides, read_completion
from app.llm.openai_apis import CHAT, RESPONSES, adapt_openai, choose_api
from app.llm.openai_base import OpenAISdkClient
from app.llm.openai_content import chat_content
from app.llm.openai_parameters import KNOWN, REFUSED
from app.llm.openai_responses import ResponsesClient
from app.llm.openai_stream import OpenAIAssembly
from app.llm.parameters import ParameterRefused
from app.llm.prompt_cache import ask_openai, least_openai
from app.llm.responses_parameters import LACKED
from app.llm.responses_tools import server_item
from app.llm.sendable import sendable
from app.llm.streams import Assembly
from app.llm.structured import OUTPUT_SCHEMA, instruction, openai_format

#: Seconds that a request may take if the provider serves the request only when there is capacity.
#: OpenAI advises this time.
FLEX_TIMEOUT_S = 900.0


class OpenAIClient(OpenAISdkClient):
    """Client of OpenAI, or of any server with OpenAI's chat completions or Responses API.

    The client has no retries, no limits and no budget; agents of a ``Workflow`` get these from the
    workers. The client sends text, images, PDFs and tools, and reads only text and tool calls. For
    audio, use the SDK.

    Args:
        api_key: As in ``SdkClient``.
        api: Request form of all requests without a parameter ``api``: ``chat`` or ``responses``;
            None means that the model and the tools decide.
        **options: As in ``SdkClient``; ``base_url`` includes ``/v1``.

    Example:
        client = OpenAIClient(os.environ["OPENAI_API_KEY"])
        response = await client.complete("Say hello.", "gpt-4o-mini", max_tokens=50)
        await client.close()
    """

    path: ClassVar[str] = "/chat/completions"
    api: ClassVar[str | None] = CHAT

    def __init__(
        self, api_key: str | None = None, *, api: str | None = None, **options: Any
    ) -> None:
        super().__init__(api_key, **options)
        self._configured_api = api
        self._responses = ResponsesClient(api_key, connection=self._connection, **options)

    async def complete_with_tools(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> LLMResponse:
        """See ``LLMClient.complete_with_tools``."""
        api = self._form_of(model, tools, kwargs)
        if kwargs.get("service_tier") == "flex" and not kwargs.get("timeout_s"):
            kwargs["timeout_s"] = FLEX_TIMEOUT_S
        if api == RESPONSES:
            return await self._responses.complete_with_tools(messages, model, tools, **kwargs)
        return await super().complete_with_tools(messages, model, tools, **kwargs)

    async def count_tokens(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> int | None:
        """See ``LLMClient.count_tokens``; the Responses API counts for both request forms.

        If a message of chat completions goes back unchanged, the message has parts that the
        Responses API does not know. A conversation with such a message is not counted.
        """
        is_chat = self._form_of(model, tools, kwargs) == CHAT
        if is_chat and any(map(self._own_original, messages)):
            return None
        params = {name: value for name, value in kwargs.items() if name not in LACKED}
        return await self._responses.count_tokens(
            messages, model, tools, **{**params, "api": RESPONSES}
        )

    def _form_of(
        self, model: str, tools: Sequence[Mapping[str, Any]] | None, params: Mapping[str, Any]
    ) -> str:
        """Return the request form; raise BadRequest if the model does not take this form."""
        asked = params.get("api") or self._configured_api
        try:
            at_provider = any(map(is_server_tool, tools or ()))
            return choose_api(model, params, asked, bool(tools), at_provider)
        except ParameterRefused as error:
            raise self._refused(str(error)) from error

    def _request(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]],
        max_tokens: int | None,
        params: dict[str, Any],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        params = self._adapted(model, params, max_tokens)
        named = with_valid_names(for_openai(messages, model), OPENAI_CHARS)
        wire_messages = [self._message(message) for message in named]
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
                return {"role": role, "content": chat_content(content)}
            case "tool":
                result = {"tool_call_id": message["tool_call_id"], "content": content}
                return sendable({"role": role, **result})
            case "assistant":
                calls = [_call(call) for call in message.get("tool_calls") or ()]
                if original := self._own_original(message):
                    return sendable(_as_it_came(original, calls))
                wire: dict[str, Any] = {"role": role, "content": content or None}
                return sendable(wire | {"tool_calls": calls} if calls else wire)
        raise self._refused(f"a message has the role {role!r}: use system, user, assistant or tool")

    def _answer(self, answer: Any) -> Answer:
        return read_completion(answer)

    def _hides(self, body: Mapping[str, Any]) -> bool:
        return hides(body)


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {
        name: tool[name] for name in ("name", "description", "parameters", "strict") if name in tool
    }
    return {"type": "function", "function": function}


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _as_it_came(original: Mapping[str, Any], calls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the original message, but with ids, names and arguments that the provider takes."""
    if not calls:
        return dict(original)
    came = original["tool_calls"]
    return {
        **original,
        "tool_calls": [{**old, **new} for old, new in zip(came, calls, strict=True)],
    }


DIALECT = Dialect(
    client=OpenAIClient,
    known=KNOWN,
    refused=REFUSED,
    adapt=adapt_openai,
    least_cached_tokens=least_openai,
    server_tool=server_item,
    choose_api=choose_api,
)

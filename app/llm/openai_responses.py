"""The client for OpenAI's Responses API, without any state at the provider."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from app.domain.server_tools import (
    CODE_EXECUTION,
    ServerTool,
    is_server_tool,
    server_tools_in,
)
from app.llm.answers import Answer
from app.llm.base import Message
from app.llm.call_ids import for_openai
from app.llm.call_names import OPENAI_CHARS, with_valid_names
from app.llm.connection import Connection
from app.llm.counting import CountEndpoint
from app.llm.models import is_openai_reasoning
from app.llm.openai_apis import RESPONSES
from app.llm.openai_base import OpenAISdkClient
from app.llm.prompt_cache import ask_openai
from app.llm.responses_answer import hides, read_response
from app.llm.responses_items import UnknownRole, instructions_of, items_of, plain
from app.llm.responses_parameters import text_format
from app.llm.responses_stream import ResponsesAssembly
from app.llm.responses_tools import tool_item
from app.llm.streams import Assembly
from app.llm.structured import OUTPUT_SCHEMA, instruction, openai_format

#: Asks for reasoning in a form that the next request can give back.
SEALED_REASONING = "reasoning.encrypted_content"
#: Asks for the outputs of programs; the next request gives these outputs back.
OUTPUTS_OF_PROGRAMS = "code_interpreter_call.outputs"


class ResponsesClient(OpenAISdkClient):
    """The part of ``OpenAIClient`` that speaks the Responses API, over the same connections.

    The requests are stateless (``store: false``): each request has the whole conversation, and the
    encrypted reasoning of earlier answers.

    Args:
        api_key: As in ``SdkClient``.
        connection: The connections; both request forms share these connections.
        **options: As in ``SdkClient``.

    Example:
        client = OpenAIClient(os.environ["OPENAI_API_KEY"], api="responses")
        response = await client.complete("Say hello.", "gpt-6-sol", max_tokens=500)
    """

    path: ClassVar[str] = "/responses"
    count_endpoint: ClassVar[CountEndpoint | None] = CountEndpoint(
        "/responses/input_tokens",
        frozenset(
            {"model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls"}
            | {"text", "reasoning", "truncation"}
        ),
    )
    api: ClassVar[str | None] = RESPONSES

    def __init__(self, api_key: str | None, *, connection: Connection, **options: Any) -> None:
        super().__init__(api_key, **options)
        self._connection = connection

    @property
    def origin(self) -> str:
        """See ``SdkClient.origin``; only this provider can read its encrypted reasoning."""
        return f"{self.provider}/{RESPONSES}"

    def _request(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]],
        max_tokens: int | None,
        params: dict[str, Any],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        params = self._adapted(model, params, max_tokens)
        instructions = [plain(params.pop("system", None)), *instructions_of(messages)]
        if schema := params.pop(OUTPUT_SCHEMA, None):
            if format_ := openai_format(schema, model):
                params["text"] = {"format": text_format(format_), **params.get("text", {})}
            else:
                instructions.append(instruction(schema))
        written_tools = [
            self._server_tool(model, tool) if is_server_tool(tool) else tool_item(tool)
            for tool in tools
        ]
        at_provider = server_tools_in(tools)
        wanted = [OUTPUTS_OF_PROGRAMS] if _runs_programs(at_provider) else []
        if is_openai_reasoning(model):  # other models refuse to be asked for reasoning
            wanted.insert(0, SEALED_REASONING)
        if wanted:
            others = [each for each in params.get("include", ()) if each not in wanted]
            params["include"] = [*wanted, *others]
        try:
            named = with_valid_names(for_openai(messages, model), OPENAI_CHARS)
            items = items_of(named, self._own_original)
        except UnknownRole as error:
            raise self._refused(str(error)) from error
        body = {"model": model, "input": items, "max_output_tokens": max_tokens, "store": False}
        body |= params
        if told := "\n\n".join(filter(None, instructions)):
            body["instructions"] = told
        if written_tools:
            body["tools"] = written_tools
        if most := sum(tool.max_uses for tool in at_provider):
            body["max_tool_calls"] = min(most, params.get("max_tool_calls") or most)
        ask_openai(body)
        return body, {}

    def _own_original(self, message: Message) -> Any:
        """See ``SdkClient``; the API refuses programs whose container has expired.

        A message with such a program goes back as the message's text and tool calls.
        """
        original = super()._own_original(message)
        container = (message.get("original") or {}).get("container")
        is_gone = container is not None and time.time() >= container["until_s"]
        return None if is_gone else original

    def _stream_request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {**body, "stream": True}

    def _assembly(self, body: Mapping[str, Any]) -> Assembly:
        return ResponsesAssembly(body)

    def _answer(self, answer: Any) -> Answer:
        return read_response(answer)

    def _hides(self, body: Mapping[str, Any]) -> bool:
        return hides(body)


def _runs_programs(tools: Sequence[ServerTool]) -> bool:
    return any(tool.name == CODE_EXECUTION for tool in tools)

"""The client for OpenAI's Responses API, without any state at the provider."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from app.domain.usage import Partial, Usage
from app.errors import ProviderError
from app.llm.base import LLMResponse, Message
from app.llm.errors import from_answer
from app.llm.headers import limit_headers, request_id
from app.llm.models import is_openai_reasoning
from app.llm.openai_apis import RESPONSES
from app.llm.openai_base import OpenAISdkClient
from app.llm.prompt_cache import ask_openai
from app.llm.responses_items import (
    UnknownRole,
    calls_in,
    instructions_of,
    is_plain,
    items_in,
    items_of,
    plain,
    refusal_in,
    text_in,
    tool_item,
)
from app.llm.responses_parameters import text_format
from app.llm.responses_stream import ResponsesAssembly
from app.llm.streams import PROTOCOL_ERRORS, Assembly
from app.llm.structured import OUTPUT_SCHEMA, instruction, openai_format
from app.llm.usage import responses_usage

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropic
    from openai import AsyncOpenAI

#: Asks for reasoning in a form that the next request can give back.
SEALED_REASONING = "reasoning.encrypted_content"
_CUTS = {"max_output_tokens": "length", "content_filter": "content_filter"}


#: Returns the SDK's client, which is opened if necessary, and the exceptions that it may raise.
Connect = Callable[[], "tuple[AsyncOpenAI | AsyncAnthropic, tuple[type[Exception], ...]]"]


class ResponsesClient(OpenAISdkClient):
    """The part of ``OpenAIClient`` that speaks the Responses API, over the same connections.

    The requests are stateless (``store: false``): each request has the whole conversation, and the
    encrypted reasoning of earlier answers.

    Args:
        api_key: As in ``SdkClient``.
        connect: Returns the SDK's client, which both request forms share.
        **options: As in ``SdkClient``.

    Example:
        client = OpenAIClient(os.environ["OPENAI_API_KEY"], api="responses")
        response = await client.complete("Say hello.", "gpt-6-sol", max_tokens=500)
    """

    path: ClassVar[str] = "/responses"
    api: ClassVar[str | None] = RESPONSES

    def __init__(self, api_key: str | None, *, connect: Connect, **options: Any) -> None:
        super().__init__(api_key, **options)
        self._connect = connect
        # Another provider could not read the encrypted reasoning of this one.
        self._blocks_of = f"{self.provider}/{RESPONSES}"

    def _opened(self) -> "AsyncOpenAI | AsyncAnthropic":
        client, self._foreign_errors = self._connect()
        return client

    def _request(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]],
        max_tokens: int,
        params: dict[str, Any],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        params = self._adapted(model, params, max_tokens)
        instructions = [plain(params.pop("system", None)), *instructions_of(messages)]
        if schema := params.pop(OUTPUT_SCHEMA, None):
            if format_ := openai_format(schema, model):
                params["text"] = {"format": text_format(format_), **params.get("text", {})}
            else:
                instructions.append(instruction(schema))
        if is_openai_reasoning(model):  # other models refuse to be asked for reasoning
            others = [each for each in params.get("include", ()) if each != SEALED_REASONING]
            params["include"] = [SEALED_REASONING, *others]
        try:
            items = items_of(messages, self._blocks_of)
        except UnknownRole as error:
            raise self._refused(str(error)) from error
        body = {"model": model, "input": items, "max_output_tokens": max_tokens, "store": False}
        body |= params
        if told := "\n\n".join(filter(None, instructions)):
            body["instructions"] = told
        if tools:
            body["tools"] = [tool_item(tool) for tool in tools]
        ask_openai(body)
        return body, {}

    def _stream_request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {**body, "stream": True}

    def _assembly(self, body: Mapping[str, Any]) -> Assembly:
        return ResponsesAssembly(body)

    def _parse(self, response: "httpx2.Response") -> Any:
        try:
            return super()._parse(response)
        except ProviderError as error:
            error.partial = _billed(response.content, response.headers)
            raise

    def _response(self, answer: Any, headers: Mapping[str, str]) -> LLMResponse:
        items = items_in(answer)
        finish = self._finish_reason(answer, headers)
        calls, refusal = calls_in(items), refusal_in(items)
        if refusal:
            finish = "content_filter"
        elif calls and finish == "stop":
            finish = "tool_calls"
        usage = usage_in(answer)
        facts = {"refusal": refusal or None, "service_tier": answer.get("service_tier")}
        if not all(map(is_plain, items)):
            facts |= {"blocks": items, "blocks_of": self._blocks_of}
        return LLMResponse(
            content=text_in(items),
            model=str(answer.get("model") or ""),
            input_tokens=usage.prompt_tokens if usage else 0,
            output_tokens=usage.output_tokens if usage else 0,
            finish_reason=finish,
            tool_calls=calls or None,
            **({"usage": usage} if usage else {}),
            raw_usage=answer["usage"] if usage else {},
            request_id=request_id(headers),
            headers=limit_headers(headers),
            metadata={name: value for name, value in facts.items() if value is not None},
        )

    def _finish_reason(self, answer: Any, headers: Mapping[str, str]) -> str:
        """Return the reason for the end of a response; raise the error of one that has failed.

        An unknown status, or an unknown reason of an incomplete response, is no success.
        """
        status, error = answer.get("status") or "completed", answer.get("error")
        details = answer.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, Mapping) else None
        if status == "completed" and not error:
            return "stop"
        if status == "incomplete" and not error and reason in _CUTS:
            return _CUTS[reason]
        ended = f"the response has the status {status!r}" + (f" ({reason})" if reason else "")
        failure = from_answer(
            provider=self.provider,
            status=200,
            headers=headers,
            body={"error": error or {"message": ended}},
            api_key=self._api_key,
        )
        failure.partial = _partial(answer, headers)
        raise failure


def usage_in(answer: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a response; None if it has none, or one that cannot be read."""
    try:
        return responses_usage(answer["usage"])
    except PROTOCOL_ERRORS:
        return None


def _billed(content: bytes, headers: Mapping[str, str]) -> Partial | None:
    """Return the usage that stands beside the error of a response that has failed."""
    try:
        return _partial(orjson.loads(content), headers)
    except PROTOCOL_ERRORS:
        return None


def _partial(answer: Any, headers: Mapping[str, str]) -> Partial | None:
    usage = usage_in(answer)
    if usage is None:
        return None
    return Partial(
        usage=usage,
        prompt_counted=True,
        final=True,
        raw_usage=answer["usage"],
        model=answer.get("model"),
        request_id=request_id(headers),
        headers=limit_headers(headers),
    )

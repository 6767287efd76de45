"""What the clients on the official SDKs share: sending, deadlines, errors and closing.

Requests go through the SDK's documented ``client.post(path, cast_to=httpx2.Response)``: the SDK
signs and sends, this module reads. A call then costs 0.5 ms of CPU instead of 1.0 (OpenAI, parsed).
"""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from app.domain.model_limits import limits_of
from app.domain.usage import Usage
from app.errors import AuthenticationFailed, BadRequest, ConnectionFailed, ServerFailure
from app.llm.base import LLMClient, LLMResponse, Message
from app.llm.errors import from_answer, from_exception
from app.llm.headers import limit_headers, request_id
from app.llm.tokens import text_bytes, upper_bound_tokens

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropic
    from openai import AsyncOpenAI

DEFAULT_MAX_TOKENS = 4096
_CONNECT_TIMEOUT_S = 10.0
# Longer than the transport's 5 s: a TLS handshake costs more CPU than a whole call.
_KEEPALIVE_S = 30.0


class SdkClient(LLMClient):
    """A client on one of the official SDKs; the arguments are those of its subclasses."""

    #: Path of the request, below the base URL.
    path: ClassVar[str]

    def __init__(
        self,
        api_key: str | None,
        *,
        provider: str,
        base_url: str,
        api_key_env: str,
        headers: Mapping[str, str] | None,
        timeout_s: float,
        max_connections: int,
    ) -> None:
        self.provider = provider
        self._api_key = api_key
        self._base_url = base_url
        self._api_key_env = api_key_env
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._client: AsyncOpenAI | AsyncAnthropic | None = None
        self._foreign_errors: tuple[type[Exception], ...] = ()

    async def complete_with_tools(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        on_sent: Callable[[], None] | None = None,
        **kwargs: Any,
    ) -> LLMResponse:
        """See ``LLMClient.complete_with_tools``."""
        params = {name: value for name, value in kwargs.items() if value is not None}
        if temperature is not None:
            params["temperature"] = temperature
        body, headers = self._request(
            messages, model, tools or (), max_tokens or DEFAULT_MAX_TOKENS, params
        )
        response = await self._post(body, headers, timeout_s or self._timeout_s, on_sent)
        answer = self._parse(response)
        try:
            result = self._response(answer, response.headers)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise self._not_the_protocol(response, f"{type(error).__name__}: {error}") from error
        return result if result.raw_usage else _with_upper_bound(result, messages, tools, params)

    def get_model_info(self, model: str) -> dict[str, Any]:
        """See ``LLMClient.get_model_info``."""
        limits = limits_of(model)
        return {
            "provider": self.provider,
            "model": model,
            "context_window": limits.context_window,
            "max_output_tokens": limits.max_output_tokens,
        }

    def preload(self) -> None:
        """See ``LLMClient.preload``; the SDKs take up to a second to import."""
        if self._api_key and self._client is None:
            self._opened()

    async def close(self) -> None:
        """See ``LLMClient.close``."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    @abstractmethod
    def _sdk_error(self) -> type[Exception]:
        """The base of the SDK's exceptions."""

    @abstractmethod
    def _connect(
        self, options: dict[str, Any], http_options: dict[str, Any]
    ) -> "AsyncOpenAI | AsyncAnthropic":
        """Make the SDK's client; ``http_options`` are for its DefaultAioHttpClient."""

    @abstractmethod
    def _request(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]],
        max_tokens: int,
        params: dict[str, Any],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Body and further headers of a request; raises BadRequest for what cannot be sent."""

    @abstractmethod
    def _response(self, answer: Any, headers: Mapping[str, str]) -> LLMResponse:
        """Read an answer; without a usage object ``raw_usage`` stays empty."""

    async def _post(
        self,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        timeout_s: float,
        on_sent: Callable[[], None] | None,
    ) -> "httpx2.Response":
        encoded = self._encoded(body)
        content: bytes | AsyncIterator[bytes] = encoded
        if on_sent is not None:
            content = _announced(encoded, on_sent)
            headers = {**headers, "Content-Length": str(len(encoded))}
        client = self._client or self._opened()
        import httpx2

        try:
            async with asyncio.timeout(timeout_s):
                return await client.post(
                    self.path,
                    cast_to=httpx2.Response,
                    content=content,
                    options={"headers": headers},
                )
        except TimeoutError as error:
            raise ConnectionFailed(
                f"no answer from {self.provider} within {timeout_s:g} s", provider=self.provider
            ) from error
        except self._foreign_errors as error:
            failure = from_exception(error, provider=self.provider, api_key=self._api_key)
            # An answer is in the failure in full, and the SDK's words may quote the key.
            raise failure from (error if failure.status is None else None)

    def _encoded(self, body: Mapping[str, Any]) -> bytes:
        try:
            return orjson.dumps(body)
        except TypeError as error:
            raise self._refused(f"the request is not JSON: {error}") from error

    def _opened(self) -> "AsyncOpenAI | AsyncAnthropic":
        if not self._api_key:
            raise AuthenticationFailed(
                f"no API key for {self.provider}: set {self._api_key_env}",
                provider=self.provider,
                reached=False,
            )
        # Here and not above, so that importing the application does not import the SDKs (1 s).
        import aiohttp
        import httpx2

        # No read timeout: the deadline of the whole call also ends an answer that only trickles.
        timeout = httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S)
        limits = httpx2.Limits(max_connections=self._max_connections, keepalive_expiry=_KEEPALIVE_S)
        self._foreign_errors = (
            self._sdk_error(),
            aiohttp.ClientError,
            httpx2.HTTPError,
            httpx2.InvalidURL,
            OSError,
        )
        self._client = self._connect(
            {
                "api_key": self._api_key,
                "base_url": self._base_url,
                "default_headers": self._headers,
                "max_retries": 0,
                "timeout": timeout,
            },
            {"limits": limits, "timeout": timeout},
        )
        return self._client

    def _parse(self, response: "httpx2.Response") -> Any:
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            raise self._not_the_protocol(response, "not JSON") from error
        if isinstance(answer, dict) and answer.get("error"):
            raise from_answer(
                provider=self.provider,
                status=response.status_code,
                headers=response.headers,
                body=answer,
                api_key=self._api_key,
            )
        return answer

    def _not_the_protocol(self, response: "httpx2.Response", detail: str) -> ServerFailure:
        return ServerFailure(
            f"{self.provider} answered in a form that is not its protocol ({detail})",
            provider=self.provider,
            status=response.status_code,
            request_id=request_id(response.headers),
            headers=limit_headers(response.headers),
        )

    def _refused(self, message: str) -> BadRequest:
        """The error for a request that is refused before it is sent."""
        return BadRequest(message, provider=self.provider, reached=False)


async def _announced(content: bytes, on_sent: Callable[[], None]) -> AsyncIterator[bytes]:
    """A body that says when it is taken to be written: then the connection is there."""
    on_sent()
    yield content


def _with_upper_bound(
    response: LLMResponse,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None,
    params: Mapping[str, Any],
) -> LLMResponse:
    """The answer of a server that sends no usage, with tokens that are never too few."""
    calls = response.tool_calls or ()
    output_tokens = text_bytes(response.content) + sum(text_bytes(c.arguments) for c in calls)
    usage = Usage(
        input_tokens=upper_bound_tokens(messages, tools, params), output_tokens=output_tokens
    )
    return replace(
        response,
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.output_tokens,
        usage=usage,
        metadata={**response.metadata, "usage_missing": True},
    )

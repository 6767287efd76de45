"""The shared code of the clients on the official SDKs: sending, deadlines, errors and closing.

Requests go through ``client.post(path, cast_to=httpx2.Response)``, which the SDKs document. The SDK
signs and sends a request, and this module reads the answer. A call therefore needs 0.5 ms of CPU.
It would need 1.0 ms if the SDK parsed the answer (measured with OpenAI's SDK).

``app.llm.reading`` decides what an answer means.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from app.domain.json_text import write_json
from app.domain.model_limits import limits_of
from app.domain.protocols import Protocol
from app.domain.server_tools import find_problem, is_server_tool, server_tool_of
from app.domain.usage import Partial
from app.errors import (
    AgentError,
    AuthenticationFailed,
    BadRequest,
    ConnectionFailed,
    InvalidJson,
    ProviderError,
    ServerFailure,
)
from app.llm.answers import Answer
from app.llm.base import LLMClient, LLMResponse, Message
from app.llm.credential_cache import CredentialCache, KeyOnly
from app.llm.dialect import dialect_of
from app.llm.errors import from_exception
from app.llm.headers import limit_headers, request_id
from app.llm.parameters import ParameterRefused, adapted
from app.llm.reading import AnswerReader, prompt_bound
from app.llm.request import Request
from app.llm.streams import Assembly, ListenerFailed, Reading, is_event_stream
from app.llm.tokens import upper_bound_tokens
from app.llm.wire import (
    PROTOCOL_ERRORS,
    ErrorEvent,
    NotTheProtocol,
    count_of,
    events_of,
    read_json,
)

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropic
    from openai import AsyncOpenAI

DEFAULT_MAX_TOKENS = 4096
_NO_ENDPOINT = (404, 405)
_CONNECT_TIMEOUT_S = 10.0
# Longer than the transport's default of 5 s, because a TLS handshake costs more CPU than a whole
# call.
_KEEPALIVE_S = 30.0


class Sdk(NamedTuple):
    """The parts of an SDK that a client is built from.

    Attributes:
        client: The SDK's asynchronous client class.
        http_client: The SDK's HTTP client class, which uses aiohttp.
        stream: The SDK's class for streams whose events are parsed JSON.
        error: Base class of the SDK's exceptions.
    """

    client: Any
    http_client: Any
    stream: Any
    error: type[Exception]


class SdkClient(LLMClient):
    """A client on one of the official SDKs.

    Args:
        api_key: API key; without a key every call raises AuthenticationFailed.
        base_url: Address of the API; None means the API of the protocol's own provider.
        provider: Name of the provider; None means the protocol's own provider.
        api_key_env: Name of the environment variable that error messages tell the user to set;
            None means the variable of the protocol's own provider.
        headers: Further headers of every request.
        query: Query parameters of every request.
        credentials: Tokens that are sent in place of the key, which is then a placeholder.
        timeout_s: Seconds after which a request without a timeout of its own fails.
        max_connections: Largest number of connections that are open at once.
    """

    #: The protocol of the requests. The protocol's own provider has the same name.
    protocol: ClassVar[Protocol]
    #: Address of the API of the protocol's own provider.
    default_base_url: ClassVar[str]
    #: Path of the request, below the base URL.
    path: ClassVar[str]
    #: Path of the request that counts a prompt's tokens, and the parts of a body that it takes.
    count_path: ClassVar[str | None] = None
    counted_parts: ClassVar[frozenset[str]] = frozenset()
    #: Request form of the client, if the protocol has several.
    api: ClassVar[str | None] = None

    def __init__(  # noqa: PLR0913 keywords, each of which most callers leave out
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        provider: str | None = None,
        api_key_env: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        credentials: CredentialCache | None = None,
        timeout_s: float = 600.0,
        max_connections: int = 1000,
    ) -> None:
        own = self.protocol.name
        self.provider = own if provider is None else provider
        self._api_key = api_key
        self._api_key_env = f"{own.upper()}_API_KEY" if api_key_env is None else api_key_env
        self._base_url = base_url or self.default_base_url
        self._headers = dict(headers or {})
        self._query = dict(query or {})
        self._credentials = credentials or KeyOnly()
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._client: AsyncOpenAI | AsyncAnthropic | None = None
        self._foreign_errors: tuple[type[Exception], ...] = ()
        # Whether the server is known to have no such endpoint; many compatible servers have none.
        self._cannot_count = self.count_path is None
        self._reader = AnswerReader(
            provider=self.provider,
            api_key=api_key,
            origin=self.origin,
            read=self._answer,
            hides=self._hides,
        )

    async def complete_with_tools(  # noqa: PLR0913 see LLMClient
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
        """See ``LLMClient.complete_with_tools``."""
        params = {name: value for name, value in kwargs.items() if value is not None}
        if temperature is not None:
            params["temperature"] = temperature
        if not isinstance(stream, bool | None):
            raise self._refused(f"stream in llm_config is {stream!r}: use true or false")
        most = max_tokens or DEFAULT_MAX_TOKENS
        try:
            body, headers = self._request(messages, model, tools or (), most, params)
        except PROTOCOL_ERRORS as error:
            problem = f"the request cannot be written: {type(error).__name__}: {error}"
            raise self._refused(problem) from error
        request = Request(
            body=body,
            headers=headers,
            timeout_s=timeout_s or self._timeout_s,
            before_sent=before_sent,
            max_tokens=most,
            prompt_tokens=lambda: upper_bound_tokens(messages, tools, params, model=model),
            may_pause=any(map(is_server_tool, tools or ())),
        )

        async def send(request: Request) -> LLMResponse:
            if stream:
                return await self._streamed(request, on_text, on_broken)
            return self._reader.whole(await self._post(request, self.path), request)

        try:
            return await self._credentials.send(request, send, on_broken)
        except ListenerFailed as error:
            raise error.reason from None
        except AgentError as error:
            partial = error.partial if isinstance(error, ProviderError) else None
            if partial and on_broken is not None:
                on_broken(partial)
            raise
        except Exception as error:
            # Whatever a server sends, only an AgentError leaves a client. The request may have
            # been answered, and the answer may have a price.
            raise ServerFailure(
                f"the answer of {self.provider} cannot be read: {type(error).__name__}: {error}",
                provider=self.provider,
            ) from error

    async def count_tokens(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> int | None:
        """See ``LLMClient.count_tokens``; a server without the endpoint is asked only once."""
        if self._cannot_count or self.count_path is None:
            return None
        params = {name: value for name, value in kwargs.items() if value is not None}
        body, headers = self._count_request(messages, model, tools or (), params)
        request = Request(
            body={name: part for name, part in body.items() if name in self.counted_parts},
            headers=headers,
            timeout_s=self._timeout_s,
            before_sent=None,
            max_tokens=0,
            prompt_tokens=lambda: 0,
        )
        path = self.count_path

        async def send(request: Request) -> int | None:
            answer = read_json((await self._post(request, path)).content)
            return count_of(answer["input_tokens"])

        try:
            return await self._credentials.send(request, send)
        except PROTOCOL_ERRORS:
            self._cannot_count = True
        except BadRequest as error:
            if error.status not in _NO_ENDPOINT:
                raise
            self._cannot_count = True
        return None

    def _count_request(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]],
        params: dict[str, Any],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the body and further headers of a request that is counted."""
        return self._request(messages, model, tools, DEFAULT_MAX_TOKENS, params)

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
        """See ``LLMClient.preload``; the import of an SDK takes up to a second."""
        if self._api_key and self._client is None:
            self._opened()

    async def close(self) -> None:
        """See ``LLMClient.close``."""
        await self._credentials.close()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    @abstractmethod
    def _sdk(self) -> Sdk:
        """Import the SDK, which takes up to a second the first time."""

    @abstractmethod
    def _request(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]],
        max_tokens: int,
        params: dict[str, Any],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the body and further headers; raise BadRequest if the request cannot be sent."""

    @abstractmethod
    def _answer(self, answer: Any) -> Answer:
        """Read a whole answer; raise one of ``PROTOCOL_ERRORS`` if it is not the protocol's."""

    @abstractmethod
    def _hides(self, body: Mapping[str, Any]) -> bool:
        """Return whether the answer may leave out a part of what the model generates."""

    @abstractmethod
    def _stream_request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body that asks for a streamed answer with its usage."""

    @abstractmethod
    def _assembly(self, body: Mapping[str, Any]) -> Assembly:
        """Return the assembly for a streamed answer to this request."""

    async def _post(self, request: Request, path: str) -> "httpx2.Response":
        content, headers = request.content(self._encoded(request.body))
        client = self._client or self._opened()
        import httpx2

        try:
            async with asyncio.timeout(request.timeout_s):
                return await client.post(
                    path,
                    cast_to=httpx2.Response,
                    content=content,
                    options={"headers": headers},
                )
        except TimeoutError as error:
            raise self._late("no answer", request.timeout_s) from error
        except self._foreign_errors as error:
            failure = from_exception(error, provider=self.provider, api_key=self._api_key)
            # If there is an answer, the failure contains it. The SDK's error is then left out,
            # because its message may quote the key.
            raise failure from (error if failure.status is None else None)

    async def _streamed(
        self,
        request: Request,
        on_text: Callable[[str], None] | None,
        on_broken: Callable[[Partial], None] | None,
    ) -> LLMResponse:
        clock = asyncio.get_running_loop().time
        reading = Reading(
            assembly=self._assembly(request.body),
            on_text=on_text,
            clock=clock,
            started_at_s=clock(),
        )
        try:
            result = await self._read_stream(request, reading)
        except BaseException as error:
            if isinstance(error, ProviderError):
                # What a whole answer has cost is decided where the answer is read.
                if not (reading.over and reading.assembly.complete):
                    error.partial = error.partial or self._partial(request, reading)
            elif on_broken is not None and (partial := self._partial(request, reading)):
                on_broken(partial)
            raise
        if reading.first_token_s is None:
            return result
        return replace(result, metadata={**result.metadata, "first_token_s": reading.first_token_s})

    def _partial(self, request: Request, reading: Reading) -> Partial | None:
        return reading.partial(prompt_tokens=prompt_bound(request), max_tokens=request.max_tokens)

    async def _read_stream(self, request: Request, reading: Reading) -> LLMResponse:
        body = self._encoded(self._stream_request(request.body))
        content, headers = request.content(body)
        client = self._client or self._opened()
        try:
            async with asyncio.timeout(request.timeout_s):
                stream = await client.post(
                    self.path,
                    cast_to=object,
                    content=content,
                    options={"headers": headers},
                    stream=True,
                    stream_cls=self._sdk().stream,
                )
                async with stream:
                    reading.headers = stream.response.headers
                    if not is_event_stream(stream.response):
                        await stream.response.aread()
                        whole = self._reader.whole(stream.response, request)
                        reading.tell(whole.content)
                        return whole
                    await reading.take_all(events_of(stream))
        except TimeoutError as error:
            raise self._late("no whole answer", request.timeout_s) from error
        except NotTheProtocol as error:
            raise self._reader.not_the_protocol(stream.response, str(error)) from error
        except ErrorEvent as error:
            raise self._reader.reported(error.body, stream.response) from None
        except self._foreign_errors as error:
            failure = self._broken(error, reading.headers)
            raise failure from (error if failure.status is None else None)
        if not reading.assembly.complete:
            raise ConnectionFailed(
                f"the answer of {self.provider} broke off: its stream ended before its last event",
                provider=self.provider,
                request_id=request_id(stream.response.headers),
                headers=limit_headers(stream.response.headers),
            )
        return self._reader.streamed(stream.response, request, reading.assembly)

    def _broken(self, error: Exception, headers: Mapping[str, str] | None) -> ProviderError:
        """Return the failure of a streamed request; if there are headers, the answer had begun."""
        failure = from_exception(
            error,
            provider=self.provider,
            api_key=self._api_key,
            came="no answer" if headers is None else "no whole answer",
        )
        if headers is not None:
            failure.reached = True
            failure.request_id = failure.request_id or request_id(headers)
            failure.headers = failure.headers or limit_headers(headers)
        return failure

    def _encoded(self, body: Mapping[str, Any]) -> bytes:
        try:
            return write_json(body)
        except InvalidJson as error:
            raise self._refused(f"the request is not JSON: {error}") from error

    def _opened(self) -> "AsyncOpenAI | AsyncAnthropic":
        if not self._api_key:
            raise AuthenticationFailed(
                f"no API key for {self.provider}: set {self._api_key_env}",
                provider=self.provider,
                reached=False,
            )
        # These imports are here, so that the import of the application does not import SDKs (1 s).
        import aiohttp
        import httpx2

        sdk = self._sdk()
        # There is no read timeout, because the deadline of the whole call also ends slow answers.
        timeout = httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S)
        limits = httpx2.Limits(max_connections=self._max_connections, keepalive_expiry=_KEEPALIVE_S)
        self._foreign_errors = (
            sdk.error,
            aiohttp.ClientError,
            httpx2.HTTPError,
            httpx2.InvalidURL,
            OSError,
        )
        client: AsyncOpenAI | AsyncAnthropic = sdk.client(
            api_key=self._api_key,
            base_url=self._base_url,
            default_headers=self._headers,
            default_query=self._query,
            max_retries=0,
            timeout=timeout,
            http_client=sdk.http_client(limits=limits, timeout=timeout),
        )
        self._client = client
        return client

    @property
    def origin(self) -> str:
        """Name of who can read the originals of this client's answers."""
        return self.provider

    def _own_original(self, message: Message) -> Any:
        """Return a message as it came if this client has read it; otherwise None."""
        original = message.get("original") or {}
        return original["message"] if original.get("by") == self.origin else None

    def _late(self, came: str, timeout_s: float) -> ConnectionFailed:
        return ConnectionFailed(
            f"{came} from {self.provider} within {timeout_s:g} s", provider=self.provider
        )

    def _adapted(self, model: str, params: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
        """Return the parameters as the model takes them; raise BadRequest if it refuses one."""
        try:
            return adapted(self.protocol, model, params, max_tokens=max_tokens, api=self.api)
        except ParameterRefused as error:
            raise self._refused(str(error)) from error

    def _server_tool(self, model: str, tool: Mapping[str, Any]) -> dict[str, Any]:
        """Return a tool that runs at the provider; raise BadRequest if the API has no such tool."""
        if problem := find_problem(tool):
            raise self._refused(" ".join(("the tool's", *problem) if problem[0] else problem[1:]))
        try:
            return dialect_of(self.protocol).server_tool(model, server_tool_of(tool))
        except ParameterRefused as error:
            raise self._refused(str(error)) from error

    def _refused(self, message: str) -> BadRequest:
        """Return the error for a request that is refused before it is sent."""
        return BadRequest(message, provider=self.provider, reached=False)

"""The shared code of the clients on the official SDKs: sending, deadlines and errors.

Requests go through ``client.post(path, cast_to=httpx2.Response)``, which the SDKs document. The SDK
signs and sends a request. This module reads the answer. A call therefore needs 0.5 ms of CPU. The
call would need 1.0 ms if the SDK parsed the answer (measured with OpenAI's SDK).

``app.llm.reading`` decides what an answer means. This file is over 400 lines because whole and
streamed requests share their deadlines and errors.
"""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from app.domain.json_text import write_json
from app.domain.model_limits import limits_of
from app.domain.protocols import Protocol
from app.domain.server_tools import (
    CODE_EXECUTION,
    find_problem,
    gigabytes_of,
    is_server_tool,
    server_tool_of,
    server_tools_in,
    uses_of,
)
from app.domain.usage import Partial
from app.errors import (
    AgentError,
    BadRequest,
    ConnectionFailed,
    InvalidJson,
    ProviderError,
    ServerFailure,
)
from app.llm.answers import Answer
from app.llm.base import LLMClient, LLMResponse, Message
from app.llm.connection import Connection, Sdk
from app.llm.counting import CountEndpoint, PromptCounts
from app.llm.credential_cache import CredentialCache, KeyOnly
from app.llm.dialect import dialect_of
from app.llm.errors import from_exception
from app.llm.headers import limit_headers, request_id
from app.llm.parameters import ParameterRefused, adapted
from app.llm.parts import media_in
from app.llm.reading import AnswerReader, prompt_bound
from app.llm.request import Programs, Request
from app.llm.server_events import document_or_stream, events_of
from app.llm.streams import Assembly, ListenerFailed, Reading
from app.llm.tokens import upper_bound_tokens
from app.llm.wire import (
    PROTOCOL_ERRORS,
    ErrorEvent,
    NotTheProtocol,
)

if TYPE_CHECKING:
    import httpx2

DEFAULT_MAX_TOKENS = 4096
#: Longer answers are read in a thread, because odd texts may need a second.
INLINE_BYTES = 500_000


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
        credentials: Tokens that are sent in place of the key; the key is then a placeholder.
        parameters: Parameters that requests may have in addition to the known parameters of the
            protocol.
        timeout_s: Seconds after which a request fails if the request has no timeout of its own.
        max_connections: Largest number of connections that are open at once.
    """

    #: The protocol of the requests. The protocol's own provider has the same name.
    protocol: ClassVar[Protocol]
    #: Address of the API of the protocol's own provider.
    default_base_url: ClassVar[str]
    #: Path of the request, below the base URL.
    path: ClassVar[str]
    #: The endpoint that counts the tokens of a prompt; None if the API has none.
    count_endpoint: ClassVar[CountEndpoint | None] = None
    #: Request form of the client, if the protocol has several forms.
    api: ClassVar[str | None] = None

    def __init__(  # noqa: PLR0913 keywords, most of which a caller leaves out
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        provider: str | None = None,
        api_key_env: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        credentials: CredentialCache | None = None,
        parameters: Collection[str] = (),
        timeout_s: float = 600.0,
        max_connections: int = 1000,
    ) -> None:
        own = self.protocol.name
        self.provider = own if provider is None else provider
        self._api_key = api_key
        self._credentials = credentials or KeyOnly()
        self._parameters = parameters
        self._timeout_s = timeout_s
        self._connection = Connection(
            self._sdk,
            provider=self.provider,
            api_key=api_key,
            api_key_env=f"{own.upper()}_API_KEY" if api_key_env is None else api_key_env,
            base_url=base_url or self.default_base_url,
            headers=headers or {},
            query=query or {},
            max_connections=max_connections,
        )
        self._counts = PromptCounts(
            self.count_endpoint,
            provider=self.provider,
            credentials=self._credentials,
            timeout_s=timeout_s,
        )
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
        started_s = time.monotonic()
        body, headers = self._written(messages, model, tools, most, params)
        request = Request(
            body=body,
            headers=headers,
            timeout_s=timeout_s or self._timeout_s,
            before_sent=before_sent,
            max_tokens=most,
            prompt_tokens=lambda: upper_bound_tokens(messages, tools, params, model=model),
            may_pause=any(map(is_server_tool, tools or ())),
            programs=self._programs(messages, tools or (), body, started_s),
        )

        async def send(request: Request) -> LLMResponse:
            read = self._read_stream if stream else self._read_whole
            return await self._answered(request, read, on_text, on_broken)

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
            # Only an AgentError leaves a client, even if a server sends nonsense. The request may
            # have been answered, and the answer may have a price.
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
        """See ``LLMClient.count_tokens``."""
        if not self._counts.offered(model):
            return None
        params = {name: value for name, value in kwargs.items() if value is not None}
        body, headers = self._written(messages, model, tools, None, params)
        return await self._counts.ask(model, body, headers, self._post)

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
        if self._api_key:
            self._connection.open()

    async def close(self) -> None:
        """See ``LLMClient.close``."""
        await self._credentials.close()
        await self._connection.close()

    @abstractmethod
    def _sdk(self) -> Sdk:
        """Import the SDK, which takes up to a second the first time."""

    @abstractmethod
    def _request(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]],
        max_tokens: int | None,
        params: dict[str, Any],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the body and further headers; raise BadRequest if the request cannot be sent.

        ``max_tokens`` is None if the prompt is only counted.
        """

    @abstractmethod
    def _answer(self, answer: Any) -> Answer:
        """Read a whole answer; raise one of ``PROTOCOL_ERRORS`` if the answer has another form."""

    @abstractmethod
    def _hides(self, body: Mapping[str, Any]) -> bool:
        """Return whether the answer may leave out a part of the generated text."""

    @abstractmethod
    def _stream_request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body that asks for a streamed answer with its usage."""

    @abstractmethod
    def _assembly(self, body: Mapping[str, Any]) -> Assembly:
        """Return the assembly for a streamed answer to this request."""

    def _written(
        self,
        messages: Sequence[Message],
        model: str,
        tools: Sequence[Mapping[str, Any]] | None,
        max_tokens: int | None,
        params: dict[str, Any],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        try:
            return self._request(messages, model, tools or (), max_tokens, params)
        except PROTOCOL_ERRORS as error:
            problem = f"the request cannot be written: {type(error).__name__}: {error}"
            raise self._refused(problem) from error

    async def _post(self, request: Request, path: str) -> "httpx2.Response":
        content, headers = request.content(self._encoded(request.body))
        client = self._connection.open()
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
        except self._connection.errors as error:
            failure = from_exception(error, provider=self.provider, api_key=self._api_key)
            # If there is an answer, the failure contains the answer. The SDK's error is then left
            # out, because the message of the SDK's error may quote the key.
            raise failure from (error if failure.status is None else None)

    async def _answered(
        self,
        request: Request,
        read: Callable[[Request, Reading], Awaitable[LLMResponse]],
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
            result = await read(request, reading)
        except BaseException as error:
            if isinstance(error, ProviderError):
                # The code that reads a whole answer decides what the answer has cost.
                if not (reading.over and reading.assembly.complete):
                    error.partial = error.partial or self._partial(request, reading)
            elif on_broken is not None and (partial := self._partial(request, reading)):
                on_broken(partial)
            raise
        if reading.first_token_s is None:
            return result
        return replace(result, metadata={**result.metadata, "first_token_s": reading.first_token_s})

    def _partial(self, request: Request, reading: Reading) -> Partial | None:
        partial = reading.partial(
            prompt_tokens=prompt_bound(request), max_tokens=request.max_tokens
        )
        if partial is None or request.programs is None:
            return partial
        # The lost end of the answer may have named further containers.
        shown = request.programs.most_containers
        seconds = request.programs.container_seconds(shown, ran=True)
        return replace(partial, usage=replace(partial.usage, container_seconds=seconds))

    async def _read_stream(self, request: Request, reading: Reading) -> LLMResponse:
        body = self._encoded(self._stream_request(request.body))
        content, headers = request.content(body)
        client = self._connection.open()
        from app.llm.answer_bytes import STREAMS

        asked = STREAMS.set(True)
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
                    return await self._read_body(stream.response, request, reading)
        except TimeoutError as error:
            raise self._late("no whole answer", request.timeout_s) from error
        except self._connection.errors as error:
            failure = self._broken(error, reading.headers)
            raise failure from (error if failure.status is None else None)
        finally:
            STREAMS.reset(asked)

    async def _read_whole(self, request: Request, reading: Reading) -> LLMResponse:
        response = await self._post(request, self.path)
        reading.headers = response.headers
        reading.on_text = None
        result = await self._read_body(response, request, reading)
        reading.first_token_s = None  # all tokens have come at once
        return result

    async def _read_body(
        self, response: "httpx2.Response", request: Request, reading: Reading
    ) -> LLMResponse:
        document, chunks = await document_or_stream(response.aiter_bytes(), response.headers)
        if document is not None:
            read = partial(self._reader.whole, document, response, request)
            whole = await _off_loop(read, len(document))
            reading.tell(whole.content)
            return whole
        try:
            await reading.take_all(events_of(chunks))
        except NotTheProtocol as error:
            raise self._reader.not_the_protocol(response, str(error)) from error
        except ErrorEvent as error:
            raise self._reader.reported(error.body, response) from None
        if not reading.assembly.complete:
            raise ConnectionFailed(
                f"the answer of {self.provider} broke off: its stream ended before its last event",
                provider=self.provider,
                request_id=request_id(response.headers),
                headers=limit_headers(response.headers),
            )
        read = partial(self._reader.streamed, response, request, reading.assembly)
        return await _off_loop(read, reading.assembly.output_bytes)

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

    @property
    def origin(self) -> str:
        """Name of the reader that understands the originals of this client's answers."""
        return self.provider

    def _own_original(self, message: Message) -> Any:
        """Return the unchanged message if this client has read the message; otherwise None."""
        original = message.get("original") or {}
        return original["message"] if original.get("by") == self.origin else None

    def _kept_container(self, message: Message) -> str | None:
        """Return the id of a message's container; None if this provider cannot use it again."""
        container = (message.get("original") or {}).get("container")
        if container is None or self._own_original(message) is None:
            return None
        return str(container["id"]) if time.time() < container["until_s"] else None

    def _programs(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        body: Mapping[str, Any],
        started_s: float,
    ) -> Programs | None:
        """Return the programs that a request lets the provider run, or None."""
        programs = [tool for tool in server_tools_in(tools) if tool.name == CODE_EXECUTION]
        if not programs:
            return None
        rules = self.protocol.containers
        return Programs(
            rules=rules,
            gigabytes=gigabytes_of(programs[0], self.protocol),
            most_containers=rules.most(uses_of(tools, self.protocol, 0).uses),
            billed=self._bills_containers(body),
            preloaded=any(True for _ in media_in(messages)),
            elapsed_s=lambda: time.monotonic() - started_s,
        )

    def _bills_containers(self, body: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Return whether the provider bills containers for a request."""
        return True

    def _late(self, came: str, timeout_s: float) -> ConnectionFailed:
        return ConnectionFailed(
            f"{came} from {self.provider} within {timeout_s:g} s", provider=self.provider
        )

    def _adapted(
        self, model: str, params: Mapping[str, Any], max_tokens: int | None
    ) -> dict[str, Any]:
        """Return the parameters that the model takes; raise BadRequest if any is refused."""
        try:
            return adapted(
                self.protocol,
                model,
                params,
                max_tokens=max_tokens,
                api=self.api,
                additions=self._parameters,
            )
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


async def _off_loop(read: Callable[[], LLMResponse], size: int) -> LLMResponse:
    """Read an answer of some bytes, in a thread if the answer is long."""
    return read() if size <= INLINE_BYTES else await asyncio.to_thread(read)

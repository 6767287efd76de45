"""The connections to one server, over an official SDK; they are opened when they are first needed.

The imports of an SDK take up to a second. These imports are inside functions, so that the import of
the application stays fast.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from app.errors import AuthenticationFailed
from app.outbound.charsets import charset_of
from app.outbound.content_types import content_type_of

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropic
    from openai import AsyncOpenAI

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


class Connection:
    """The SDK's client of one server; all request forms of a provider share this client.

    Args:
        sdk: Imports the SDK.
        provider: Name of the provider.
        api_key: API key; without a key, ``open`` raises AuthenticationFailed.
        api_key_env: Name of the environment variable that error messages tell the user to set.
        base_url: Address of the API.
        headers: Further headers of every request.
        query: Query parameters of every request.
        max_connections: Largest number of connections that are open at once.

    Attributes:
        errors: Exceptions that the SDK and its transport may raise; empty before ``open``.

    Example:
        client = connection.open()
        try:
            await client.post("/responses", cast_to=httpx2.Response, content=content)
        except connection.errors as error:
            raise from_exception(error, provider="openai") from error
    """

    def __init__(
        self,
        sdk: Callable[[], Sdk],
        *,
        provider: str,
        api_key: str | None,
        api_key_env: str,
        base_url: str,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        max_connections: int,
    ) -> None:
        self._sdk = sdk
        self._provider = provider
        self._api_key = api_key
        self._api_key_env = api_key_env
        self._base_url = base_url
        self._headers = dict(headers)
        self._query = dict(query)
        self._max_connections = max_connections
        self._client: AsyncOpenAI | AsyncAnthropic | None = None
        self.errors: tuple[type[Exception], ...] = ()

    def open(self) -> "AsyncOpenAI | AsyncAnthropic":
        """Return the SDK's client; the first call makes it.

        Raises:
            AuthenticationFailed: If there is no key.
        """
        if self._client is None:
            self._client = self._opened()
        return self._client

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _opened(self) -> "AsyncOpenAI | AsyncAnthropic":
        if not self._api_key:
            raise AuthenticationFailed(
                f"no API key for {self._provider}: set {self._api_key_env}",
                provider=self._provider,
                reached=False,
            )
        import aiohttp
        import httpx2

        from app.llm.answer_bytes import NoCookies, bounded

        sdk = self._sdk()
        # There is no read timeout, because the deadline of the whole call also ends slow answers.
        timeout = httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S)
        limits = httpx2.Limits(max_connections=self._max_connections, keepalive_expiry=_KEEPALIVE_S)
        self.errors = (
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
            http_client=bounded(sdk.http_client)(
                limits=limits,
                timeout=timeout,
                cookies=NoCookies(),
                event_hooks={"response": [_bound_body, _choose_charset]},
            ),
        )
        return client


async def _bound_body(response: "httpx2.Response") -> None:
    from app.llm.answer_bytes import bound_body

    bound_body(response)


async def _choose_charset(response: "httpx2.Response") -> None:
    """Choose the character set of an error, whose text the SDK decodes."""
    if response.is_error:
        content_type = content_type_of(response.headers.get("content-type"))
        response.encoding = charset_of(content_type.charset)

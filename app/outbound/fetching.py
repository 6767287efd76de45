"""Makes HTTP requests for models: guarded addresses, few redirects, bounded answers."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import aiohttp
from yarl import URL

from app.configuration.sections import HttpTools
from app.domain.suggestions import listed, shortened
from app.errors import AddressRefused
from app.outbound.addresses import Lookup, Target, look_up, resolve_public
from app.outbound.charsets import decoded
from app.outbound.content_types import content_type_of
from app.outbound.headers import check_headers
from app.outbound.responses import BoundedResponse

REDIRECTS = (301, 302, 303, 307, 308)
KEEP_METHOD = (307, 308)
CHUNK_BYTES = 65_536
CREDENTIALS = frozenset(("authorization", "cookie", "proxy-authorization"))


@dataclass(frozen=True, kw_only=True, slots=True)
class WebRequest:
    """An HTTP request of a model."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str]
    body: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WebAnswer:
    """The answer to a request.

    Attributes:
        url: URL of the answer, after redirects.
        status: HTTP status.
        headers: Headers by lower-case name.
        content_type: Content type, such as ``text/html``; empty if the answer names no type.
        charset: Character set that the answer names, or None.
        body: First bytes of the body, decompressed.
        is_cut: Whether the body had more bytes.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    content_type: str
    charset: str | None
    body: bytes
    is_cut: bool

    def text(self) -> str:
        """Decode the body; call this method in a thread, because the body may be large."""
        return decoded(self.body, self.charset)


class Fetcher:
    """Makes requests within the operator's rules.

    A body is read only up to ``max_bytes``. For larger downloads, write a tool of your own.

    Args:
        rules: Hosts that may be reached, and the limits of a request.
        lookup: Function that looks up a host's name.

    Example:
        fetcher = Fetcher(HttpTools(allowed_hosts=("*.example.com",)))
        answer = await fetcher.fetch(WebRequest(url="https://api.example.com/", headers={}))
    """

    def __init__(self, rules: HttpTools, *, lookup: Lookup = look_up) -> None:
        self._rules = rules
        self._lookup = lookup

    async def fetch(self, request: WebRequest) -> WebAnswer:
        """Make a request and follow its redirects; each redirect is checked like the first URL.

        Raises:
            AddressRefused: If a URL's address is not allowed; nothing was sent to that address.
            ValueError: If the method or a header is not allowed.
            ConnectionError: If there is no answer, or if there are too many redirects.
            TimeoutError: If the request takes too long.
        """
        self._check(request)
        try:
            async with asyncio.timeout(self._rules.timeout_s):
                return await self._follow(request)
        except TimeoutError as error:
            raise TimeoutError(
                f"{shortened(request.url)} gave no answer within {self._rules.timeout_s:g} s"
            ) from error
        except aiohttp.ClientError as error:
            raise ConnectionError(f"{shortened(request.url)}: {error}") from error

    def _check(self, request: WebRequest) -> None:
        if request.method not in self._rules.methods:
            raise ValueError(
                f"method {shortened(request.method)} is not allowed: use one of "
                f"{listed(self._rules.methods)}"
            )
        check_headers(request.headers)

    async def _follow(self, request: WebRequest) -> WebAnswer:
        for _ in range(self._rules.max_redirects + 1):
            target = await self._target(request.url)
            answer = await self._send(request, target)
            location = answer.headers.get("location")
            if answer.status not in REDIRECTS or location is None:
                return answer
            request = _redirected(request, target, answer.status, location)
        raise ConnectionError(
            f"the redirect to {shortened(request.url)} was not followed: the limit is "
            f"{self._rules.max_redirects} redirects"
        )

    async def _target(self, url: str) -> Target:
        target = await resolve_public(url, allow=self._rules.allowed_networks, lookup=self._lookup)
        host = target.host.rstrip(".").lower()
        allowed = self._rules.allowed_hosts
        if allowed and not any(fnmatchcase(host, pattern.lower()) for pattern in allowed):
            raise AddressRefused(
                f"host {shortened(host)} is not allowed: use one of {listed(allowed)}"
            )
        return target

    async def _send(self, request: WebRequest, target: Target) -> WebAnswer:
        async with (
            aiohttp.ClientSession(
                connector=target.connector(),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
                response_class=BoundedResponse,
            ) as session,
            session.request(
                request.method,
                target.url,
                headers=request.headers,
                data=request.body,
                allow_redirects=False,
            ) as response,
        ):
            body, is_cut = await self._read(response)
            content_type = content_type_of(response.headers.get("Content-Type"))
            return WebAnswer(
                url=str(target.url),
                status=response.status,
                headers={name.lower(): value for name, value in response.headers.items()},
                content_type=content_type.name,
                charset=content_type.charset,
                body=body,
                is_cut=is_cut,
            )

    async def _read(self, response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
        """Read the first bytes of a body; aiohttp decompresses the body piece by piece."""
        body = bytearray()
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            body += chunk
            if len(body) > self._rules.max_bytes:
                return bytes(body[: self._rules.max_bytes]), True
        return bytes(body), False


def _redirected(request: WebRequest, target: Target, status: int, location: str) -> WebRequest:
    try:
        url = target.url.join(URL(location))
    except ValueError as error:
        raise AddressRefused(f"a redirect leads to {shortened(location)}: {error}") from error
    headers = request.headers
    if (url.scheme, url.raw_host, url.port) != (target.url.scheme, target.host, target.url.port):
        headers = {
            name: value for name, value in headers.items() if name.lower() not in CREDENTIALS
        }
    if status in KEEP_METHOD or request.method in ("GET", "HEAD"):
        return replace(request, url=str(url), headers=headers)
    # Like a browser, the fetcher does not send the body again to another URL.
    return replace(request, url=str(url), headers=headers, method="GET", body=None)

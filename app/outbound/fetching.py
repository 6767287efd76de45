"""Fetches what a model asks for from the web: guarded addresses, few redirects, bounded answers."""

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

REDIRECTS = (301, 302, 303, 307, 308)
KEEP_METHOD = (307, 308)
CHUNK_BYTES = 65_536
# Decide where a request ends or who it is for: those are ours.
OWN_HEADERS = frozenset(
    "host content-length transfer-encoding connection upgrade te trailer expect keep-alive".split()
)
CREDENTIALS = frozenset(("authorization", "cookie", "proxy-authorization"))


@dataclass(frozen=True, kw_only=True, slots=True)
class WebRequest:
    """What is asked for."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str]
    body: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WebAnswer:
    """What came.

    Attributes:
        url: Where it came from, after redirects.
        status: HTTP status.
        headers: By lower-case name.
        content_type: Such as ``text/html``; empty if nothing was said.
        charset: As the answer names it, or None.
        body: Its first bytes, decompressed.
        is_cut: Whether there were more.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    content_type: str
    charset: str | None
    body: bytes
    is_cut: bool

    def text(self) -> str:
        """The body as text; what is not in its character set is replaced."""
        try:
            return self.body.decode(self.charset or "utf-8", "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")


class Fetcher:
    """Makes requests by the operator's rules.

    Args:
        rules: What may be reached, and how much of it.
        lookup: Looks a host's name up.
    """

    def __init__(self, rules: HttpTools, *, lookup: Lookup = look_up) -> None:
        self._rules = rules
        self._lookup = lookup

    async def fetch(self, request: WebRequest) -> WebAnswer:
        """Make a request and follow its redirects, each of which is checked like the first URL.

        Raises:
            AddressRefused: If a URL leads where it may not; nothing was sent there.
            ValueError: If the method or a header is not allowed.
            ConnectionError: If there is no answer, or too many redirects.
            TimeoutError: If it takes too long.
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
                f"method {shortened(request.method)} is not allowed; there is "
                f"{listed(self._rules.methods)}"
            )
        for name in request.headers:
            if name.lower() in OWN_HEADERS or name.lower().startswith("proxy-"):
                raise ValueError(f"header {shortened(name)} may not be set: leave it out")

    async def _follow(self, request: WebRequest) -> WebAnswer:
        for _ in range(self._rules.max_redirects + 1):
            target = await self._target(request.url)
            answer = await self._send(request, target)
            location = answer.headers.get("location")
            if answer.status not in REDIRECTS or location is None:
                return answer
            request = _redirected(request, target, answer.status, location)
        raise ConnectionError(
            f"{shortened(request.url)} is one redirect too many: {self._rules.max_redirects} are "
            "followed"
        )

    async def _target(self, url: str) -> Target:
        target = await resolve_public(url, allow=self._rules.allowed_networks, lookup=self._lookup)
        host = target.host.rstrip(".").lower()
        allowed = self._rules.allowed_hosts
        if allowed and not any(fnmatchcase(host, pattern.lower()) for pattern in allowed):
            raise AddressRefused(
                f"host {shortened(host)} is not among those that are allowed: {listed(allowed)}"
            )
        return target

    async def _send(self, request: WebRequest, target: Target) -> WebAnswer:
        async with (
            aiohttp.ClientSession(
                connector=target.connector(),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
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
            return WebAnswer(
                url=str(target.url),
                status=response.status,
                headers={name.lower(): value for name, value in response.headers.items()},
                content_type=response.content_type if "Content-Type" in response.headers else "",
                charset=response.charset,
                body=body,
                is_cut=is_cut,
            )

    async def _read(self, response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
        """The first bytes of a body; aiohttp decompresses it piece by piece, never as a whole."""
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
    if (url.scheme, url.raw_host, url.port) != (target.url.scheme, target.host, target.port):
        headers = {
            name: value for name, value in headers.items() if name.lower() not in CREDENTIALS
        }
    if status in KEEP_METHOD or request.method in ("GET", "HEAD"):
        return replace(request, url=str(url), headers=headers)
    # As browsers do: what was sent is not sent again to somebody else.
    return replace(request, url=str(url), headers=headers, method="GET", body=None)

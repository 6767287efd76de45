"""Refuses requests under foreign names, in the servers that AgentChord starts.

``app.domain.hosts`` decides which names are foreign.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from app.domain.hosts import host_refusal, is_own_host

MISDIRECTED = 421


def own_hosts_only(allowed: Collection[str] = ()) -> Middleware:
    """Return a middleware of aiohttp that answers 421 to a request under a foreign name."""

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if is_own_host(host, allowed):
            return await handler(request)
        return web.Response(status=MISDIRECTED, text=host_refusal(host))

    return check


def own_hosts_only_wsgi(application: Any, allowed: Collection[str] = ()) -> Any:
    """Return a WSGI application that answers 421 to a request under a foreign name."""

    def check(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "")
        if is_own_host(host, allowed):
            answer: Iterable[bytes] = application(environ, start_response)
            return answer
        start_response(f"{MISDIRECTED} Misdirected Request", [("Content-Type", "text/plain")])
        return [host_refusal(host).encode()]

    return check

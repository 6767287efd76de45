"""A provider that accepts only tokens that it has issued itself, and issues them.

``POST /token`` issues a token. Calls of both protocols get an answer if their token is valid;
otherwise they get a 401 that quotes the token, as careless providers do.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from aiohttp import web

from app.concurrency.loop_thread import LoopThread
from tests.support.http_server import serving_on_a_port
from tests.support.wire_server import give, shapes


@dataclass
class TokenServer:
    """A running server.

    Attributes:
        url: Address of the server.
        lifetime_s: Lifetime that the server states of each token.
        broken: Whether ``/token`` answers with a 500.
        refusing: Whether all calls get a 401.
        issued: All tokens, in order.
        valid: The tokens that the server accepts.
        accepted: Headers of the calls that got an answer.
        rejected: Headers of the calls that got a 401.
    """

    url: str = ""
    lifetime_s: float = 3600.0
    broken: bool = False
    refusing: bool = False
    issued: list[str] = field(default_factory=list)
    valid: set[str] = field(default_factory=set)
    accepted: list[dict[str, str]] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)

    def issue(self) -> str:
        """Issue a token that the server accepts."""
        token = f"ya29.{uuid4().hex}+{len(self.issued)}/x=="
        self.issued.append(token)
        self.valid.add(token)
        return token

    async def token(self, _request: web.Request) -> web.Response:
        """Answer ``POST /token``."""
        if self.broken:
            return web.json_response({"error": f"no token like {self.issued[-1:]}"}, status=500)
        return web.json_response({"access_token": self.issue(), "expires_in": self.lifetime_s})

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Answer a call of either protocol."""
        protocol = "anthropic" if request.path.endswith("/messages") else "openai"
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = await request.json()
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if self.refusing or token not in self.valid:
            self.rejected.append(headers)
            text = f"the token {token} is not valid"
            refusal = {"type": "error", "error": {"type": "authentication_error", "message": text}}
            return web.json_response(refusal, status=401, headers={"x-request-id": "req_401"})
        self.accepted.append(headers)
        return await give(
            request, shapes(protocol, "text")["stream" if body.get("stream") else "whole"][0]
        )


@asynccontextmanager
async def token_server() -> AsyncIterator[TokenServer]:
    """Run a server on a free port of this machine."""
    server = TokenServer()
    application = web.Application()
    application.router.add_post("/token", server.token)
    application.router.add_post("/v1/chat/completions", server.call)
    application.router.add_post("/v1/messages", server.call)
    async with serving_on_a_port(application) as server.url:
        yield server


@contextmanager
def token_server_in_thread() -> Iterator[TokenServer]:
    """Run a server on a loop of its own, for tests that are no coroutines."""
    loop = LoopThread("token-server")
    running = token_server()
    try:
        yield loop.run(running.__aenter__())
    finally:
        loop.run(running.__aexit__(None, None, None))
        loop.close()

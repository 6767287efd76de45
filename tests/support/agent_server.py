"""A remote agent for tests, in a thread; it sends prepared answers and records its requests."""

import asyncio
from typing import Self

from aiohttp import web

from app.concurrency.loop_thread import LoopThread


class AgentServer:
    """The server of the remote agent, which is a context manager.

    Args:
        delay_s: Seconds that the server takes for each answer.
    """

    def __init__(self, *, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s
        self._loop = LoopThread("remote agent")
        #: The answers, one after the other; after the last, the server sends an empty object.
        self.answers: list[web.Response] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []
        #: Number of requests whose connection was closed before the answer.
        self.closed = 0
        self.url = ""

    def __enter__(self) -> Self:
        self._loop.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._runner.cleanup())
        self._loop.close()

    async def _open(self) -> None:
        application = web.Application()
        application.router.add_post("/agent", self._serve)
        self._runner = web.AppRunner(application, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/agent"

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((dict(request.headers), await request.read()))
        try:
            await asyncio.sleep(self._delay_s)
        except asyncio.CancelledError:
            self.closed += 1
            raise
        return self.answers.pop(0) if self.answers else web.json_response({})

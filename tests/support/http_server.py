"""An aiohttp application on a free port of this machine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


@asynccontextmanager
async def serving_on_a_port(application: web.Application, **options: Any) -> AsyncIterator[str]:
    """Run an application; yield its URL without a path.

    Args:
        application: The application.
        options: Options of aiohttp's ``AppRunner``.
    """
    runner = web.AppRunner(application, **options)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        assert runner.server is not None
        transports = [each.transport for each in runner.server.connections]
        await runner.cleanup()
        # An answer that nobody has read keeps its connection open, and the loop of a test ends.
        for transport in filter(None, transports):
            transport.abort()
        await asyncio.sleep(0)

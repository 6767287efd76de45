"""A TCP proxy whose network can be cut: data is lost without an error.

It is between one worker and Postgres or Redis, which listen on Unix sockets. A cut is a black
hole, not a closed connection. When it ends, the data arrives, as TCP would send it again; after a
long cut both ends are closed, because by then both would have closed their connection.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine, Iterator
from enum import Flag, auto
from pathlib import Path
from typing import Any, Self

from tests.support.pace import scaled

CHUNK = 65_536
#: Both services and both clients close a silent connection after about this time.
GIVEN_UP_S = scaled(10.0)
THERE_S = scaled(10.0)


class Way(Flag):
    """The direction in which data is blocked."""

    THERE = auto()  # from the worker to the service
    BACK = auto()  # from the service to the worker
    BOTH = THERE | BACK


class Proxy:
    """Listens on a free port of 127.0.0.1 and leads to a Unix socket.

    Args:
        socket: Path of the service's socket.
    """

    def __init__(self, socket: Path) -> None:
        self.port = 0
        self._socket = socket
        self._cut = Way(0)
        self._healed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(THERE_S)
        self._loop.close()

    @contextlib.contextmanager
    def cut(self, way: Way) -> Iterator[None]:
        """A black hole for as long as the block takes."""
        began_s = time.monotonic()
        self._run(self._set(way))
        try:
            yield
        finally:
            self._run(self._set(Way(0), cut=time.monotonic() - began_s > GIVEN_UP_S))

    def _run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(THERE_S)

    async def _set(self, way: Way, *, cut: bool = False) -> None:
        self._cut = way
        if cut:
            self._abort()
        self._healed.set()
        self._healed = asyncio.Event()

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _close(self) -> None:
        self._server.close()
        self._abort()
        await self._set(Way(0))
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while Way.THERE in self._cut:
                await self._healed.wait()
            back, there = await asyncio.open_unix_connection(str(self._socket))
            self._writers.add(there)
            await asyncio.gather(
                self._forward(reader, there, Way.THERE),
                self._forward(back, writer, Way.BACK),
            )
        for end in (writer, there):
            if end is not None:
                self._writers.discard(end)
                end.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        while data := await reader.read(CHUNK):
            while way in self._cut:
                await self._healed.wait()
            writer.write(data)
            await writer.drain()
        # The end of a connection does not pass a black hole either.
        while way in self._cut:
            await self._healed.wait()
        raise ConnectionResetError

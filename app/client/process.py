"""The bridge for code without an event loop: one client on one background loop per process.

So the synchronous and the asynchronous API run the same code. A caller can use any loop.
"""

import atexit
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import build_platform
from app.client.client import Client
from app.loop_thread import LoopThread

Result = TypeVar("Result")


@dataclass(frozen=True)
class Process:
    """The background loop of this process, and the client that runs on that loop."""

    loop: LoopThread
    client: Client

    def close(self, pid: int) -> None:
        """Close the connections, but only in the process that made these connections."""
        if os.getpid() == pid:
            self.loop.run(self.client.close())
            self.loop.close()

    def iterate(self, items: AsyncIterator[Result]) -> Iterator[Result]:
        """Iterate synchronously over an asynchronous iterator of the client."""

        async def following() -> list[Result]:
            async for item in items:
                return [item]
            return []

        while item := self.loop.run(following()):
            yield item[0]


def process() -> Process:
    """Return this process's loop and client; make both at the first use and after a fork."""
    return _process(os.getpid())


@lru_cache(maxsize=1)
def _process(pid: int) -> Process:
    loop = LoopThread("agentchord client")

    async def open_() -> Client:
        return Client(build_platform(application_name=f"agentchord client {pid}"))

    made = Process(loop=loop, client=loop.run(open_()))
    atexit.register(made.close, pid)
    return made


def transaction(step: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
    """Run one transaction of this process's client, for a caller without a loop."""
    connected = process()
    return connected.loop.run(connected.client.transaction(step))

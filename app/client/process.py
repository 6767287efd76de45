"""The bridge for code without an event loop: one client on one background loop per process.

So the synchronous and the asynchronous API run the same code. A caller can use any loop.
"""

import atexit
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import build_platform
from app.client.client import Client
from app.concurrency.loop_thread import LoopThread
from app.concurrency.once import once

Result = TypeVar("Result")


@dataclass(frozen=True)
class Process:
    """The background loop of this process, and the client that runs on that loop.

    A client belongs to its loop, so a step gets the client only there.

    Example:
        record = process().run(lambda client: client.runs.read(run_id))
    """

    loop: LoopThread
    client: Client

    def run(self, step: Callable[[Client], Awaitable[Result]]) -> Result:
        """Run a step with the client, and return its result."""
        return self.loop.run(_on_loop(step, self.client))

    async def run_async(self, step: Callable[[Client], Awaitable[Result]]) -> Result:
        """Run a step with the client, for a caller on another loop.

        Raises:
            NoEventLoop: If the caller is not on an asyncio loop.
        """
        return await self.loop.run_async(_on_loop(step, self.client))

    def close(self) -> None:
        """Close the connections and the loop."""
        self.loop.run(self.client.close())
        self.loop.close()

    def iterate(self, begin: Callable[[Client], AsyncIterator[Result]]) -> Iterator[Result]:
        """Iterate synchronously over an asynchronous iterator of the client."""

        async def beginning() -> AsyncIterator[Result]:
            return begin(self.client)

        items = self.loop.run(beginning())

        async def following() -> list[Result]:
            async for item in items:
                return [item]
            return []

        while item := self.loop.run(following()):
            yield item[0]


async def _on_loop(step: Callable[[Client], Awaitable[Result]], client: Client) -> Result:
    return await step(client)


@once(survives_fork=False)
def process() -> Process:
    """Return this process's loop and client; make both at the first use and after a fork."""
    loop = LoopThread("agentchord client")

    async def open_() -> Client:
        return Client(build_platform(application_name=f"agentchord client {os.getpid()}"))

    try:
        made = Process(loop=loop, client=loop.run(open_()))
    except BaseException:
        loop.close()
        raise
    # At the end of the process, the client is closed before the built-in services stop, because
    # they were registered earlier.
    atexit.register(close_process)
    return made


def close_process() -> None:
    """Close this process's client, if there is one."""
    if made := process.forget():
        made.close()


def transaction(step: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
    """Run one transaction of this process's client, for a caller without a loop."""
    return process().run(lambda client: client.transaction(step))

"""The bridge for code without an event loop: one client on one background loop per process.

So the synchronous and the asynchronous API run the same code. A caller can use any loop.
"""

import asyncio
import atexit
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import build_platform
from app.client.client import Client
from app.concurrency.loop_thread import LoopThread
from app.concurrency.once import once
from app.errors import AgentChordError

Result = TypeVar("Result")

#: Seconds between two attempts to end an iteration whose last step still runs.
CLOSE_STEP_S = 0.01


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
        try:
            return self.loop.run(_on_loop(step, self.client))
        except AgentChordError as error:
            raise brief(error)  # noqa: B904 - brief keeps the cause

    async def run_async(self, step: Callable[[Client], Awaitable[Result]]) -> Result:
        """Run a step with the client, for a caller on another loop.

        Raises:
            NoEventLoop: If the caller is not on an asyncio loop.
        """
        try:
            return await self.loop.run_async(_on_loop(step, self.client))
        except AgentChordError as error:
            raise brief(error)  # noqa: B904 - brief keeps the cause

    def close(self) -> None:
        """Close the connections and the loop."""
        self.loop.run(self.client.close())
        self.loop.close()

    def iterate(
        self, begin: Callable[[Client], AsyncGenerator[Result, None]]
    ) -> Generator[Result, None, None]:
        """Iterate over an asynchronous generator of the client, without a loop."""
        items = _Items(begin)
        try:
            while item := self.run(items.following):
                yield item[0]
        finally:
            self.run(items.close)

    async def iterate_async(
        self, begin: Callable[[Client], AsyncGenerator[Result, None]]
    ) -> AsyncGenerator[Result, None]:
        """Iterate over an asynchronous generator of the client, for a caller on another loop."""
        items = _Items(begin)
        try:
            while item := await self.run_async(items.following):
                yield item[0]
        finally:
            await self.run_async(items.close)


class _Items(Generic[Result]):
    """An asynchronous generator of the client. The methods are steps on the client's loop.

    Args:
        begin: Makes the generator.
    """

    def __init__(self, begin: Callable[[Client], AsyncGenerator[Result, None]]) -> None:
        self._begin = begin
        self._items: AsyncGenerator[Result, None] | None = None

    async def following(self, client: Client) -> list[Result]:
        """Return the next item in a list; the list is empty if there is none."""
        if self._items is None:
            self._items = self._begin(client)
        async for item in self._items:
            return [item]
        return []

    async def close(self, client: Client) -> None:  # noqa: ARG002 - a step gets the client
        """End the generator; while its cancelled last step is still running, try again."""
        while self._items is not None:
            with suppress(RuntimeError):
                await self._items.aclose()
                return
            await asyncio.sleep(CLOSE_STEP_S)


def brief(error: AgentChordError) -> AgentChordError:
    """Return an error without the frames of the client's loop, which tell a program nothing.

    The cause is not printed either, because the error's message has the reason. The cause stays in
    ``__context__``.
    """
    error.__context__ = error.__cause__ or error.__context__
    error.__cause__ = None  # this also hides the context
    return error.with_traceback(None)


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

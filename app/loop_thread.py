"""One asyncio loop in a thread of its own, so that synchronous code can call asynchronous code."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

Result = TypeVar("Result")


class LoopThread:
    """Runs coroutines for callers in other threads or on other loops.

    Args:
        name: Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, step: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine, and return the coroutine's result.

        If the caller is interrupted, cancel the coroutine.
        """
        future = asyncio.run_coroutine_threadsafe(step, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def run_async(self, step: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine for a caller on another loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(step, self._loop))

    def call(self, callback: Callable[[], None]) -> None:
        """Call a function on the loop, without waiting."""
        self._loop.call_soon_threadsafe(callback)

    def close(self) -> None:
        """End the loop; before this call, all coroutines on the loop must have ended."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

"""One asyncio loop in a thread of its own, so that synchronous code can call asynchronous code."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog
import uvloop

from app.concurrency.error_texts import described
from app.concurrency.forks import StandingLoop
from app.errors import NoEventLoop

Result = TypeVar("Result")

log = structlog.get_logger(__name__)


class LoopThread:
    """Runs coroutines for callers in other threads or on other loops.

    A KeyboardInterrupt or a SystemExit of a task would end an asyncio loop, and so would a call of
    ``loop.stop``. This loop goes on, because on this thread only the code of a user does so.

    Args:
        name: Name of the thread.
        loop: The loop; None means a new loop.
        on_death: Called if the loop cannot go on; after this, every ``run`` would wait for ever.

    Attributes:
        loop: The loop.
    """

    def __init__(
        self,
        name: str,
        *,
        loop: uvloop.Loop | None = None,
        on_death: Callable[[], None] | None = None,
    ) -> None:
        # Other threads, and functions of atexit, may use the loop after the main thread has ended.
        self.loop = loop or StandingLoop()
        self._on_death = on_death
        self._closing = False
        self._thread = threading.Thread(target=self._keep_running, name=name, daemon=True)
        self._thread.start()

    def run(self, step: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine, and return the coroutine's result.

        If the caller is interrupted, cancel the coroutine.
        """
        future = asyncio.run_coroutine_threadsafe(step, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def run_async(self, step: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine for a caller on another loop.

        Raises:
            NoEventLoop: If the caller is not on an asyncio loop; in this case nothing is run.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            step.close()
            raise NoEventLoop(
                "the async functions of AgentChord need an asyncio event loop, and no such loop "
                "runs here: under trio, call the function without `async` in a thread, for example "
                "`await trio.to_thread.run_sync(enqueue, workflow)`"
            ) from error
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(step, self.loop))

    def call(self, callback: Callable[[], None]) -> None:
        """Call a function on the loop, without waiting."""
        self.loop.call_soon_threadsafe(callback)

    def close(self) -> None:
        """End the loop; before this call, all coroutines on the loop must have ended."""
        self.end_soon()
        self._thread.join(timeout=10)

    def end_soon(self) -> None:
        """End the loop as soon as the loop turns, without waiting."""
        self._closing = True
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            # A subclass of the loop may refuse its own ``stop``.
            self.loop.call_soon_threadsafe(uvloop.Loop.stop, self.loop)

    def _keep_running(self) -> None:
        try:
            while not self._closing:
                self._run_until_stopped()
        except BaseException:  # noqa: BLE001  code of a user can raise it in any thread
            try:
                log.exception("loop_ended", thread=self._thread.name)
            finally:
                if self._on_death is not None:
                    self._on_death()

    def _run_until_stopped(self) -> None:
        """Run the loop until code stops it; raise an exception only if the loop cannot run."""
        reason = "loop.stop() was called"
        try:
            self.loop.run_forever()
        except Exception:
            raise
        except BaseException as error:  # noqa: BLE001
            reason = described(error)
        if not self._closing:
            log.warning("loop_interrupted", thread=self._thread.name, reason=reason)

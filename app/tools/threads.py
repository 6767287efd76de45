"""Runs a blocking function, and blocks neither the loop nor the end of the process."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

Result = TypeVar("Result")


async def run_in_thread(function: Callable[[], Result]) -> Result:
    """Run a function in a daemon thread of its own.

    The loop's default executor is not used, for two reasons. Its few threads also resolve host
    names, so tools that hang would stop the providers' clients. The executor also waits for its
    threads when the process ends.

    Args:
        function: The function, which is called without arguments, in a copy of the caller's
            context.

    Returns:
        The function's result. A cancelled wait ends at once. The thread then goes on, and the
        function's result is dropped.

    Raises:
        RuntimeError: If the function raises an exception that a loop cannot carry, such as
            SystemExit.
        Exception: If the function raises any other error; that error is raised unchanged.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            end = partial(future.set_result, context.run(function))
        except BaseException as error:  # noqa: BLE001 the caller must learn of every end
            failure = error if _fits_future(error) else RuntimeError(repr(error))
            end = partial(future.set_exception, failure)
        # The loop may be closed by now; then no caller waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if future.done() else end())

    threading.Thread(target=work, name="tool", daemon=True).start()
    return await future


def _fits_future(error: BaseException) -> bool:
    return isinstance(error, Exception) and not isinstance(error, StopIteration)

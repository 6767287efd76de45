"""Runs the code of users: functions, kinds, tools and callbacks, and the imports of their modules.

User code can end its own call, and nothing else. Every exception of user code, whatever its class,
becomes a ``UserCodeFailed``, which is an ordinary error. No other module catches the exceptions of
user code.
"""

import asyncio
import contextlib
import contextvars
import inspect
import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

Result = TypeVar("Result")
#: Longer messages of exceptions are cut.
MAX_MESSAGE_CHARS = 100_000
MAX_NAME_CHARS = 200
MAX_TRACEBACK_CHARS = 20_000

#: Tasks that nothing waits for any more. The loop itself has only weak references to its tasks.
_abandoned: set[asyncio.Task[Any]] = set()


class UserCodeFailed(Exception):
    """User code raised an exception.

    The message has the class and the message of that exception.

    Attributes:
        error: The exception of the user code.
    """

    def __init__(self, error: BaseException) -> None:
        # The message is made here, because a sync function fails in its own thread, and a slow
        # __str__ then delays only this thread.
        super().__init__(described(error))
        self.error = error


class TookTooLong(Exception):
    """User code did not end in time; a coroutine was cancelled, and a thread goes on."""


class _End(NamedTuple, Generic[Result]):
    """The end of a call: its result or its error."""

    result: Result | None = None
    error: Exception | None = None

    def get(self) -> Result:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # a call without an error has a result


def described(error: BaseException) -> str:
    """Return the class and the message of any exception, even if its methods fail."""
    try:
        name = str.__getitem__(type(error).__name__, slice(MAX_NAME_CHARS))
    except BaseException:  # noqa: BLE001  a metaclass of a user may raise any exception
        name = "an exception"
    return f"{name}: {message_of(error)}".removesuffix(": ")


def message_of(error: BaseException) -> str:
    """Return the message of any exception, even if its methods fail."""
    # str() of a user's exception may raise any exception, or return a subclass of str.
    try:
        return str.__getitem__(str(error), slice(MAX_MESSAGE_CHARS))
    except BaseException as odd:  # noqa: BLE001
        return f"(its message cannot be read: {type(odd).__name__})"


def traceback_of(error: BaseException) -> str:
    """Return the traceback of any exception, for a log.

    A log gets this text and not the exception, because some loggers call methods of the exception.
    """
    try:
        lines = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001  a property of a user's exception may raise any exception
        lines = described(error)
    return lines[:MAX_TRACEBACK_CHARS]


def call(function: Callable[[], Result]) -> Result:
    """Call a function of a user in this thread.

    Raises:
        UserCodeFailed: If the function raised any exception.
        KeyboardInterrupt: In the main thread. There, this exception comes from the terminal.
    """
    try:
        return function()
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        if interrupted and threading.current_thread() is threading.main_thread():
            raise
        raise UserCodeFailed(error) from error


async def result_of(function: Callable[[], Any]) -> Any:
    """Call a function of a user, sync or async; a sync function runs in a thread of its own.

    If a sync function returns an awaitable, the awaitable is awaited. A decorator may have wrapped
    an async function in such a function.

    This coroutine also converts the cancellation of its own task, because a coroutine cannot see
    who has cancelled it. Therefore the task must be one that ``within`` has made.

    Raises:
        UserCodeFailed: If the function raised any exception.
    """
    try:
        if inspect.iscoroutinefunction(function):
            return await function()
        result = await run_in_thread(partial(call, function))
        return await result if inspect.isawaitable(result) else result
    except UserCodeFailed:
        raise
    except BaseException as error:
        raise UserCodeFailed(error) from error


async def within(function: Callable[[], Any], *, timeout_s: float | None = None) -> Any:
    """Call a function of a user in a task of its own; leave the task if it does not end in time.

    Code that swallows its cancellation delays nobody, because nothing waits for a task that was
    left. The task of the caller is cancelled only from outside, and never by the function.

    Args:
        function: The function, sync or async; see ``result_of``.
        timeout_s: Seconds that the call may take; None means no limit.

    Raises:
        UserCodeFailed: If the function raised any exception, or cancelled its own task.
        TookTooLong: If the function did not end in time.
    """
    task = asyncio.create_task(_ended(function))
    try:
        # asyncio.timeout would wait for code that swallows the cancellation.
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    finally:
        if not task.done():
            _abandoned.add(task)
            task.add_done_callback(_abandoned.discard)
            task.cancel()
    if not done:
        raise TookTooLong
    if task.cancelled():  # before its first step
        raise UserCodeFailed(asyncio.CancelledError())
    return task.result().get()


async def run_in_thread(function: Callable[[], Result]) -> Result:
    """Run a blocking function in a daemon thread of its own.

    The loop's default executor is not used, for two reasons. Its few threads also resolve host
    names, so tools that hang would stop the providers' clients. The executor also waits for its
    threads when the process ends.

    Args:
        function: The function, which is called without arguments, in a copy of the caller's
            context.

    Returns:
        The function's result. A cancelled wait ends at once, while the thread goes on and its
        result is dropped.

    Raises:
        UserCodeFailed: If the function raises an exception that a loop cannot carry, such as
            SystemExit.
        Exception: If the function raises any other error; that error is raised unchanged.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_End[Result]] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        end = _end_of(partial(context.run, function))
        # The loop may be closed by now; then no caller waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(end))

    threading.Thread(target=work, name="tool", daemon=True).start()
    return (await future).get()


async def _ended(function: Callable[[], Any]) -> _End[Any]:
    """Return the end of a call, and raise nothing, so that every end is a result of the task."""
    try:
        return _End(result=await result_of(function))
    except Exception as error:  # noqa: BLE001  the caller gets the error
        return _End(error=error)


def _end_of(function: Callable[[], Result]) -> _End[Result]:
    try:
        return _End(result=function())
    except BaseException as error:  # noqa: BLE001  the caller must learn of every end
        # A coroutine turns a StopIteration into another error.
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            return _End(error=error)
        return _End(error=UserCodeFailed(error))

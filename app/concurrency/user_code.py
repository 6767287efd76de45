"""Runs the code of users: functions, kinds, tools and callbacks, and the imports of their modules.

User code can end its own call, and nothing else. Every exception of user code, whatever its class,
becomes a ``UserCodeFailed``, which is an ordinary error. No other module catches the exceptions of
user code. A sync function runs in a thread of its own, and an async function on the loop of user
code; so nothing that user code does delays the loop of the worker.
"""

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from types import FunctionType, MethodType
from typing import Any, TypeVar

from app.concurrency.user_errors import UserCodeFailed
from app.concurrency.user_loop import End, UserCall

__all__ = (
    "ON_CALLERS_LOOP",
    "TookTooLong",
    "UserCodeFailed",
    "call",
    "result_of",
    "run_in_thread",
    "within",
)

Result = TypeVar("Result")

#: Whether user code runs on the loop of its caller. Only simulations set this, because their code
#: is known, and their loop has virtual time and no threads.
ON_CALLERS_LOOP: ContextVar[bool] = ContextVar("ON_CALLERS_LOOP", default=False)


class TookTooLong(Exception):
    """Code did not end in time; a coroutine was cancelled, and a thread goes on."""


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
    """Call a function of a user, sync or async, away from the loop of the caller.

    If a sync function returns an awaitable, the awaitable is awaited on the loop of user code. A
    decorator may have wrapped an async function in such a function.

    Returns:
        The function's result. A cancelled wait ends at once: the async function is cancelled, a
        thread goes on, and the result is dropped. Code that swallows its cancellation delays
        nobody.

    Raises:
        UserCodeFailed: If the function raised any exception, cancelled its own task, or lost its
            loop.
    """
    if ON_CALLERS_LOOP.get():
        return await _result_here(function)
    if _is_async(function):
        return await UserCall(function).result()
    awaitable, result = await run_in_thread(partial(call, partial(_called, function)))
    return await UserCall(lambda: result).result() if awaitable else result


async def within(step: Awaitable[Result], *, timeout_s: float | None = None) -> Result:
    """Await a step, which calls code of users; leave it if it does not end in time.

    Args:
        step: The step, such as ``result_of(function)``.
        timeout_s: Seconds that the step may take; None means no limit.

    Raises:
        TookTooLong: If the step did not end in time.
        Exception: Any error of the step.

    Example:
        output = await within(result_of(partial(kind.run, context)), timeout_s=30)
    """
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            return await step
    except TimeoutError:
        if not deadline.expired():
            raise
        raise TookTooLong from None


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
    future: asyncio.Future[End[Result]] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        end = _end_of(partial(context.run, function))
        # The loop may be closed by now; then no caller waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(end))

    threading.Thread(target=work, name="tool", daemon=True).start()
    return (await future).take()


def _is_async(function: Callable[[], Any]) -> bool:
    """Return whether a function is a plain coroutine function, without running any of its code."""
    given: Any = function
    while type(given) is partial:
        given = given.func
    if type(given) is MethodType:
        given = given.__func__
    return type(given) is FunctionType and bool(given.__code__.co_flags & inspect.CO_COROUTINE)


def _called(function: Callable[[], Any]) -> tuple[bool, Any]:
    """Return whether the result of a function is awaitable, and the result."""
    result = function()
    return inspect.isawaitable(result), result


async def _result_here(function: Callable[[], Any]) -> Any:
    try:
        is_awaitable, result = _called(function)
        return await result if is_awaitable else result
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        raise UserCodeFailed(error) from error


def _end_of(function: Callable[[], Result]) -> End[Result]:
    try:
        return End(result=function())
    except UserCodeFailed as failed:
        return End(error=failed.seal())
    except BaseException as error:  # noqa: BLE001  the caller must learn of every end
        # A coroutine turns a StopIteration into another error.
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            return End(error=error)
        return End(error=UserCodeFailed(error).seal())

"""The event loop of user code: async functions of users never run on the loop of the worker.

All calls of a process share this loop, because clients and sessions that a module of a user keeps
belong to one loop. A call can cancel its own tasks only, and it cannot stop or change the loop. If
a call blocks the loop for too long, the process goes on with a new loop.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import structlog
import uvloop

from app.concurrency.daemon_threads import DaemonThreads
from app.concurrency.loop_thread import LoopThread
from app.concurrency.loop_watch import LoopWatch
from app.concurrency.once import once
from app.concurrency.user_errors import UserCodeFailed

Result = TypeVar("Result")

#: Length of a probe of the loop in seconds, and the number of probes without a sign after which the
#: loop is blocked.
PROBE_S, PROBES = 1.0, 30
#: Seconds that the tasks of a lost loop have to end, if this loop turns again.
LAST_S = 30.0

log = structlog.get_logger(__name__)


class LoopLost(Exception):
    """The loop of user code was blocked or closed while a call was running on it."""


@dataclass(slots=True)
class End(Generic[Result]):
    """The end of a call: its result or its error."""

    result: Result | None = None
    error: Exception | None = None

    def take(self) -> Result:
        """Return the result, which only the caller has from now on, or raise the error."""
        if self.error is not None:
            raise self.error
        result, self.result = self.result, None
        return result  # type: ignore[return-value]  # a call without an error has a result


class _Loop(uvloop.Loop):
    """A loop that user code cannot stop or change."""

    def __init__(self) -> None:
        super().set_task_factory(_new_task)
        super().set_default_executor(DaemonThreads(most=None))

    def stop(self) -> NoReturn:
        _refuse("stop")

    def close(self) -> NoReturn:
        _refuse("close")

    def set_task_factory(self, factory: Any) -> NoReturn:  # noqa: ARG002
        _refuse("set_task_factory")

    def set_exception_handler(self, handler: Any) -> NoReturn:  # noqa: ARG002
        _refuse("set_exception_handler")

    def set_default_executor(self, executor: Any) -> NoReturn:  # noqa: ARG002
        _refuse("set_default_executor")

    def shutdown_default_executor(self, timeout: float | None = None) -> NoReturn:  # noqa: ARG002
        _refuse("shutdown_default_executor")

    def shutdown_asyncgens(self) -> NoReturn:
        _refuse("shutdown_asyncgens")

    def set_debug(self, enabled: bool) -> NoReturn:  # noqa: ARG002
        _refuse("set_debug")


class UserCall(Generic[Result]):
    """One call of user code on the loop of user code, awaited on the loop of its caller.

    The call has a copy of its caller's context, so that its log lines name the agent.

    Args:
        function: Called on the loop; returns what the call awaits.
    """

    def __init__(self, function: Callable[[], Awaitable[Result]]) -> None:
        self._function = function
        self._callers_loop = asyncio.get_running_loop()
        self._end: asyncio.Future[End[Result]] = self._callers_loop.create_future()
        self._context = copy_context()
        self._context.run(_CALL.set, self)
        self.task: _Task | None = None
        self.is_over = False

    async def result(self) -> Result:
        """Wait for the end of the call; if the caller is cancelled, cancel and leave the call.

        Raises:
            UserCodeFailed: If the call raised any exception, or its loop was lost.
        """
        while not _user_loop().add(self):
            pass  # this loop was lost at this moment, so the next one is a new loop
        try:
            end = await self._end
        except BaseException:
            self._leave()
            raise
        return end.take()

    def begin(self, loop: asyncio.AbstractEventLoop) -> "_Task":
        """Start the call on the loop of user code."""
        self.task = _Task(self._run(), loop=loop, context=self._context)
        self.task.add_done_callback(self._ended)
        return self.task

    def end(self, end: End[Result]) -> None:
        """Tell the caller the end of the call, unless it is known; any thread may call this."""
        if self.is_over:
            return
        self.is_over = True
        with contextlib.suppress(RuntimeError):  # the caller's loop is closed: nobody waits
            self._callers_loop.call_soon_threadsafe(self._tell, end)

    def cancel(self) -> None:
        """Cancel the task of the call; only the loop of user code calls this."""
        self.is_over = True
        if self.task is not None:
            self.task.cancel()

    async def _run(self) -> End[Result]:
        try:
            return End(result=await self._function())
        except UserCodeFailed as failed:  # the code has called other user code
            return End(error=failed.seal())
        except BaseException as error:  # noqa: BLE001  a loop cannot carry every exception
            return End(error=UserCodeFailed(error).seal())

    def _ended(self, task: "asyncio.Task[End[Result]]") -> None:
        cancelled = UserCodeFailed(asyncio.CancelledError()) if task.cancelled() else None
        self.end(End(error=cancelled) if cancelled else task.result())

    def _tell(self, end: End[Result]) -> None:
        if not self._end.done():
            self._end.set_result(end)

    def _leave(self) -> None:
        """Cancel the call and wait for nothing, because its code may swallow the cancellation."""
        self.is_over = True
        if self.task is not None:
            with contextlib.suppress(RuntimeError):
                self.task.get_loop().call_soon_threadsafe(self.cancel)


#: The call whose code runs; its tasks and callbacks inherit the value.
_CALL: ContextVar[UserCall[Any] | None] = ContextVar("_CALL", default=None)


class _Task(asyncio.Task[Any]):
    """A task that other calls cannot cancel while its own call runs."""

    call: UserCall[Any] | None = None

    def __init__(
        self,
        step: Coroutine[Any, Any, Any],
        *,
        context: Context | None = None,
        **options: Any,
    ) -> None:
        self.call = _CALL.get() if context is None else context.get(_CALL)
        super().__init__(step, context=context, **options)

    def cancel(self, msg: Any | None = None) -> bool:
        by = _CALL.get()
        if self.call is None or self.call.is_over or by is None or by is self.call:
            return super().cancel(msg)
        return False


class _UserLoop:
    """The loop of user code, its thread, and the calls on it."""

    def __init__(self) -> None:
        self._loop = _Loop()
        self._lock = threading.Lock()
        self._calls: set[UserCall[Any]] = set()
        self._is_lost = False
        self._thread = LoopThread("user code", loop=self._loop, on_death=self._died)
        self._watch = LoopWatch(
            self._loop,
            name="user code watch",
            probe_s=PROBE_S,
            probes=PROBES,
            on_blocked=self._blocked,
        )
        self._watch.start()

    def add(self, call: UserCall[Any]) -> bool:
        """Start a call; return False if the loop is lost."""
        with self._lock:
            if self._is_lost:
                return False
            self._calls.add(call)
        with contextlib.suppress(RuntimeError):  # closed at this moment; the loop's death follows
            self._loop.call_soon_threadsafe(self._begin, call)
        return True

    def _begin(self, call: UserCall[Any]) -> None:
        with self._lock:
            if self._is_lost:
                return
            if call.is_over:
                self._calls.discard(call)
                return
            task = call.begin(self._loop)
        if call.is_over:  # its caller left in this moment, and saw no task
            task.cancel()
        # The loop itself has only weak references to its tasks.
        task.add_done_callback(lambda _: self._calls.discard(call))

    def _blocked(self) -> None:
        current = asyncio.current_task(self._loop)
        culprit = current.call if isinstance(current, _Task) else None
        self._lose("blocked", culprit)

    def _died(self) -> None:
        self._lose("closed", None)

    def _lose(self, what: str, culprit: UserCall[Any] | None) -> None:
        """End all calls, and let the next call make a new loop."""
        with self._lock:
            if self._is_lost:
                return
            self._is_lost = True
            _user_loop.forget()
        self._watch.stop()
        calls = self._calls.copy()
        log.error("user_loop_lost", reason=what, calls=len(calls))
        for call in calls:
            if call.task is None:
                _user_loop().add(call)  # it has not begun, so it moves to the new loop
            else:
                call.end(End(error=UserCodeFailed(_loss(what, call is culprit))))
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._clear, calls)

    def _clear(self, calls: set[UserCall[Any]]) -> None:
        """If the loop turns again, cancel its calls, and end it soon after."""
        for call in calls:
            if call.task is not None and call.task.get_loop() is self._loop:
                call.cancel()
        self._loop.call_later(LAST_S, self._thread.end_soon)


@once(survives_fork=False)
def _user_loop() -> _UserLoop:
    return _UserLoop()


def _new_task(loop: asyncio.AbstractEventLoop, step: Any, **options: Any) -> _Task:
    return _Task(step, loop=loop, **options)


def _loss(what: str, is_culprit: bool) -> LoopLost:
    if is_culprit:
        return LoopLost(
            f"it blocked the event loop of user code for {PROBE_S * PROBES:g} s: "
            "an async function must not block, so write a sync function"
        )
    return LoopLost(f"the event loop of user code was {what} by other code")


def _refuse(method: str) -> NoReturn:
    raise RuntimeError(
        f"loop.{method}() is not for user code, because all async functions share this event loop"
    )

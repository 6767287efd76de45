"""An executor for event loops, whose threads are daemons."""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, TypeVar

Result = TypeVar("Result")

#: A thread without work ends after these seconds.
IDLE_S = 10.0
#: As many threads as the usual executor of a loop has.
USUAL = min(32, (os.cpu_count() or 1) + 4)


class DaemonThreads(Executor):
    """Runs functions in threads, as ``ThreadPoolExecutor`` does, but never stops before its users.

    Python stops every ``ThreadPoolExecutor`` as soon as the main thread has ended. After that, a
    loop with such an executor fails, although other threads of the program still use the loop.
    Python also waits for the threads of these executors, so a function that hangs keeps a process
    from its end.

    Its weakness: a process that ends does not wait for the functions that still run.

    Args:
        most: Largest number of threads; further functions wait. None means no limit, so no function
            waits for another function.

    Example:
        loop.set_default_executor(DaemonThreads(most=8))
    """

    def __init__(self, *, most: int | None = USUAL) -> None:
        self._most = most
        self._given: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._idle = self._count = 0
        self._is_held = False

    def submit(
        self, function: Callable[..., Result], /, *args: Any, **given: Any
    ) -> Future[Result]:
        """Run a function in a thread that has no work, or else in a new thread."""
        future: Future[Result] = Future()
        work = partial(_fulfil, future, partial(function, *args, **given))
        with self._changed:
            self._given.append(work)
            is_taken = len(self._given) <= self._idle
            is_new = not is_taken and (self._most is None or self._count < self._most)
            self._count += is_new
            self._changed.notify_all()
        if is_new:
            self._add_thread(work)
        return future

    def hold(self, timeout_s: float) -> None:
        """Begin no function until ``go_on``, and wait for the functions that run.

        Args:
            timeout_s: Longest wait in seconds.
        """
        with self._changed:
            self._is_held = True
            self._changed.wait_for(lambda: self._count == self._idle, timeout_s)

    def go_on(self) -> None:
        """Begin functions again."""
        with self._changed:
            self._is_held = False
            self._changed.notify_all()

    def _add_thread(self, work: Callable[[], None]) -> None:
        try:
            threading.Thread(target=self._work, name="executor", daemon=True).start()
        except BaseException:
            with self._changed:
                self._count -= 1
                if work in self._given:
                    self._given.remove(work)
            raise

    def _work(self) -> None:
        while (work := self._next()) is not None:
            work()
            del work  # the function and its values end here, and not with the next function

    def _next(self) -> Callable[[], None] | None:
        """Wait for a function; return None if the thread is to end."""
        with self._changed:
            self._idle += 1
            self._changed.notify_all()  # ``hold`` may wait for this thread
            is_given = self._changed.wait_for(self._may_begin, timeout=IDLE_S)
            self._idle -= 1
            if is_given:
                return self._given.popleft()
            self._count -= 1
            return None

    def _may_begin(self) -> bool:
        return bool(self._given) and not self._is_held


def _fulfil(future: Future[Result], function: Callable[[], Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001  the code that waits gets every exception
        future.set_exception(error)

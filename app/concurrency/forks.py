"""Forks of a process whose loops are at work.

A child that is forked has only the thread that has called ``fork``. A lock that another thread held
at this moment stays locked in the child for good, and the libraries of a client have many locks.
Therefore a fork waits until the loops of clients stand still.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from weakref import WeakSet

import uvloop

from app.concurrency.daemon_threads import DaemonThreads

#: Longest times in seconds for which a fork waits for a loop, and for the threads of the loop.
LOOP_S, THREADS_S = 1.0, 2.0


class StandingLoop(uvloop.Loop):
    """A loop that stands still during forks.

    Its weakness: a loop or a thread that is at work for seconds is not waited for, and may hold a
    lock during the fork.
    """

    def __init__(self) -> None:
        super().__init__()
        self._threads = DaemonThreads()
        self.set_default_executor(self._threads)
        _LOOPS.add(self)

    def stand_still(self) -> Callable[[], None]:
        """Wait until the loop and its threads stand still; return what lets them go on."""
        is_over, stands = threading.Event(), threading.Event()

        def stand() -> None:
            stands.set()
            is_over.wait()

        def go_on() -> None:
            is_over.set()
            self._threads.go_on()

        try:
            self.call_soon_threadsafe(stand)
        except RuntimeError:  # the loop is closed
            return is_over.set
        stands.wait(LOOP_S)
        self._threads.hold(THREADS_S)
        return go_on


_LOOPS: "WeakSet[StandingLoop]" = WeakSet()
_lock = threading.Lock()
_standing: list[Callable[[], None]] = []


def _before_fork() -> None:
    _lock.acquire()
    _standing.extend(loop.stand_still() for loop in list(_LOOPS) if _runs_elsewhere(loop))


def _after_fork() -> None:
    while _standing:
        _standing.pop()()
    _lock.release()


def _begin_in_child() -> None:
    _standing.clear()
    _LOOPS.clear()  # their threads belong to the parent
    _lock.release()


def _runs_elsewhere(loop: StandingLoop) -> bool:
    """Return whether another thread than this one runs the loop."""
    try:
        return loop.is_running() and asyncio.get_running_loop() is not loop
    except RuntimeError:  # this thread runs no loop
        return loop.is_running()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_begin_in_child
)

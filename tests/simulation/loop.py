"""An event loop of many simulated processes: time jumps to the next timer, a seed orders the steps.

One callback runs at a time. Which process runs next is drawn; within a process the order is that
of asyncio, because programs may rely on it. A process can freeze (its callbacks wait) and die (they
are dropped, without any clean-up, as a kill drops them).
"""

import asyncio
import heapq
import random
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any

#: 2026-01-01 00:00 UTC, when every simulation begins.
EPOCH_S = 1_767_225_600.0
#: A simulation that takes more steps than this goes round in circles.
MAX_STEPS = 2_000_000
CLOSE_TRIES = 20


class Stalled(Exception):
    """Nothing can happen any more, or too much has happened."""


class Process:
    """A simulated process: what belongs to it lives and dies together.

    Args:
        name: Shown in the trace.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.thawed_at_s = 0.0
        self.ready: deque[asyncio.Handle] = deque()

    def __repr__(self) -> str:
        return self.name


#: The simulated process whose code runs; None is the world around.
CURRENT: ContextVar[Process | None] = ContextVar("CURRENT", default=None)


class _Ready:
    """Callbacks to run, in one queue per process; in place of the loop's own queue."""

    def __init__(self, generator: random.Random) -> None:
        self._generator = generator
        self._world = Process("world")
        self._processes = [self._world]

    def append(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(CURRENT) or self._world  # type: ignore[attr-defined]
        if process.alive:
            if process not in self._processes:
                self._processes.append(process)
            process.ready.append(handle)

    def take(self) -> asyncio.Handle | None:
        """Take the next callback of a process that is drawn; None if no process can run."""
        able = [p for p in self._processes if p.ready and p.alive and not p.frozen]
        if not able:
            return None
        process = able[0] if len(able) == 1 else self._generator.choice(able)
        return process.ready.popleft()

    def forget(self, process: Process) -> None:
        process.ready.clear()
        if process in self._processes:
            self._processes.remove(process)

    def clear(self) -> None:
        for process in self._processes:
            process.ready.clear()


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module.

    Args:
        generator: Draws the process that runs next.
        on_jump: Called with the new time, in seconds since the epoch, whenever it moves.
    """

    def __init__(self, generator: random.Random, on_jump: Callable[[float], None]) -> None:
        super().__init__()
        self._now_s = 0.0
        self._on_jump = on_jump
        self._ready: Any = _Ready(generator)
        self._scheduled: list[asyncio.TimerHandle]
        self._timer_cancelled_count = 0
        self._steps = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._make_task)
        on_jump(EPOCH_S)

    def time(self) -> float:
        """Return the seconds since the simulation began."""
        return self._now_s

    def wall_clock(self) -> float:
        """Return the seconds since the epoch."""
        return EPOCH_S + self._now_s

    def spawn(self, process: Process, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Run a coroutine in a process."""
        context = copy_context()
        context.run(CURRENT.set, process)
        task = self.create_task(work, name=name, context=context)
        assert not task.done(), "the list of tasks keeps it, and its error is reported at the end"

    def at(self, delay_s: float, step: Callable[[], object]) -> None:
        """Take a step of the world around after so many seconds."""
        context = copy_context()
        context.run(CURRENT.set, None)
        self.call_later(delay_s, step, context=context)

    def kill(self, process: Process) -> None:
        """End a process where it stands."""
        process.alive = False
        self._ready.forget(process)

    def crashed(self) -> Iterator[tuple[str, BaseException]]:
        """Yield the names and errors of failed tasks whose error was not retrieved."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task._log_traceback:
                error = task.exception()
                assert error is not None
                yield task.get_name(), error

    def dispose(self) -> None:
        """Drop the tasks that never ended, without running any more of them."""
        self.set_exception_handler(lambda *_: None)
        with silence():
            self._abandon_tasks()
            self.close()

    def _abandon_tasks(self) -> None:
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            if task.done():
                continue
            coroutine: Any = task.get_coro()
            for _ in range(CLOSE_TRIES):
                with suppress(BaseException):
                    coroutine.close()
                    break
        self._tasks.clear()

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        self._tasks.append(task)
        return task

    def _run_once(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise Stalled(f"{MAX_STEPS} steps and no end, at {self._now_s:.3f} s")
        self._move_due_timers()
        handle = self._ready.take()
        while handle is None:
            if not self._scheduled:
                raise Stalled(f"nothing can happen any more, at {self._now_s:.3f} s")
            self._jump(self._scheduled[0].when())
            self._move_due_timers()
            handle = self._ready.take()
        if not handle.cancelled():
            handle._run()

    def _jump(self, when_s: float) -> None:
        if when_s > self._now_s:
            self._now_s = when_s
            self._on_jump(self.wall_clock())

    def _move_due_timers(self) -> None:
        while self._scheduled and (
            self._scheduled[0].cancelled() or self._scheduled[0].when() <= self._now_s
        ):
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            if timer.cancelled():
                self._timer_cancelled_count -= 1
            else:
                self._ready.append(timer)

    # What follows is called by asyncio, and is about sockets and threads, of which there are none.

    def _write_to_self(self) -> None:
        """Wake the selector; there is none."""

    def _process_events(self, event_list: list[Any]) -> None:
        """Handle what the selector found; there is none."""


@contextmanager
def silence() -> Iterator[None]:
    """Ignore the warnings when coroutines of dead processes are dropped."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            sys.unraisablehook = hook


@contextmanager
def virtual_time(loop: VirtualLoop) -> Iterator[None]:
    """Let ``time.time`` and ``time.monotonic`` follow the loop: the limiter's bucket reads them."""
    real = time.time, time.monotonic
    time.time, time.monotonic = loop.wall_clock, loop.time
    try:
        yield
    finally:
        time.time, time.monotonic = real

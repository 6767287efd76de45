"""An event loop of many simulated processes: time jumps to the next timer, a seed orders the steps.

Only one callback runs at any moment. The seed draws the process that runs next. Within a process,
callbacks run in asyncio's order, because programs may rely on this order. If a process freezes, its
callbacks wait. If a process dies, its callbacks are dropped without any clean-up, as after a kill.
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
#: A simulation that takes more steps than this number will never end.
MAX_STEPS = 2_000_000
CLOSE_TRIES = 20


class Stalled(Exception):
    """No step is left, or too many steps have happened."""


class Process:
    """A simulated process: everything that belongs to the process dies with the process.

    Args:
        name: The name that the trace shows.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.thawed_at_s = 0.0
        self.ready: deque[asyncio.Handle] = deque()

    def __repr__(self) -> str:
        return self.name


#: The simulated process whose code runs; None if the world around the processes runs.
CURRENT: ContextVar[Process | None] = ContextVar("CURRENT", default=None)


class _Ready:
    """The callbacks that will run, in one queue per process; this replaces the loop's own queue."""

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
        """Draw a process and take its next callback; return None if no process can run."""
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
    """The loop that the module describes.

    Args:
        generator: Draws the process that runs next.
        on_jump: Gets the new time, in seconds since the epoch, whenever the time changes.
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
        """Take a step of the world around the processes after ``delay_s`` seconds."""
        context = copy_context()
        context.run(CURRENT.set, None)
        self.call_later(delay_s, step, context=context)

    def kill(self, process: Process) -> None:
        """End a process at once, in the middle of its work."""
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
        """Drop the tasks that never ended; none of their code runs any more."""
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

    # asyncio calls the next two methods for sockets and threads; a simulation has neither.

    def _write_to_self(self) -> None:
        """Do nothing, because the loop has no selector to wake."""

    def _process_events(self, event_list: list[Any]) -> None:
        """Do nothing, because the loop has no selector."""


@contextmanager
def silence() -> Iterator[None]:
    """Ignore the warnings about dropped coroutines of dead processes."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            sys.unraisablehook = hook


@contextmanager
def virtual_time(loop: VirtualLoop) -> Iterator[None]:
    """Let ``time.time`` and ``time.monotonic``, which the limiter reads, follow the loop."""
    real = time.time, time.monotonic
    time.time, time.monotonic = loop.wall_clock, loop.time
    try:
        yield
    finally:
        time.time, time.monotonic = real

"""Watches from a thread whether an event loop still turns."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from app.concurrency.error_texts import described

#: A probe that took this many times its length was itself late, so it says nothing.
LATE = 2.0

log = structlog.get_logger(__name__)


class LoopWatch:
    """Calls a function once, when a loop has not turned during a number of probes in a row.

    A probe asks the loop for a sign, and waits. If the whole process stood still meanwhile, because
    it was stopped, its machine slept, or other processes took all the CPU time, then the watch
    itself is late, and counts from the start. Therefore only a loop that is blocked in a process
    that goes on is found. A probe that fails is a probe without a sign.

    Its weakness: while C code keeps Python's interpreter lock, the watch stands still, too.

    Args:
        loop: The loop.
        name: Name of the thread.
        probe_s: Length of a probe in seconds.
        probes: Number of probes without a sign after which the loop is blocked.
        on_blocked: Called in the thread of the watch; the watch ends after this call.
        on_probe: Called before each probe.
        check: Awaited on the loop in each probe, for example to see that threads can be started. If
            it fails, the probe gets no sign.

    Example:
        watch = LoopWatch(loop, name="loop watch", probe_s=10.0, probes=9, on_blocked=end_process)
        watch.start()
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        name: str,
        probe_s: float,
        probes: int,
        on_blocked: Callable[[], None],
        on_probe: Callable[[], None] = lambda: None,
        check: Callable[[], Coroutine[Any, Any, object]] | None = None,
    ) -> None:
        self._loop = loop
        self._probe_s = probe_s
        self._probes = probes
        self._on_blocked = on_blocked
        self._on_probe = on_probe
        self._check = check
        self._checking: asyncio.Task[None] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting."""
        self._stopped.set()

    def _run(self) -> None:
        missed = 0
        while not self._stopped.is_set():
            try:
                missed = self._missed(missed)
            except BaseException:  # noqa: BLE001  code of a user can raise it in any thread
                missed += 1
            if missed >= self._probes:
                self._on_blocked()
                return

    def _missed(self, before: int) -> int:
        """Make a probe, and return the number of probes in a row that got no sign."""
        self._on_probe()
        sign = threading.Event()
        with contextlib.suppress(RuntimeError):  # a closed loop gives no sign
            self._loop.call_soon_threadsafe(self._answer, sign)
        started_s = time.monotonic()
        if self._stopped.wait(self._probe_s) or sign.is_set():
            return 0
        is_late = time.monotonic() - started_s > LATE * self._probe_s
        return 0 if is_late else before + 1

    def _answer(self, sign: threading.Event) -> None:
        if self._check is None:
            sign.set()
        else:
            self._checking = asyncio.ensure_future(self._answer_after(self._check, sign))

    async def _answer_after(
        self, check: Callable[[], Coroutine[Any, Any, object]], sign: threading.Event
    ) -> None:
        try:
            await check()
        except BaseException as error:  # noqa: BLE001  code of a user can raise it in any thread
            log.warning("check_failed", error=described(error))
        else:
            sign.set()

"""The timer of a bucket's exchanges: one exchange at a time, at the earliest requested time."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from app.telemetry.logging import of_nobody


class ExchangeTimer:
    """Runs one exchange at a time.

    Args:
        exchange: Makes one exchange, and never raises.
        name: Name of the tasks that run the exchanges.
    """

    def __init__(self, exchange: Callable[[], Awaitable[None]], *, name: str) -> None:
        self._exchange = exchange
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._next_s = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._task is not None

    def run_in(self, delay_s: float) -> None:
        """Make an exchange within this time, but not before the present exchange has ended."""
        when_s = time.monotonic() + delay_s
        if when_s >= self._next_s:
            return
        self._next_s = when_s
        if self._task is None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(delay_s, self._start)

    async def run_now(self) -> None:
        """Wait for the exchange that is under way, or make an exchange and wait for it."""
        if self._task is None:
            self._start()
        assert self._task is not None
        await asyncio.wait([self._task])

    def stop(self) -> None:
        """Stop all exchanges, also an exchange that is under way."""
        self._next_s = -math.inf
        for handle in (self._timer, self._task):
            if handle is not None:
                handle.cancel()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._next_s = None, math.inf
        self._task = asyncio.create_task(self._run(), name=self._name, context=of_nobody())

    async def _run(self) -> None:
        try:
            await self._exchange()
        finally:
            self._task = None
        if -math.inf < self._next_s < math.inf:
            delay_s = max(self._next_s - time.monotonic(), 0.0)
            self._timer = self._loop.call_later(delay_s, self._start)

"""The time that an attempt may spend on calls, and the calls that the attempt has made."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager


class CallClock:
    """Counts down an agent's timeout during calls and tools, but not during waits.

    Its weakness: the clock only counts the time. If a call takes longer than the time that is left,
    the caller has to stop the call with ``asyncio.timeout(clock.left_s)``.

    Args:
        timeout_s: Seconds that the agent may spend on calls and tools.
        long_wait_s: Longest time in seconds that an attempt waits before its first call. If the
            attempt would wait longer, the agent is handed back for a later attempt.

    Attributes:
        left_s: Seconds that the agent may still spend on calls and tools.
        calls: Number of calls that the attempt has begun.
        begun: Whether the attempt has made a call whose result is not stored yet. Another attempt
            could not use this result.
        first_token_s: Seconds to the first token of the first streamed answer; None before a
            streamed answer.

    Example:
        clock = CallClock(30.0)
        with clock.running():
            async with asyncio.timeout(clock.left_s):
                ...
    """

    def __init__(self, timeout_s: float, *, long_wait_s: float = math.inf) -> None:
        self._long_wait_s = long_wait_s
        self.left_s = timeout_s
        self.calls = 0
        self.begun = False
        self.first_token_s: float | None = None

    @property
    def max_wait_s(self) -> float:
        """The longest wait in seconds before the agent is handed back; infinite if ``begun``."""
        return math.inf if self.begun else self._long_wait_s

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time inside the block."""
        since_s = time.monotonic()
        try:
            yield
        finally:
            self.left_s = max(self.left_s - (time.monotonic() - since_s), 0.0)

    def begin_call(self) -> None:
        """Count a call that begins.

        Until ``stored`` is called, no other attempt can go on from here.
        """
        self.calls += 1
        self.begun = True

    def stored(self) -> None:
        """Note that all calls so far are stored, so that another attempt can go on from here."""
        self.begun = False

    def first_token(self, seconds: float | None) -> None:
        """Note the seconds to the first token of an answer; only the first answer counts."""
        if self.first_token_s is None:
            self.first_token_s = seconds

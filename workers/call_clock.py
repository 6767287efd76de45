"""The time that an attempt has for calling, and how far it has got with it."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager


class CallClock:
    """Counts down an agent's timeout while it calls or runs tools; waiting does not count.

    Args:
        timeout_s: Seconds of calling that the agent has.
        long_wait_s: A wait that is known to be longer ends an attempt that another one can take up.

    Attributes:
        left_s: Seconds that are left.
        calls: Calls begun.
        begun: Whether a call has been made that no other attempt could go on from.
        first_token_s: Seconds to the first token of the first streamed answer, or None.
    """

    def __init__(self, timeout_s: float, *, long_wait_s: float = math.inf) -> None:
        self._long_wait_s = long_wait_s
        self.left_s = timeout_s
        self.calls = 0
        self.begun = False
        self.first_token_s: float | None = None

    @property
    def max_wait_s(self) -> float:
        """The longest wait that is worth it, once it is known; after a call that is any."""
        return math.inf if self.begun else self._long_wait_s

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time inside."""
        since_s = time.monotonic()
        try:
            yield
        finally:
            self.left_s = max(self.left_s - (time.monotonic() - since_s), 0.0)

    def begin_call(self) -> None:
        """Count a call: from now on nobody can take up the attempt until ``stored``."""
        self.calls += 1
        self.begun = True

    def stored(self) -> None:
        """Say that all calls so far are stored: another attempt can go on from here."""
        self.begun = False

    def first_token(self, seconds: float | None) -> None:
        """Note when the first token of a streamed answer came; only the first one is kept."""
        if self.first_token_s is None:
            self.first_token_s = seconds

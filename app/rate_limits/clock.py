"""The backend's clock as this process sees it: an offset, kept right by every exchange.

Local times are ``time.monotonic()``: an event loop's own time may be rounded and old (uvloop's is).
"""

import time


class BackendClock:
    """Translates between the backend's clock and the local one.

    An exchange shows that the backend's time lay between sending and receiving; the estimate moves
    just as far as it must to fit in (Cristian, 1989). Slow answers therefore do no harm, and a
    clock that is set anew is followed at once.
    """

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()
        self._known = False

    def observe(self, *, sent_s: float, received_s: float, backend_s: float) -> None:
        """Take an exchange into account."""
        least, most = backend_s - received_s, backend_s - sent_s
        if self._known:
            self._offset_s = min(max(self._offset_s, least), most)
        else:
            self._offset_s = (least + most) / 2
            self._known = True

    def backend_time_s(self) -> float:
        """Return the backend's time now."""
        return time.monotonic() + self._offset_s

    def to_local_s(self, backend_s: float) -> float:
        """Translate a backend's time to the local clock."""
        return backend_s - self._offset_s

"""This process's estimate of the backend's clock: an offset that every exchange corrects.

``time.monotonic()`` gives the local times, because the time of an event loop may be rounded and
old, for example in uvloop.
"""

import time


class BackendClock:
    """Translates between the backend's clock and the local clock.

    The backend reads its clock between the sending of a message and the arrival of the reply. The
    estimate changes only as far as this fact requires (Cristian, 1989). Slow replies therefore do
    no harm. The estimate follows at once if the backend's clock is set to another time.
    """

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()
        self._known = False

    def observe(self, *, sent_s: float, received_s: float, backend_s: float) -> None:
        """Correct the estimate with the times of an exchange."""
        least, most = backend_s - received_s, backend_s - sent_s
        if self._known:
            self._offset_s = min(max(self._offset_s, least), most)
        else:
            self._offset_s = (least + most) / 2
            self._known = True

    def backend_time_s(self) -> float:
        """Return the present time of the backend's clock."""
        return time.monotonic() + self._offset_s

    def to_local_s(self, backend_s: float) -> float:
        """Translate a time of the backend's clock to the local clock."""
        return backend_s - self._offset_s

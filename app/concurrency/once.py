"""Objects that a process makes at their first use, and makes only once."""

import ctypes
import os
import threading
from collections.abc import Callable
from functools import update_wrapper
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Once(Generic[Made]):
    """A function without arguments that makes its object at the first call.

    All later calls return the same object. If several threads make the first call at the same time,
    one thread makes the object, and the other threads wait for it. ``functools.lru_cache`` would
    make an object for each of these threads. If the function raises an error, the caller gets the
    error, and the next call tries again.

    Its weakness: the function must not need this object itself, neither directly nor in a thread
    for which it waits. Otherwise the first call never returns.

    Args:
        make: The function.
        survives_fork: Whether a forked child uses the object of its parent. If not, the child makes
            an object of its own, and never closes the object of its parent.
    """

    def __init__(self, make: Callable[[], Made], *, survives_fork: bool) -> None:
        update_wrapper(self, make)
        self._make = make
        self._survives_fork = survives_fork
        self._lock = threading.Lock()
        self._made: tuple[Made] | None = None
        os.register_at_fork(after_in_child=self._begin_in_child)

    def __call__(self) -> Made:
        """Return the object; make it if it is not made yet."""
        if (made := self._made) is None:
            with self._lock:
                if (made := self._made) is None:
                    made = self._made = (self._make(),)
        return made[0]

    def forget(self) -> Made | None:
        """Return the object, if there is one; the next call makes a new object."""
        with self._lock:
            made, self._made = self._made, None
        return None if made is None else made[0]

    def _begin_in_child(self) -> None:
        # Another thread of the parent may have held the lock during the fork.
        self._lock = threading.Lock()
        if not self._survives_fork and self._made is not None:
            # The connections and tasks of this object belong to the parent. The child must not even
            # destroy them. Python destroys every object to which no reference is left, at the
            # latest when the child ends, so this reference is never dropped.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._made))
            self._made = None


def once(*, survives_fork: bool) -> Callable[[Callable[[], Made]], Once[Made]]:
    """Decorate a function so that it makes its object once per process; see ``Once``.

    Example:
        @once(survives_fork=True)
        def connected_settings() -> Settings:
            return load_settings()
    """
    return lambda make: Once(make, survives_fork=survives_fork)

"""Values of users' code that have too many parts to be written, or have no end."""

from collections.abc import Iterator
from typing import Any


class TooManyParts(ValueError):
    """A value has more parts than may be written."""


class Finite:
    """Makes a value finite before pydantic writes the value as JSON.

    pydantic writes a value in one step, which nothing can stop, and which lets no other thread run.
    It writes an iterator as a list, and writes a part as often as the part is named. So an iterator
    without an end, or a short value with doubled parts, would block the process and use up its
    memory.

    Args:
        most: Largest number of parts; each part has at least one byte as JSON.

    Example:
        to_json(Finite(most=1_000_000).value(itertools.count()))  # raises an error
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._left = most
        self._around: set[int] = set()

    @property
    def is_exceeded(self) -> bool:
        """Whether the value had too many parts."""
        return self._left < 0

    def value(self, value: Any) -> Any:
        """Return the value, with iterators that raise ``TooManyParts`` instead of going on.

        Raises:
            TooManyParts: If the lists, tuples and dicts of the value have too many parts.
        """
        self._left -= 1
        if self._left < 0:
            raise TooManyParts(f"it has more than {self._most:,} parts")
        kind = type(value)
        if kind in (list, tuple, dict):
            return self._container(value, kind)
        return self._items(value) if isinstance(value, Iterator) else value

    def _container(self, value: Any, kind: type) -> Any:
        if id(value) in self._around:
            return value  # pydantic refuses a value that contains itself
        self._around.add(id(value))
        try:
            if kind is dict:
                return {key: self.value(part) for key, part in value.items()}
            return [self.value(part) for part in value]
        except RecursionError:
            return value  # pydantic refuses a value that is nested so deeply
        finally:
            self._around.discard(id(value))

    def _items(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            yield self.value(item)

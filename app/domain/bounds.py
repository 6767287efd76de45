"""The numbers that a workflow's field or a setting accepts, and messages about wrong numbers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.domain.suggestions import shortened
from app.errors import ConfigurationError

YEAR_S = 366 * 24 * 3600
MAX_DOLLARS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """A range of numbers; it never contains NaN, infinities, booleans or strings.

    Attributes:
        low: Smallest accepted number.
        high: Largest accepted number; None means that there is no upper bound.
        whole: Whether only integers are accepted.
        positive: Whether ``low`` itself is refused.
        optional: Whether None is accepted.
    """

    low: float = 0
    high: float | None = None
    whole: bool = False
    positive: bool = False
    optional: bool = False

    def problem(self, value: Any) -> str | None:
        """Return a value's problem, such as ``is 11: give a number from 1 to 10``, or None."""
        if value is None and self.optional:
            return None
        accepted = int if self.whole else int | float
        if isinstance(value, bool) or not isinstance(value, accepted):
            return f"is {shortened(value)} ({type(value).__name__}): give {self}"
        return None if self._holds(value) else f"is {shortened(value)}: give {self}"

    def _holds(self, value: float) -> bool:
        high = math.inf if self.high is None else self.high
        low_enough = self.low < value if self.positive else self.low <= value
        return low_enough and value <= high and value != math.inf

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.positive:
            text = f"{kind} above {self.low:,}"
            text += "" if self.high is None else f" and up to {self.high:,}"
        elif self.high is None:
            text = f"{kind} of at least {self.low:,}"
        else:
            text = f"{kind} from {self.low:,} to {self.high:,}"
        return f"{text}, or none at all" if self.optional else text


def find_problem(values: Mapping[str, Any], bounds: Mapping[str, Bounds]) -> tuple[str, str] | None:
    """Find the first value that is out of its bounds.

    Args:
        values: Values by name.
        bounds: The range of each value, by the same names.

    Returns:
        Name and problem, such as ``("priority", "is 11: give a whole number from 1 to 10")``; None
        if every value is inside its bounds.
    """
    for name, bound in bounds.items():
        if problem := bound.problem(values[name]):
            return name, problem
    return None


def check_bounds(values: Mapping[str, Any], bounds: Mapping[str, Bounds], *, of: str = "") -> None:
    """Refuse settings if one setting is out of its bounds.

    Args:
        values: Values by name.
        bounds: The range of each value, by the same names.
        of: Words before the name in the message; these words end with a blank.

    Raises:
        ConfigurationError: If a value is out of its bounds; the message has the name and the
            problem of the first such value.
    """
    if found := find_problem(values, bounds):
        raise ConfigurationError(of + " ".join(found))

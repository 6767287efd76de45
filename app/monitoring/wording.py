"""Dollars, durations and names as parts of sentences."""

from collections.abc import Sequence
from decimal import Decimal


def money(amount: Decimal) -> str:
    """Write dollars in a sentence."""
    return f"${amount:,.6f}".rstrip("0").rstrip(".") if amount else "$0"


def seconds_of(seconds: float) -> str:
    """Write a duration in a sentence: ``1.2 s``, ``3 min``, ``5.1 h``."""
    if seconds < 100:  # noqa: PLR2004  until minutes read better
        return f"{seconds:.1f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def names(all_names: Sequence[str], most: int = 5) -> str:
    """Write names in a sentence; if there are many names, write only the beginning of the list."""
    unique = list(dict.fromkeys(all_names))
    shown = ", ".join(unique[:most])
    return shown if len(unique) <= most else f"{shown} and {len(unique) - most} more"

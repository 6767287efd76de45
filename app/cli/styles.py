"""The colours of the command line, which can be read on a dark and on a light background.

The sixteen colours that a terminal may define itself are not used, because yellow and cyan are
nearly invisible on white in many terminals. The colours here are fixed, and each has a contrast of
at least 3.5 to black and to white. No fact is told by a colour alone.
"""

from typing import Any

from rich.text import Text

from app.domain.plain_text import shown

GREEN = "color(28)"
CYAN = "color(31)"
AMBER = "color(130)"
RED = "color(160)"
MAGENTA = "color(164)"
DIM = "dim"
#: A state of a run, an agent, a check or a circuit -> style.
STYLES = {
    "completed": GREEN,
    "ok": GREEN,
    "running": CYAN,
    "partially_completed": AMBER,
    "partial": AMBER,
    "warn": AMBER,
    "skipped": DIM,
    "cancelled": MAGENTA,
    "failed": RED,
    "fail": RED,
    "rate_limited": RED,
    "budget_exceeded": RED,
    "pending": DIM,
    "waiting": CYAN,
    "paused": AMBER,
}


def styled(text: str, style: str = "", **options: Any) -> Text:
    """Return a text with a style; what cannot be seen in the text becomes visible.

    Args:
        text: The text.
        style: A style of Rich.
        options: Further arguments of ``Text``.
    """
    return Text(shown(text), style=style, **options)

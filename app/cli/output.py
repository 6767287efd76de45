"""What commands print: JSON for programs, tables for people, plain text where nobody looks."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Into a pipe or a file nothing is cut or wrapped, however long the line.
UNLIMITED_WIDTH = 100_000
STYLES = {
    "completed": "green",
    "ok": "green",
    "running": "cyan",
    "partially_completed": "yellow",
    "warn": "yellow",
    "skipped": "dim",
    "cancelled": "magenta",
    "failed": "red",
    "fail": "red",
    "rate_limited": "red",
    "budget_exceeded": "red",
    "pending": "dim",
    "waiting": "cyan",
    "paused": "yellow",
}


def console(*, stderr: bool = False) -> Console:
    """A console that is plain unless it is a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else UNLIMITED_WIDTH
    return Console(file=stream, width=width, highlight=False, soft_wrap=not stream.isatty())


def print_json(value: Any) -> None:
    """Print a value as JSON: times in ISO 8601, money as text so that no digit is lost."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=plain)
    sys.stdout.write(f"{text}\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> Table:
    """A table whose numbers stand on the right.

    Args:
        columns: Headings; one that ends in ``>`` is aligned to the right.
        rows: Cells; the words for states get their colours.
        title: Heading of the whole.
    """
    box = SIMPLE_HEAD if sys.stdout.isatty() else None
    made = Table(title=title or None, title_justify="left", box=box, pad_edge=False)
    for heading in columns:
        right = heading.endswith(">")
        made.add_column(
            heading.rstrip(">"),
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*(Text(str(cell), style=STYLES.get(str(cell), "")) for cell in row))
    return made


def dollars(amount: Decimal, *, places: int = 6, signed: bool = False) -> str:
    """Return money as people read it.

    Args:
        amount: US dollars.
        places: Decimals; what is less is rounded.
        signed: Whether what is not negative gets a plus sign.
    """
    sign = "-" if amount < 0 else "+" if signed else ""
    return f"{sign}${abs(amount):,.{places}f}"


def moment(at: datetime | None) -> str:
    """A time for people, in UTC."""
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""


def seconds(start: datetime | None, end: datetime | None) -> str:
    """How long something took, or nothing if it has not ended."""
    return f"{(end - start).total_seconds():.1f} s" if start and end else ""


def shorten(text: str, width: int) -> str:
    """A text on one line of at most so many characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else f"{flat[: width - 1]}…"


def printable(text: str) -> str:
    """A text without what would steer the terminal."""
    return "".join(each if each.isprintable() else " " for each in text)


def reason(error: str | None, width: int) -> str:
    """An error on one line: cut on a terminal, and whole where no line is cut."""
    flat = " ".join((error or "").split())
    return shorten(flat, width) if console().is_terminal else flat


def plain(value: Any) -> Any:
    """JSON of what has no JSON form of its own, for ``default`` of ``json.dumps``."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, UUID):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{value!r} has no JSON form")

"""The output of commands: JSON for programs, tables on a terminal, plain text elsewhere."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from decimal import Decimal
from json import dumps
from typing import Any
from uuid import UUID

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from app.cli.messages import tell
from app.cli.wrapping import UNLIMITED_WIDTH, shorten
from app.domain.plain_text import json_shown, shown, shown_line


class PlainConsole(Console):
    """A console in whose texts no character controls the terminal, and no words are markup.

    Rich drops some control characters of a text. Therefore they become visible before Rich reads
    the text: here if the text is a string, and in ``styled`` if it is a ``Text``.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as it is: words such as ``[red]`` and ``:smile:`` stay words."""
        return super().render_str(shown(text), **options | {"markup": False, "emoji": False})

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Make control characters visible; Rich itself marks its own control codes."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text))


def console(*, stderr: bool = False, wide: bool = False) -> Console:
    """Return a console that prints plain text unless the stream is a terminal.

    Args:
        stderr: Whether to print on standard error.
        wide: Whether lines may be longer than the terminal is wide.
    """
    stream = sys.stderr if stderr else sys.stdout
    unlimited = wide or not stream.isatty()
    width = UNLIMITED_WIDTH if unlimited else None
    return PlainConsole(file=stream, width=width, highlight=False, soft_wrap=unlimited)


def print_json(value: Any) -> None:
    """Print a value as JSON; times are in ISO 8601, and money is a string with all its digits."""
    tell(json_text(value, indent=2))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON in which no character controls a terminal."""
    return json_shown(dumps(value, indent=indent, ensure_ascii=False, default=plain))


def answer(facts: Any, view: RenderableType, *, json: bool, wide: bool = False) -> None:
    """Print the answer of a command, either as JSON or in a form for people.

    Args:
        facts: The facts.
        view: The form for people: a string or a table.
        json: Whether to print the facts.
        wide: Whether to show all columns of a table, also beyond the terminal's width.
    """
    if json:
        print_json(facts)
    elif isinstance(view, str):
        tell(view)
    else:
        console(wide=wide).print(view)


def moment(at: datetime | None) -> str:
    """Return a time as text for people, in UTC."""
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""


def seconds(start: datetime | None, end: datetime | None) -> str:
    """Return a duration as text; the text is empty if the start or the end is None."""
    return f"{(end - start).total_seconds():.1f} s" if start and end else ""


def reason(error: str | None, width: int) -> str:
    """Return an error as one line; shorten the line only on a terminal."""
    flat = shown_line(error or "")
    return shorten(flat, width) if console().is_terminal else flat


def plain(value: Any) -> Any:
    """Convert a value that JSON cannot express; this is the ``default`` of ``json.dumps``."""
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

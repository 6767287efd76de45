"""Texts in lines of a given width: words stay whole, and further lines are indented."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.text import Text

from app.cli.styles import styled
from app.domain.plain_text import shown_line

#: Lines in a pipe or a file are never cut or wrapped.
UNLIMITED_WIDTH = 100_000
#: Places inside a long word at which a line may end: first the parts of a path, then other marks.
_PATHS, _JOINTS = re.compile(r"(?<=/)"), re.compile(r"(?<=[_\-.,:;=|\])])")
#: Blanks between a label and its text.
GAP = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Labels and texts, one below the other; further lines of a text begin below its first line.

    Attributes:
        rows: Labels and texts; a text without a label continues the subject above.
        margin: Number of characters before the texts.
    """

    rows: tuple[tuple[str, str], ...]
    margin: int

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield the lines."""
        margin = self.margin
        for label, text in self.rows:
            head = label + " " * (margin - cell_len(label))
            for line in wrapped(text, max(options.max_width - margin, 1)):
                yield styled(head + line)
                head = " " * margin


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A text behind a mark; further lines of the text begin below its first line.

    Attributes:
        text: The text, in one line.
        mark: The characters before the first line.
        most: Most characters of the text if the room is limited; 0 means that it is never cut.
        style: Style of the whole.
    """

    text: str
    mark: str = "  "
    most: int = 0
    style: str = ""

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield the lines."""
        limited = options.max_width < UNLIMITED_WIDTH
        text = shorten(self.text, self.most) if self.most and limited else self.text
        margin = cell_len(self.mark)
        for place, line in enumerate(wrapped(text, max(options.max_width - margin, 1))):
            yield styled((" " * margin if place else self.mark) + line, self.style)


def item(text: str, mark: str = "  ", *, most: int = 0, style: str = "") -> Item:
    """Return a text behind a mark; further lines of the text begin below its first line."""
    return Item(text=shown_line(text), mark=mark, most=most, style=style)


def facts(rows: Sequence[tuple[str, object]], *, margin: int = 0) -> Facts:
    """Return labels and texts; a text that is empty is left out together with its label.

    Args:
        rows: Labels and texts.
        margin: Number of characters before the texts; 0 means as few as the labels need.
    """
    told = [(label, shown_line(str(text))) for label, text in rows]
    shown = tuple(row for row in told if row[1])
    widest = max((cell_len(label) for label, _ in shown), default=0)
    return Facts(rows=shown, margin=margin or widest + GAP)


def shorten(text: str, width: int) -> str:
    """Return a text as one line, and cut the line to at most ``width`` characters."""
    flat = shown_line(text)
    if cell_len(flat) <= width:
        return flat
    return f"{set_cell_size(flat, width - 1).rstrip()}…"


def wrapped(text: str, width: int) -> list[str]:
    """Return a text as lines: words stay whole, and a word that is too long ends at a joint.

    Args:
        text: A text of one line.
        width: Maximum number of characters in a line; a wide character counts as two.
    """
    lines = [""]
    for word in text.split(" "):
        before = f"{lines[-1]} " if lines[-1] else ""
        if cell_len(before + word) <= width:
            lines[-1] = before + word
        elif cell_len(word) <= width:
            lines.append(word)
        else:
            lines[-1:] = _parts(word, width, before)
    return lines


def _parts(word: str, width: int, before: str) -> list[str]:
    """Divide a word that is longer than a line, at its joints as far as possible.

    The word begins behind ``before``, which is the beginning of a line.
    """
    lines = [before]
    for part in _PATHS.split(word):
        whole = cell_len(part) <= width
        for piece in [part] if whole else _JOINTS.split(part):
            if cell_len(lines[-1] + piece) <= width:
                lines[-1] += piece
            elif cell_len(piece) <= width:
                lines.append(piece)
            else:
                kept = "" if lines[-1] == before else lines.pop()
                lines += chop_cells(kept + piece, max(width, 2))
    return [line for line in lines if line]

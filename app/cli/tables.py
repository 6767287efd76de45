"""Tables that fit the terminal: each column states how it behaves if there is little room.

Rich's own tables make every column narrower, also columns of numbers, and fold words letter by
letter. Here a column is never narrower than it states, words stay whole, and a column that has no
room is named below the table, or has its cells below their rows.

In a pipe or a file, and with ``--wide``, there is room for everything: one line for each row.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

from app.cli.styles import DIM, STYLES, styled
from app.cli.wrapping import GAP, UNLIMITED_WIDTH, shorten, wrapped
from app.domain.plain_text import shown_line
from app.domain.run_ids import short_ids

INDENT = 2
#: The part of a column's cells that are no longer than its usual cells.
USUAL = 0.8
#: The way to see hidden columns.
REMEDY = "--wide shows all columns, --json has everything"
NARROW_REMEDY = "a wider terminal shows all columns"

Align = Literal["left", "right", "point"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        heading: The heading. If the cells are narrow, the heading has several lines.
        align: ``right`` aligns the ends of the cells, and ``point`` aligns their decimal points.
        least: Fewest characters in a line of a cell. 0 means that a cell is always one line.
        most: Most characters of a cell if the room is limited; 0 means that no cell is shortened.
        room: Fewest characters of the column even if its cells are shorter, so that the columns of
            a changing picture stay where they are.
        cut: Whether a cell that is too long is cut instead of wrapped; a column with ``room`` then
            has exactly this width.
        drop: The columns with the highest number give way first if the terminal is too narrow; 0
            means that the column always stays.
        below: If the column gives way, a line below the row has the cell.
        styled: Whether the cells are names of states, which have colours.
        ids: Whether the cells are ids of runs, which are shortened if the room is limited.
    """

    heading: str
    align: Align = "left"
    least: int = 0
    most: int = 0
    room: int = 0
    cut: bool = False
    drop: int = 0
    below: bool = False
    styled: bool = False
    ids: bool = False


def words(heading: str, least: int = 12, *, drop: int = 0) -> Column:
    """Return a column of texts, which are wrapped at their words."""
    return Column(heading=heading, least=least, drop=drop)


def note(heading: str, *, drop: int = 100, most: int = 300) -> Column:
    """Return a column of long texts, which stand below their rows if they do not fit whole."""
    return Column(heading=heading, most=most, drop=drop, below=True)


def number(heading: str, *, drop: int = 0, align: Align = "right", room: int = 0) -> Column:
    """Return a column of numbers, amounts or durations, which are never wrapped."""
    return Column(heading=heading, align=align, drop=drop, room=room)


def fixed(heading: str, *, drop: int = 0) -> Column:
    """Return a column of short texts, such as times, which are never wrapped."""
    return Column(heading=heading, drop=drop)


def state(heading: str = "status", *, drop: int = 0, room: int = 0) -> Column:
    """Return a column of states; a long state is wrapped at its underscore."""
    return Column(heading=heading, least=10, drop=drop, room=room, styled=True)


def run_id(heading: str = "run") -> Column:
    """Return a column of ids of runs."""
    return Column(heading=heading, ids=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The widths of a table's columns.

    Attributes:
        widths: Width of each column that stands beside the others, by the number of the column.
        below: Numbers of the columns whose cells are lines below the rows.
        hidden: Numbers of the columns that are not shown although they have values.
    """

    widths: Mapping[int, int]
    below: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table for a console of any width.

    Attributes:
        columns: The columns.
        rows: The cells as texts.
        title: A line above the table; empty for none.
        remedy: The words that tell how to see hidden columns.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    remedy: str = REMEDY

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield the lines of the table."""
        yield from table_lines(self, options.max_width, ruled=console.is_terminal)

    def without(self, *headings: str) -> "Table":
        """Return the table without some of its columns."""
        stay = [
            place for place, column in enumerate(self.columns) if column.heading not in headings
        ]
        return replace(
            self,
            columns=tuple(self.columns[place] for place in stay),
            rows=tuple(tuple(row[place] for place in stay) for row in self.rows),
        )

    def without_wide(self) -> "Table":
        """Return the table for a command that has no option ``--wide``."""
        return replace(self, remedy=NARROW_REMEDY)


def table(columns: Sequence[Column], rows: Sequence[Sequence[object]], *, title: str = "") -> Table:
    """Return a table.

    Args:
        columns: The columns.
        rows: Cells, as many in each row as there are columns.
        title: Heading of the table.
    """
    cells = tuple(tuple(shown_line(str(cell)) for cell in row) for row in rows)
    return Table(columns=tuple(columns), rows=cells, title=shown_line(title))


def table_lines(made: Table, width: int, *, ruled: bool = True) -> Iterator[Text]:
    """Return the lines of a table.

    Args:
        made: The table.
        width: Maximum number of characters in a line.
        ruled: Whether a rule separates the headings from the rows.
    """
    rows = prepared(made, limited=width < UNLIMITED_WIDTH)
    layout = fit(made.columns, rows, width)
    for line in wrapped(made.title, width) if made.title else ():
        yield styled(line, "bold")
    headings = tuple(column.heading for column in made.columns)
    yield from row_lines(made.columns, headings, layout, heads=True)
    if ruled:
        yield styled("─" * (sum(layout.widths.values()) + GAP * (len(layout.widths) - 1)), DIM)
    for row in rows:
        yield from row_lines(made.columns, row, layout)
        yield from _below(made.columns, row, layout, width)
    if layout.hidden:
        names = ", ".join(made.columns[place].heading for place in layout.hidden)
        for line in wrapped(f"Hidden at {width} columns: {names}; {made.remedy}.", width):
            yield styled(line, DIM)


def fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> Layout:
    """Return the widths of the columns.

    If the room is not sufficient for whole lines, the columns without any value are left out, and
    then the columns give way by their ``drop``. The columns that stay share the rest of the room,
    first for their usual cells, and then for cells that are longer than most others.
    """
    places = range(len(columns))
    sizes = [sorted(cell_len(row[place]) for row in rows) or [0] for place in places]
    sized = list(zip(columns, sizes, strict=True))
    least = [_least(column, cells[-1]) for column, cells in sized]
    natural = [_natural(column, cells[-1]) for column, cells in sized]
    usual = [
        max(_least(column, 0), cells[int(USUAL * (len(cells) - 1))]) for column, cells in sized
    ]
    stay = list(places)
    if _total(natural) > width:
        kept = (bool(column.room or not column.drop) for column in columns)
        stay = [place for place, keep in enumerate(kept) if keep or sizes[place][-1]]
    valued = set(stay)
    while _total(least[place] for place in stay) > width and len(stay) > 1:
        loose = [place for place in stay if columns[place].drop]
        if not loose:
            break
        stay.remove(max(loose, key=lambda place: (columns[place].drop, place)))
    gone = sorted(valued.difference(stay))
    return Layout(
        widths=_shared({place: least[place] for place in stay}, usual, natural, width),
        below=tuple(place for place in gone if columns[place].below),
        hidden=tuple(place for place in gone if not columns[place].below),
    )


def prepared(made: Table, *, limited: bool = True) -> list[tuple[str, ...]]:
    """Return the cells as they are shown: with short ids, and with aligned decimal points.

    Args:
        made: The table.
        limited: Whether the room is limited, so that ids are short and long texts are cut.
    """
    by_column = [[row[place] for row in made.rows] for place in range(len(made.columns))]
    for column, cells in zip(made.columns, by_column, strict=True):
        if column.ids and limited:
            short = short_ids(cells)
            cells[:] = [short.get(cell, cell) for cell in cells]
        if column.most and limited:
            cells[:] = [shorten(cell, column.most) for cell in cells]
        if column.align == "point":
            cells[:] = _pointed(cells)
    return list(zip(*by_column, strict=True)) if made.rows else []


def _pointed(cells: Sequence[str]) -> list[str]:
    """Add blanks behind numbers, so that their decimal points are below one another."""
    behind = [len(cell) - cell.index(".") if "." in cell else 0 for cell in cells]
    most = max(behind, default=0)
    return [
        cell + " " * (most - size) if cell else "" for cell, size in zip(cells, behind, strict=True)
    ]


def _natural(column: Column, cells: int) -> int:
    """Return the width of a column with room for everything."""
    still = column.cut and column.room
    return column.room if still else max(cells, cell_len(column.heading), column.room, 1)


def _least(column: Column, cells: int) -> int:
    """Return the fewest characters of a column whose widest cell has this width.

    A heading above narrow cells is wrapped at its words, so that numbers stay close together.
    """
    heading = max(map(cell_len, column.heading.split(" ")))
    return max(min(cells, column.least) if column.least else cells, heading, column.room, 1)


def _total(widths: Iterable[int]) -> int:
    found = list(widths)
    return sum(found) + GAP * (len(found) - 1)


def _shared(
    widths: dict[int, int], usual: Sequence[int], natural: Sequence[int], width: int
) -> dict[int, int]:
    """Share the rest of the room.

    First, usual cells become one line, in as many columns as possible. Then the columns with the
    most lines become wider.

    Args:
        widths: Least widths of the columns; they are changed.
        usual: Widths of the usual cells.
        natural: Widths of the widest cells and of the headings.
        width: Width of the table.
    """
    room = width - _total(widths.values())
    for place in sorted(widths, key=lambda place: usual[place] - widths[place]):
        more = min(max(usual[place] - widths[place], 0), room)
        widths[place] += more
        room -= more
    while room > 0 and (hungry := [place for place in widths if widths[place] < natural[place]]):
        widths[max(hungry, key=lambda place: natural[place] / widths[place])] += 1
        room -= 1
    while _total(widths.values()) > width and max(widths.values()) > 1:
        widths[max(widths, key=lambda place: widths[place])] -= 1
    return widths


def row_lines(
    columns: Sequence[Column], row: Sequence[str], layout: Layout, *, heads: bool = False
) -> Iterator[Text]:
    """Return the lines of a row beside one another; headings stand at the bottom of their lines."""
    cells = {
        place: [shorten(row[place], width)] if columns[place].cut else wrapped(row[place], width)
        for place, width in layout.widths.items()
    }
    height = max(map(len, cells.values()))
    for place, lines in cells.items():
        blank = [""] * (height - len(lines))
        cells[place] = [*blank, *lines] if heads else [*lines, *blank]
    for number_ in range(height):
        line = styled("", "bold" if heads else "")
        for place, width in layout.widths.items():
            column, text = columns[place], cells[place][number_]
            room = styled(" " * (width - cell_len(text)))
            told = styled(text, STYLES.get(row[place], "") if column.styled else "")
            told = told.append_text(room) if column.align == "left" else room.append_text(told)
            line.append(" " * GAP if line else "").append_text(told)
        line.rstrip()
        yield line


def _below(
    columns: Sequence[Column], row: Sequence[str], layout: Layout, width: int
) -> Iterator[Text]:
    """Return the cells that have no room beside the others, as lines below their row."""
    for place in layout.below:
        if row[place]:
            text = f"{columns[place].heading}: {row[place]}"
            yield from _indented(text, width)


def _indented(text: str, width: int) -> Iterator[Text]:
    for line in wrapped(text, max(width - INDENT, 1)):
        yield styled(" " * INDENT + line, DIM)

"""Every screen at several widths: what a reader sees is kept as text, and is true at any width."""

import functools
import io
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import RenderableType

from app.cli.output import PlainConsole
from app.cli.tables import Column, Table, fit, prepared
from tests.support.screens import FOLDER, SCREENS, WIDTHS, rendered, snapshot

#: A number in front of a noun in the plural, such as ``1 calls``.
ONE_OF_MANY = re.compile(
    r"(?<![\d.,/$-])1 (?:[a-z]+ )?(?:agents|answers|calls|elements|items|levels|minutes|outputs|"
    r"requests|retries|runs|sub-workflows|times|tokens)\b"
)
WIDTHS_AT_ALL = st.integers(min_value=60, max_value=220)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_looks_as_it_was_looked_at(name: str, width: int) -> None:
    expected = snapshot(name, width).read_text(encoding="utf-8")

    assert rendered(screen(name), width) == expected, "run: python -m tests.support.screens"


def test_no_snapshot_is_left_of_a_screen_that_is_gone() -> None:
    expected = {snapshot(name, width) for name in SCREENS for width in WIDTHS}

    assert set(FOLDER.iterdir()) == expected


@settings(deadline=None, max_examples=10)
@given(WIDTHS_AT_ALL)
@example(60)
@pytest.mark.parametrize("name", SCREENS)
def test_no_line_is_longer_than_the_terminal(name: str, width: int) -> None:
    too_long = [line for line in lines_of(screen(name), width) if cell_len(line) > width]

    assert too_long == []


@pytest.mark.parametrize("name", SCREENS)
def test_a_number_of_one_has_a_noun_in_the_singular(name: str) -> None:
    text = " ".join(lines_of(screen(name), 100_000))

    assert ONE_OF_MANY.findall(text) == []


@pytest.mark.parametrize("name", SCREENS)
def test_levels_count_from_one(name: str) -> None:
    text = "\n".join(lines_of(screen(name), 200))

    assert not re.search(r"level 0|^ +0  ", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["runs", "costs_by_run", "reprice"])
@pytest.mark.parametrize("width", WIDTHS)
def test_ids_are_short_and_unique_and_stand_in_front(name: str, width: int) -> None:
    lines = lines_of(screen(name), width)

    ids = [found[0] for line in lines if (found := re.match(r"[0-9a-f]{8,}(?=  )", line))]
    assert len(ids) >= 2
    assert len(ids) == len(set(ids))
    assert all(len(each) == 8 for each in ids)


@pytest.mark.parametrize("name", SCREENS)
def test_a_pipe_gets_every_column_and_one_line_for_each_row(name: str) -> None:
    for table in tables_of(screen(name)):
        text = piped(table)

        lines = text.splitlines()
        headings, rows = lines[bool(table.title)], lines[1 + bool(table.title) :]
        assert len(rows) == len(table.rows)
        assert [column.heading for column in table.columns if column.heading not in headings] == []
        for row, line in zip(table.rows, rows, strict=True):
            assert all(cell in line for cell in row)
        assert "Hidden" not in text


@functools.cache
def screen(name: str) -> RenderableType:
    return SCREENS[name]()


def lines_of(shown: RenderableType, width: int) -> list[str]:
    return rendered(shown, width).splitlines()


def tables_of(shown: RenderableType) -> list[Table]:
    if isinstance(shown, Table):
        return [shown]
    return [table for part in getattr(shown, "renderables", ()) for table in tables_of(part)]


def piped(table: Table) -> str:
    stream = io.StringIO()
    PlainConsole(file=stream, width=100_000, soft_wrap=True).print(table)
    return stream.getvalue()


@settings(deadline=None, max_examples=10)
@given(WIDTHS_AT_ALL)
@example(60)
@pytest.mark.parametrize("name", SCREENS)
def test_no_column_is_narrower_than_it_states_and_every_hidden_one_is_named(
    name: str, width: int
) -> None:
    for table in tables_of(screen(name)):
        rows = prepared(table)
        layout = fit(table.columns, rows, width)

        for place, given_width in layout.widths.items():
            natural = max(cell_len(row[place]) for row in rows)
            assert given_width >= min(table.columns[place].least or natural, natural)
        told = " ".join(lines_of(table, width))
        for place in (*layout.hidden, *layout.below):
            assert table.columns[place].drop
            assert table.columns[place].heading in told.replace("\n", " ")


WORDS = st.text("abc def-gh_請求", min_size=1, max_size=60)
COLUMNS = st.builds(
    Column,
    heading=st.sampled_from(["a", "calls", "input tokens"]),
    align=st.sampled_from(["left", "right"]),
    least=st.just(12),
    drop=st.integers(min_value=1, max_value=9),
    below=st.booleans(),
)


@settings(deadline=None, max_examples=100)
@given(st.data(), WIDTHS_AT_ALL)
def test_any_table_fits_and_breaks_no_word_letter_by_letter(
    data: st.DataObject, width: int
) -> None:
    first = Column(heading="first", least=12)
    columns = (first, *data.draw(st.lists(COLUMNS, max_size=11)))
    row = st.tuples(*(WORDS for _ in columns))
    rows = tuple(data.draw(st.lists(row, min_size=1, max_size=4)))
    made = Table(columns=columns, rows=tuple(tuple(" ".join(c.split()) for c in r) for r in rows))

    layout = fit(made.columns, made.rows, width)

    assert all(cell_len(line) <= width for line in lines_of(made, width))
    for place, given_width in layout.widths.items():
        natural = max(cell_len(row[place]) for row in made.rows)
        assert given_width >= min(natural, columns[place].least)
    assert {*layout.widths, *layout.below, *layout.hidden} >= {
        place for place in range(len(columns)) if any(row[place] for row in made.rows)
    }

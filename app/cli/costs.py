"""`agentchord costs`: the costs of calls, read from the ledger."""

import sys
from collections.abc import Sequence
from csv import QUOTE_ALL, writer
from dataclasses import astuple, fields
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import typer

from app.cli.cluster import find, transaction
from app.cli.output import answer
from app.cli.parameters import Wide, read_since
from app.cli.tables import Column, Table, number, run_id, table, words
from app.costs.estimates import EstimateLine, read_estimates
from app.costs.reports import CostLine, costs_by, total_costs
from app.domain.money import aligned_dollars
from app.domain.plain_text import shown_cell


class Dimension(StrEnum):
    """A dimension by which a report is grouped."""

    AGENT = "agent"
    MODULE = "module"
    MODEL = "model"
    PROVIDER = "provider"
    WORKFLOW = "workflow"
    OUTER_WORKFLOW = "outer-workflow"
    VERSION = "version"
    TENANT = "tenant"
    KIND = "kind"
    RUN = "run"
    DAY = "day"


COLUMNS = (
    number("calls", drop=5),
    number("input tokens", drop=2),
    number("output tokens", drop=1),
    number("cost"),
)
#: Columns that are shown only if they are not empty, each with its measure.
RARE_COLUMNS = (
    (number("cached tokens", drop=6), "cached_tokens"),
    (number("wasted", drop=3), "wasted_usd"),
    (number("unconfirmed", drop=4), "unconfirmed_usd"),
    (number("saved by caches", drop=7), "saved_usd"),
)
ESTIMATES = (
    words("model", 16),
    number("calls"),
    number("prompt tokens", drop=4),
    number("expected", drop=3),
    number("off by"),
    number("upper bound", drop=2),
    number("most used of it", drop=1),
    number("above it", drop=5),
)


def costs(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Show only this run, including its sub-workflows."),
    ] = None,
    by: Annotated[
        Dimension, typer.Option(help="Dimension by which the report is grouped.")
    ] = Dimension.MODEL,
    since: Annotated[
        str | None,
        typer.Option(
            help="Show only calls since this time: 90m, 12h, 7d, yesterday, or 2025-12-31 (UTC)."
        ),
    ] = None,
    estimates: Annotated[
        bool, typer.Option("--estimates", help="Show the errors of the token estimates instead.")
    ] = False,
    wide: Wide = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the report as CSV.")] = False,
) -> None:
    """Show the costs of calls, including failed calls."""
    if json and csv:
        raise typer.BadParameter("give --json or --csv, not both")
    start = read_since(since, now=datetime.now(UTC))
    if estimates:
        if run is not None or csv:
            raise typer.BadParameter("--estimates covers all runs: leave out RUN and --csv")
        _show_estimates(start, json=json, wide=wide)
        return
    only = None if run is None else find(run)
    lines = transaction(partial(costs_by, by=by.value, run_id=only, since=start))
    if csv:
        _print_csv(lines, by)
        return
    total = transaction(partial(total_costs, run_id=only, since=start))
    facts = {"by": by, "lines": lines, "total": total}
    answer(facts, cost_table(lines, total, by), json=json, wide=wide)


def _show_estimates(start: datetime | None, *, json: bool, wide: bool) -> None:
    day = None if start is None else start.astimezone(UTC).date()
    lines = transaction(partial(read_estimates, since=day))
    answer(lines, estimates_table(lines), json=json, wide=wide)


def estimates_table(lines: Sequence[EstimateLine]) -> Table:
    """Return the errors of the token estimates as a table."""
    rows = [
        (
            f"{line.provider}/{line.model}",
            f"{line.calls:,}",
            f"{line.prompt_tokens:,}",
            f"{line.bias_percent:+} %",
            f"{line.error_percent} %",
            f"{line.bound_factor} x",
            f"{line.most_of_bound:.0%}",
            f"{line.above_bound:,}",
        )
        for line in lines
    ]
    return table(ESTIMATES, rows)


def cost_table(lines: Sequence[CostLine], total: CostLine, by: str, *, title: str = "") -> Table:
    """Return a report as a table with a line of totals."""
    all_lines = (*lines, total)
    rare = [
        (column, name)
        for column, name in RARE_COLUMNS
        if any(getattr(line, name) for line in all_lines)
    ]
    rows = [
        (
            line.key,
            f"{line.calls:,}",
            f"{line.input_tokens:,}",
            f"{line.output_tokens:,}",
            aligned_dollars(line.cost_usd),
            *(_shown(getattr(line, name)) for _, name in rare),
        )
        for line in all_lines
    ]
    columns = (_subject(by), *COLUMNS, *(column for column, _ in rare))
    return table(columns, rows, title=title)


def _subject(by: str) -> Column:
    """Return the column with the subjects of a report."""
    return run_id() if by == Dimension.RUN else words(by, 16)


def _shown(value: int | Decimal) -> str:
    return f"{value:,}" if isinstance(value, int) else aligned_dollars(value)


def _print_csv(lines: list[CostLine], by: str) -> None:
    # All cells are quoted, so that a separator inside a text never splits the text.
    printer = writer(sys.stdout, lineterminator="\n", quoting=QUOTE_ALL)
    printer.writerow([by, *[field.name for field in fields(CostLine)][1:]])
    printer.writerows([_cell(cell) for cell in astuple(line)] for line in lines)


def _cell(value: Any) -> Any:
    """Return a value as a cell of CSV; a spreadsheet shows every text as text, not as a formula."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    return shown_cell(value) if isinstance(value, str) else value

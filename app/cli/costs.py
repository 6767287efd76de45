"""`agentchord costs`: the costs of calls, read from the ledger."""

import sys
from csv import QUOTE_ALL, writer
from dataclasses import astuple, fields
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.cluster import find, transaction
from app.cli.output import answer, dollars, table
from app.cli.parameters import read_since
from app.costs.estimates import read_estimates
from app.costs.reports import CostLine, costs_by, total_costs
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


#: Columns that are shown only if they are not empty.
RARE_COLUMNS = (
    ("cached tokens", "cached_tokens"),
    ("wasted", "wasted_usd"),
    ("unconfirmed", "unconfirmed_usd"),
    ("saved by caches", "saved_usd"),
)
ESTIMATES = (
    *("model", "calls>", "prompt tokens>", "expected>", "off by>"),
    *("upper bound>", "most used of it>", "above it>"),
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
        _show_estimates(start, json=json)
        return
    run_id = None if run is None else find(run)
    lines = transaction(partial(costs_by, by=by.value, run_id=run_id, since=start))
    if csv:
        _print_csv(lines, by)
        return
    total = transaction(partial(total_costs, run_id=run_id, since=start))
    answer({"by": by, "lines": lines, "total": total}, cost_table(lines, total, by), json=json)


def _show_estimates(start: datetime | None, *, json: bool) -> None:
    day = None if start is None else start.astimezone(UTC).date()
    lines = transaction(partial(read_estimates, since=day))
    rows = [
        (
            f"{line.provider}/{line.model}",
            f"{line.calls:,}",
            f"{line.prompt_tokens:,}",
            f"{line.bias_percent:+} %",
            f"{line.error_percent} %",
            f"{line.bound_factor} times",
            f"{line.most_of_bound:.0%}",
            f"{line.above_bound:,}",
        )
        for line in lines
    ]
    answer(lines, table(ESTIMATES, rows), json=json)


def cost_table(lines: list[CostLine], total: CostLine, by: str, *, title: str = "") -> Table:
    """Return a report as a table with a line of totals."""
    all_lines = (*lines, total)
    rare = [
        (heading, name)
        for heading, name in RARE_COLUMNS
        if any(getattr(line, name) for line in all_lines)
    ]
    rows = [
        (
            line.key,
            f"{line.calls:,}",
            f"{line.input_tokens:,}",
            f"{line.output_tokens:,}",
            dollars(line.cost_usd),
            *(_shown(getattr(line, name)) for _, name in rare),
        )
        for line in all_lines
    ]
    columns = (
        by,
        "calls>",
        "input tokens>",
        "output tokens>",
        "cost>",
        *(f"{h}>" for h, _ in rare),
    )
    return table(columns, rows, title=title)


def _shown(value: int | Decimal) -> str:
    return f"{value:,}" if isinstance(value, int) else dollars(value)


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

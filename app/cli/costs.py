"""`agentchord costs`: the costs of calls, read from the ledger."""

import sys
from collections.abc import Sequence
from csv import QUOTE_ALL, writer
from dataclasses import asdict, astuple, fields
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Any

import typer

from app.cli.cluster import find, transaction
from app.cli.output import answer
from app.cli.parameters import Labels, Tenant, Wide, read_label_filter, read_since
from app.cli.runs import say_unknown
from app.cli.tables import Column, Table, number, run_id, table, words
from app.costs.dimensions import DIMENSIONS, read_dimensions
from app.costs.estimates import EstimateLine, read_estimates
from app.costs.reports import CostLine, ReportFilter, costs_by, total_costs
from app.domain.money import aligned_dollars
from app.domain.plain_text import shown_cell
from app.domain.run_filter import RunFilter

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


def costs(  # noqa: PLR0913  one parameter per filter
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Show only this run, including its sub-workflows."),
    ] = None,
    *,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIMENSION",
            help="Dimension by which the report is grouped, by default the model; several with "
            f"commas, or with several options: {', '.join(DIMENSIONS)}, label:KEY.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Show only calls since this time: 90m, 12h, 7d, yesterday, or 2025-12-31 (UTC)."
        ),
    ] = None,
    tenant: Tenant = None,
    workflow: Annotated[
        str | None,
        typer.Option(help="Only calls booked under this workflow, without its sub-workflows."),
    ] = None,
    outer_workflow: Annotated[
        str | None,
        typer.Option(help="Only calls of this workflow's runs, with their sub-workflows."),
    ] = None,
    label: Labels = None,
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
        if any((run, csv, by, tenant, workflow, outer_workflow, label)):
            raise typer.BadParameter(
                "--estimates covers all runs: give only --since, --wide and --json"
            )
        _show_estimates(start, json=json, wide=wide)
        return
    dimensions = read_dimensions(by or ["model"])
    runs = RunFilter(tenant=tenant, workflow=workflow, labels=read_label_filter(label))
    only = ReportFilter(
        run_id=None if run is None else find(run),
        since=start,
        runs=runs,
        outer_workflow=outer_workflow,
    )
    lines = transaction(partial(costs_by, by=dimensions, only=only))
    if csv:
        _print_csv(lines, dimensions)
    else:
        total = transaction(partial(total_costs, only=only))
        facts = {
            "by": ",".join(dimensions),
            "lines": [_facts(line, dimensions) for line in lines],
            "total": _facts(total, dimensions),
        }
        answer(facts, cost_table(lines, total, dimensions), json=json, wide=wide)
    if not lines:
        say_unknown(runs)
        if outer_workflow != workflow:
            say_unknown(RunFilter(workflow=outer_workflow))


def _facts(line: CostLine, dimensions: Sequence[str]) -> dict[str, Any]:
    """Return a line for programs; ``keys`` has the names by dimension, ``key`` as one text."""
    facts = asdict(line)
    keys = dict(zip(dimensions, line.keys, strict=True)) if line.keys else {}
    return {"key": line.key if line.keys else "total"} | facts | {"keys": keys}


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


def cost_table(
    lines: Sequence[CostLine], total: CostLine, by: Sequence[str], *, title: str = ""
) -> Table:
    """Return a report as a table with a line of totals."""
    all_lines = (*lines, total)
    rare = [
        (column, name)
        for column, name in RARE_COLUMNS
        if any(getattr(line, name) for line in all_lines)
    ]
    rows = [
        (
            *(line.keys or ("total", *[""] * (len(by) - 1))),
            f"{line.calls:,}",
            f"{line.input_tokens:,}",
            f"{line.output_tokens:,}",
            aligned_dollars(line.cost_usd),
            *(_shown(getattr(line, name)) for _, name in rare),
        )
        for line in all_lines
    ]
    columns = (*map(_subject, by), *COLUMNS, *(column for column, _ in rare))
    return table(columns, rows, title=title)


def _subject(by: str) -> Column:
    """Return the column with the subjects of a report."""
    return run_id() if by == "run" else words(by, 16)


def _shown(value: int | Decimal) -> str:
    return f"{value:,}" if isinstance(value, int) else aligned_dollars(value)


def _print_csv(lines: Sequence[CostLine], by: Sequence[str]) -> None:
    # All cells are quoted, so that a separator inside a text never splits the text.
    printer = writer(sys.stdout, lineterminator="\n", quoting=QUOTE_ALL)
    printer.writerow([*by, *[field.name for field in fields(CostLine)][1:]])
    for line in lines:
        keys, *measures = astuple(line)
        printer.writerow([_cell(cell) for cell in (*keys, *measures)])


def _cell(value: Any) -> Any:
    """Return a value as a cell of CSV; a spreadsheet shows every text as text, not as a formula."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    return shown_cell(value) if isinstance(value, str) else value

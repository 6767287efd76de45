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
from rich.table import Table

from app.cli.cluster import find, transaction
from app.cli.output import answer, dollars, table
from app.cli.parameters import Labels, Tenant, read_label_filter, read_since
from app.cli.runs import say_unknown
from app.costs.dimensions import DIMENSIONS, read_dimensions
from app.costs.estimates import read_estimates
from app.costs.reports import CostLine, ReportFilter, costs_by, total_costs
from app.domain.plain_text import shown_cell
from app.domain.run_filter import RunFilter

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
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the report as CSV.")] = False,
) -> None:
    """Show the costs of calls, including failed calls."""
    if json and csv:
        raise typer.BadParameter("give --json or --csv, not both")
    start = read_since(since, now=datetime.now(UTC))
    if estimates:
        if any((run, csv, by, tenant, workflow, outer_workflow, label)):
            raise typer.BadParameter("--estimates covers all runs: give only --since and --json")
        _show_estimates(start, json=json)
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
        answer(facts, cost_table(lines, total, dimensions), json=json)
    if not lines:
        say_unknown(runs)
        if outer_workflow != workflow:
            say_unknown(RunFilter(workflow=outer_workflow))


def _facts(line: CostLine, dimensions: Sequence[str]) -> dict[str, Any]:
    """Return a line for programs; ``keys`` has the names by dimension, ``key`` as one text."""
    facts = asdict(line)
    keys = dict(zip(dimensions, line.keys, strict=True)) if line.keys else {}
    return {"key": line.key if line.keys else "total"} | facts | {"keys": keys}


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


def cost_table(
    lines: Sequence[CostLine], total: CostLine, by: Sequence[str], *, title: str = ""
) -> Table:
    """Return a report as a table with a line of totals."""
    all_lines = (*lines, total)
    rare = [
        (heading, name)
        for heading, name in RARE_COLUMNS
        if any(getattr(line, name) for line in all_lines)
    ]
    rows = [
        (
            *(line.keys or ("total", *[""] * (len(by) - 1))),
            f"{line.calls:,}",
            f"{line.input_tokens:,}",
            f"{line.output_tokens:,}",
            dollars(line.cost_usd),
            *(_shown(getattr(line, name)) for _, name in rare),
        )
        for line in all_lines
    ]
    columns = (
        *by,
        "calls>",
        "input tokens>",
        "output tokens>",
        "cost>",
        *(f"{h}>" for h, _ in rare),
    )
    return table(columns, rows, title=title)


def _shown(value: int | Decimal) -> str:
    return f"{value:,}" if isinstance(value, int) else dollars(value)


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

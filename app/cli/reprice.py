"""`agentchord costs reprice`: corrections after a change of prices."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Annotated
from uuid import UUID

import typer

from app.cli.cluster import find, transaction
from app.cli.messages import tell
from app.cli.output import console, print_json
from app.cli.parameters import Wide, read_since
from app.cli.progress_bar import ProgressBar
from app.cli.tables import Table, number, run_id, table, words
from app.configuration.settings import load_settings
from app.costs.pricing import Pricing
from app.costs.reprice import BATCH, Repriced, runs_since
from app.costs.reprice import reprice as reprice_batch
from app.domain.counts import counted
from app.domain.money import aligned_dollars
from app.storage.run_tree import run_tree_ids

COLUMNS = (
    run_id(),
    words("model", 16),
    number("calls", drop=2),
    number("booked", drop=1),
    number("difference"),
    words("price from", 12, drop=3),
)


def reprice(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Price only this run, including its sub-workflows."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Price only calls booked since this time: 90m, 7d, yesterday, or 2025-12-31 (UTC)."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be booked.")
    ] = False,
    wide: Wide = False,
    json: Annotated[bool, typer.Option("--json", help="Print the changes as JSON.")] = False,
) -> None:
    """Price calls again and book the difference."""
    start = read_since(since, now=datetime.now(UTC))
    runs = _runs(run, start)
    settings = load_settings()
    pricing = Pricing(settings.costs, settings.all_providers())
    changes: list[Repriced] = []
    unpriced = 0
    with ProgressBar("runs", len(runs)) as bar:
        for first in range(0, len(runs), BATCH):
            batch = runs[first : first + BATCH]
            done = transaction(
                partial(reprice_batch, run_ids=batch, pricing=pricing, since=start, dry_run=dry_run)
            )
            changes += done.changes
            unpriced += done.unpriced
            bar.advance(len(batch))
    if json:
        print_json({"booked": not dry_run, "changes": changes, "unpriced_calls": unpriced})
    else:
        _show(changes, unpriced, dry_run=dry_run, wide=wide)


def _runs(run: str | None, start: datetime | None) -> list[UUID]:
    if run is not None:
        return transaction(partial(run_tree_ids, run_id=find(run)))
    if start is None:
        raise typer.BadParameter("give a RUN, or --since for all runs from that time on")
    return transaction(partial(runs_since, since=start))


def changes_table(changes: Sequence[Repriced]) -> Table:
    """Return corrections as a table."""
    rows = [
        (
            change.run_id,
            f"{change.provider}/{change.model}",
            f"{change.calls:,}",
            aligned_dollars(change.booked_usd),
            aligned_dollars(change.difference_usd, signed=True),
            change.price_version,
        )
        for change in changes
    ]
    return table(COLUMNS, rows)


def _show(changes: Sequence[Repriced], unpriced: int, *, dry_run: bool, wide: bool) -> None:
    if changes:
        console(wide=wide).print(changes_table(changes))
    calls = sum(change.calls for change in changes)
    total = sum((change.difference_usd for change in changes), Decimal(0))
    verb = "would be corrected" if dry_run else "corrected"
    tell(f"{counted(calls, 'call')} {verb}, by {aligned_dollars(total, signed=True)} in total")
    if unpriced:
        verb = "is" if unpriced == 1 else "are"
        tell(f"{counted(unpriced, 'call')} {verb} not changed, because the model has no price, or")
        tell("because the workflow, which has the settings of the call, is not stored any more")

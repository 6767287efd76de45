"""`agentchord prune`: removal of the payload of old runs, never of their costs."""

from dataclasses import asdict
from typing import Annotated

import typer

from app.cli.cluster import ask
from app.cli.output import answer
from app.cli.parameters import AsJson, read_age
from app.cli.progress_bar import ProgressBar
from app.domain.counts import counted


def prune(
    *,
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Least time since a run's end: 90m, 12h, 90d, 26w.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print how much would be removed.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Remove the payload of old runs, but never their costs.

    The command removes inputs, outputs and histories of runs that ended long ago; the ledger and
    every report of costs stay. Runs that have not ended do not change. Workers may run at the same
    time, because the command works in small transactions. The command may be stopped and started
    again.
    """
    age = read_age(older_than)
    if age is None:
        raise typer.BadParameter(
            f"--older-than {older_than!r} is not an age: give 90m, 12h, 90d or 26w"
        )
    age_s = age.total_seconds()
    removed = ask(lambda client: client.control.prune(age_s, dry_run=True))
    if not dry_run and (removed.runs or removed.recorded_events):
        with ProgressBar("runs", removed.runs) as bar:
            removed = ask(
                lambda client: client.control.prune(
                    age_s, on_batch=lambda batch: bar.advance(batch.runs)
                )
            )
    parts = (
        counted(removed.agents, "output"),
        counted(removed.attempts, "attempt"),
        counted(removed.events, "event"),
        counted(removed.tool_calls, "tool call"),
    )
    verb = "would remove" if dry_run else "removed"
    answer(
        {"removed": not dry_run, **asdict(removed)},
        f"{verb} the payload of {counted(removed.runs, 'run')}: "
        f"{', '.join(parts)}; {counted(removed.recorded_events, 'recorded event')}",
        json=json,
    )

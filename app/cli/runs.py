"""`agentchord runs`, `status` and `cancel`: commands that list runs, show a run and stop a run."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from app.cli.cluster import ask, find, transaction
from app.cli.messages import say
from app.cli.output import answer, moment, print_json, seconds
from app.cli.parameters import AsJson, Labels, RunId, Tenant, Wide, read_label_filter
from app.cli.run import facts_of, follow_to_end
from app.cli.run_page import show_run
from app.cli.tables import Table, note, number, run_id, state, table, words
from app.domain.money import aligned_dollars
from app.domain.run_filter import RunFilter
from app.domain.status import WorkflowStatus
from app.monitoring.whole_run import read_whole_run
from app.storage.run_lists import find_unknown
from app.storage.runs import RunRecord

COLUMNS = (
    run_id(),
    words("workflow", 14),
    state(),
    number("level", drop=3),
    words("created (UTC)", 10, drop=4),
    number("took", drop=2),
    number("cost"),
    note("error", most=150),
)


def runs(
    status: Annotated[WorkflowStatus | None, typer.Option(help="Only runs in this state.")] = None,
    tenant: Tenant = None,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    label: Labels = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most runs to list.")] = 20,
    wide: Wide = False,
    json: AsJson = False,
) -> None:
    """List the newest runs."""
    only = RunFilter(tenant=tenant, workflow=workflow, labels=read_label_filter(label))
    found = ask(lambda client: client.runs.list(status, limit, only))
    answer([facts_of(record) for record in found], runs_table(found), json=json, wide=wide)
    if not found:
        say_unknown(only)


def say_unknown(only: RunFilter) -> None:
    """Name, on standard error, the tenant, workflow and labels of a filter that do not exist."""
    for sentence in transaction(partial(find_unknown, only=only)):
        say(sentence)


def runs_table(found: Sequence[RunRecord]) -> Table:
    """Return runs as a table."""
    rows = [
        (
            record.id,
            f"{record.workflow} v{record.version}",
            record.status,
            f"{min(record.level + 1, record.level_count)}/{record.level_count}",
            moment(record.created_at),
            seconds(record.started_at, record.finished_at),
            aligned_dollars(record.spent_usd),
            record.error or "",
        )
        for record in found
    ]
    return table(COLUMNS, rows)


def status(
    run: RunId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Watch the run until it has ended.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="With --follow, stop watching after this many seconds."),
    ] = None,
    wide: Wide = False,
    json: AsJson = False,
) -> int:
    """Show a run: its levels, agents, states, errors and costs.

    The page names every agent, element and inner agent that failed, was skipped, or completed only
    in part.

    With --follow the exit codes are the same as with `agentchord run --follow`. Without --follow
    the exit code is 0.
    """
    found = find(run)
    if follow:
        return follow_to_end(found, timeout_s=timeout, json=json)
    whole = transaction(partial(read_whole_run, run_id=found))
    if json:
        print_json(asdict(whole.run) | {"incomplete": whole.incomplete})
    else:
        show_run(whole, wide=wide)
    return 0


def cancel(run: RunId, json: AsJson = False) -> None:
    """Stop a run.

    After this command, no call starts, and calls in flight are closed.
    """
    found = find(run)
    stopped = ask(lambda client: client.control.cancel(found, "cancelled by the user"))
    text = f"run {found} {'is being cancelled' if stopped else 'had ended already'}"
    answer({"run_id": found, "cancelled": stopped}, text, json=json)

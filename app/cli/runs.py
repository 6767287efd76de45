"""`agentchord runs`, `status` and `cancel`: commands that list runs, show a run and stop a run."""

from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from app.cli.cluster import ask, find, transaction
from app.cli.messages import say
from app.cli.output import answer, dollars, moment, print_json, reason, seconds, table
from app.cli.parameters import AsJson, Labels, RunId, Tenant, read_label_filter
from app.cli.run import facts_of, follow_to_end
from app.cli.run_page import show_run
from app.domain.run_filter import RunFilter
from app.domain.status import WorkflowStatus
from app.monitoring.whole_run import read_whole_run
from app.storage.run_lists import find_unknown


def runs(
    status: Annotated[WorkflowStatus | None, typer.Option(help="Only runs in this state.")] = None,
    tenant: Tenant = None,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    label: Labels = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most runs to list.")] = 20,
    json: AsJson = False,
) -> None:
    """List the newest runs."""
    only = RunFilter(tenant=tenant, workflow=workflow, labels=read_label_filter(label))
    found = ask(lambda client: client.runs.list(status, limit, only))
    rows = [
        (
            record.id,
            f"{record.workflow} v{record.version}",
            record.status,
            f"{min(record.level + 1, record.level_count)}/{record.level_count}",
            moment(record.created_at),
            seconds(record.started_at, record.finished_at),
            dollars(record.spent_usd),
            reason(record.error, 60),
        )
        for record in found
    ]
    columns = ("run", "workflow", "status", "level>", "created (UTC)", "took>", "cost>", "error")
    answer([facts_of(record) for record in found], table(columns, rows), json=json)
    if not found:
        say_unknown(only)


def say_unknown(only: RunFilter) -> None:
    """Name, on standard error, the tenant, workflow and labels of a filter that do not exist."""
    for sentence in transaction(partial(find_unknown, only=only)):
        say(sentence)


def status(
    run: RunId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Watch the run until it has ended.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="With --follow, stop watching after this many seconds."),
    ] = None,
    json: AsJson = False,
) -> int:
    """Show a run: its levels, agents, states, errors and costs.

    The page names every agent, element and inner agent that failed, was skipped, or completed only
    in part.

    With --follow the exit codes are the same as with `agentchord run --follow`. Without --follow
    the exit code is 0.
    """
    run_id = find(run)
    if follow:
        return follow_to_end(run_id, timeout_s=timeout, json=json)
    whole = transaction(partial(read_whole_run, run_id=run_id))
    if json:
        print_json(asdict(whole.run) | {"incomplete": whole.incomplete})
    else:
        show_run(whole)
    return 0


def cancel(run: RunId, json: AsJson = False) -> None:
    """Stop a run.

    After this command, no call starts, and calls in flight are closed.
    """
    run_id = find(run)
    stopped = ask(lambda client: client.control.cancel(run_id, "cancelled by the user"))
    text = f"run {run_id} {'is being cancelled' if stopped else 'had ended already'}"
    answer({"run_id": run_id, "cancelled": stopped}, text, json=json)

"""`agentchord pause`, `resume`, `retry` and `rerun`: changes to a run that exists."""

from typing import Annotated, Any
from uuid import UUID

import typer

from app.cli.cluster import connect, find
from app.cli.output import print_json
from app.cli.parameters import AsJson, RunId


def pause(run: RunId, json: AsJson = False) -> None:
    """Pause a run until it is resumed.

    No call starts after this; calls in flight go on to their end. The timeout stops, too.
    """
    run_id, client, loop = _found(run)
    paused = loop.run(client.control.pause(run_id))
    _tell(run_id, "paused", paused, json=json, done="is paused", otherwise="was not going")


def resume(run: RunId, json: AsJson = False) -> None:
    """Resume a paused run."""
    run_id, client, loop = _found(run)
    resumed = loop.run(client.control.resume(run_id))
    _tell(run_id, "resumed", resumed, json=json, done="goes on", otherwise="was not paused")


def retry(
    run: RunId,
    cost_budget: Annotated[
        float | None,
        typer.Option(metavar="USD", help="A higher budget; earlier spending still counts."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Run the failed and the cancelled agents of a run again.

    Results and their costs stay. Retries and recoveries are counted from zero.
    """
    run_id, client, loop = _found(run)
    retried = loop.run(client.control.retry_failed(run_id, cost_budget))
    _tell(
        *(run_id, "retried", retried),
        json=json,
        done="runs again what failed",
        otherwise="has nothing to retry",
    )


def rerun(
    run: RunId,
    agent: Annotated[str, typer.Argument(help="The first agent to run again.")],
    json: AsJson = False,
) -> None:
    """Run a workflow again from one of its agents on.

    A new run runs that agent and every agent that depends on it. It takes over the other results of
    the old run, which does not change.
    """
    run_id, client, loop = _found(run)
    new = loop.run(client.control.rerun(run_id, agent))
    if json:
        print_json({"run_id": new, "rerun_of": run_id, "rerun_from": agent})
    else:
        print(new)


def _found(run: str) -> tuple[UUID, Any, Any]:
    """Find a run; return its id, the client and the client's loop."""
    run_id = find(run)
    connected = connect()
    return run_id, connected.client, connected.loop


def _tell(run_id: UUID, word: str, changed: bool, *, json: bool, done: str, otherwise: str) -> None:
    connected = connect()
    status = connected.loop.run(connected.client.runs.read(run_id)).status
    if json:
        print_json({"run_id": run_id, word: changed, "status": status})
    elif changed:
        print(f"run {run_id} {done}")
    else:
        print(f"run {run_id} {otherwise}: it is {status}")

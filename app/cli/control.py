"""`agentchord pause`, `resume`, `retry` and `rerun`: what becomes of a run from now on."""

from typing import Annotated, Any
from uuid import UUID

import typer

from app.cli.cluster import connect, find
from app.cli.output import print_json
from app.cli.parameters import AsJson, RunId


def pause(run: RunId, json: AsJson = False) -> None:
    """Let a run rest until it is resumed.

    No call starts after this; calls in flight go on to their end. The run's timeout stands still.
    """
    run_id, client, loop = _found(run)
    paused = loop.run(client.control.pause(run_id))
    _tell(run_id, "paused", paused, json=json, done="is paused", otherwise="was not going")


def resume(run: RunId, json: AsJson = False) -> None:
    """Let a paused run go on."""
    run_id, client, loop = _found(run)
    resumed = loop.run(client.control.resume(run_id))
    _tell(run_id, "resumed", resumed, json=json, done="goes on", otherwise="was not paused")


def retry(
    run: RunId,
    cost_budget: Annotated[
        float | None,
        typer.Option(metavar="USD", help="A higher budget; what is spent goes on counting."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Run the failed and the cancelled agents of a run again.

    Results stay, and so does what they cost. Retries and recoveries are counted anew.
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
    agent: Annotated[str, typer.Argument(help="The agent from which on it runs again.")],
    json: AsJson = False,
) -> None:
    """Run a run again from one of its agents on.

    That is a new run of the agent and of all that depends on it. It takes over the other results of
    the run, which stays as it is.
    """
    run_id, client, loop = _found(run)
    new = loop.run(client.control.rerun(run_id, agent))
    if json:
        print_json({"run_id": new, "rerun_of": run_id, "rerun_from": agent})
    else:
        print(new)


def _found(run: str) -> tuple[UUID, Any, Any]:
    """The run's id, and the client and the loop to do something to it."""
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

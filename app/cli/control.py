"""`agentchord pause`, `resume`, `retry` and `rerun`: the control of a run that exists."""

from typing import Annotated
from uuid import UUID

import typer

from app.cli.cluster import ask, find
from app.cli.outdated import warn_of_old_code
from app.cli.output import answer
from app.cli.parameters import AsJson, RunId


def pause(run: RunId, json: AsJson = False) -> None:
    """Pause a run until it is resumed.

    After this command, no call starts, and calls in flight finish. The clock of the run's timeout
    stops, too.
    """
    run_id = find(run)
    paused = ask(lambda client: client.control.pause(run_id))
    _tell(run_id, "paused", paused, json=json, done="is paused", otherwise="was not going")


def resume(run: RunId, json: AsJson = False) -> None:
    """Resume a paused run."""
    run_id = find(run)
    resumed = ask(lambda client: client.control.resume(run_id))
    _tell(run_id, "resumed", resumed, json=json, done="goes on", otherwise="was not paused")


def retry(
    run: RunId,
    agent: Annotated[
        str | None,
        typer.Argument(help="Repair only this agent, or this item, such as 'handled[20]'."),
    ] = None,
    cost_budget: Annotated[
        float | None,
        typer.Option(metavar="USD", help="A higher budget; earlier spending still counts."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Repair a run: repeat what failed or completed in part.

    Cancelled agents run again, too. Of a list, only such items run again; of a sub-workflow, only
    such agents. Agents that read a repaired output run again if the output has changed. All other
    results and all costs stay.
    """
    run_id = find(run)
    warn_of_old_code(run_id)
    retried = ask(lambda client: client.control.retry_failed(run_id, cost_budget, agent=agent))
    _tell(
        *(run_id, "retried", retried),
        json=json,
        done="is repaired" if agent is None else f"repairs {agent}",
        otherwise="has nothing to retry" if agent is None else f"has nothing to retry in {agent}",
    )


def rerun(
    run: RunId,
    agent: Annotated[
        str, typer.Argument(help="The first agent to run again, or an item, such as 'handled[20]'.")
    ],
    json: AsJson = False,
) -> None:
    """Run a workflow again from one of its agents on.

    A new run runs that agent and every agent that depends on that agent. With the name of an item,
    the new run runs this item of the list, and then the agents that read a changed output. The new
    run takes over the other results of the old run. The old run does not change.
    """
    run_id = find(run)
    warn_of_old_code(run_id)
    new = ask(lambda client: client.control.rerun(run_id, agent))
    answer({"run_id": new, "rerun_of": run_id, "rerun_from": agent}, str(new), json=json)


def _tell(run_id: UUID, word: str, changed: bool, *, json: bool, done: str, otherwise: str) -> None:
    status = ask(lambda client: client.runs.read(run_id)).status
    text = done if changed else f"{otherwise}: it is {status}"
    facts = {"run_id": run_id, word: changed, "status": status}
    answer(facts, f"run {run_id} {text}", json=json)

"""`agentchord run`: start a workflow from a file, and follow its run with --follow."""

import contextlib
import sys
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import typer

from app.cli.cluster import ask, transaction
from app.cli.follow import exit_code, follow, missing_worker_hints, wait_for_end
from app.cli.messages import say
from app.cli.output import answer, console, json_text, print_json
from app.cli.parameters import AsJson, read_labels
from app.cli.progress_views import LineView, best_view
from app.cli.run_input import File, Inputs, load_workflow, read_input
from app.cli.run_page import show_incomplete
from app.cli.wrapping import item
from app.configuration.settings import load_settings
from app.domain.providers import routed
from app.domain.run_options import RunOptions
from app.monitoring.progress import RunProgress
from app.monitoring.whole_run import read_whole_run
from app.storage.runs import RunRecord

OUTPUT_WIDTH = 300


def run(  # noqa: PLR0913  one parameter per option
    file: File,
    inputs: Inputs = None,
    *,
    weight: Annotated[
        float, typer.Option(help="The run's share of a rate limit, relative to other runs.")
    ] = 1.0,
    tenant: Annotated[
        str | None, typer.Option(help="The run's tenant, for budgets and reports.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="A name for the run; the same name gives the same run.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="KEY=VALUE",
            help="A label of the run, for filters of runs and costs; may be repeated.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", "-f", help="Watch the run until it has ended.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Stop watching after this many seconds; the run goes on."),
    ] = None,
    json: AsJson = False,
) -> int:
    """Start a workflow and print the id of its run.

    With --follow the exit code is 0 if the run has completed, 3 if it has completed partially, 1 if
    it has failed or was cancelled, and 4 if it was still going when --timeout was over.
    """
    options = RunOptions(weight=weight, tenant=tenant, key=key, labels=read_labels(label))
    given = read_input(inputs or [])
    loaded = load_workflow(file)
    run_input = {**loaded.input, **given}
    with loaded.located(given):
        ask(lambda client: client.workflows.check(loaded.workflow, run_input))
        run_id = ask(lambda client: client.runs.enqueue(loaded.workflow, run_input, options))
    if follow:
        return follow_to_end(run_id, timeout_s=timeout, json=json)
    answer({"run_id": run_id, "workflow": loaded.workflow.name}, str(run_id), json=json)
    workflow = routed(loaded.workflow, load_settings().all_providers())
    _hint({agent.provider for agent in workflow.agents}, run_id)
    return 0


def follow_to_end(run_id: UUID, *, timeout_s: float | None, json: bool) -> int:
    """Watch a run, then print its outputs, and name everything without a whole result.

    Args:
        run_id: The run.
        timeout_s: Maximum number of seconds to watch; None means no limit.
        json: Whether to print JSON to standard output, and the progress to standard error.

    Returns:
        Exit code.
    """

    async def following() -> RunProgress:
        with contextlib.nullcontext(LineView(sys.stderr)) if json else best_view() as view:
            return await follow(run_id, view, timeout_s=timeout_s)

    ended = wait_for_end(run_id, following())
    if ended is not None:
        outputs = outputs_of(run_id)
        whole = transaction(partial(read_whole_run, run_id=run_id))
        if json:
            print_json(facts_of(ended) | {"incomplete": whole.incomplete, "outputs": outputs})
        else:
            show_outputs(outputs)
            show_incomplete(whole.incomplete)
    return exit_code(ended)


def show_outputs(outputs: dict[str, Any]) -> None:
    """Print the outputs, and shorten each output to ``OUTPUT_WIDTH`` characters."""
    printer = console()
    for name, output in outputs.items():
        text = output if isinstance(output, str) else json_text(output)
        printer.print(f"\n{name}:", style="bold")
        printer.print(item(text, most=OUTPUT_WIDTH))


def outputs_of(run_id: UUID) -> dict[str, Any]:
    """Return the outputs of the agents that have completed, by agent name."""
    return {
        agent.name: agent.output
        for agent in ask(lambda client: client.runs.agents(run_id))
        if agent.status == "completed" and agent.parent_id is None
    }


def facts_of(run: RunProgress | RunRecord) -> dict[str, Any]:
    """Return the facts of a run for programs; the run's input is left out."""
    facts = asdict(run)
    facts.pop("input", None)
    facts["run_id"] = facts.pop("id")
    return facts


def _hint(providers: set[str], run_id: UUID) -> None:
    for hint in missing_worker_hints({*providers, "scheduler"}):
        say(hint)
    if sys.stdout.isatty():
        say(f"watch the run with `agentchord status {run_id} --follow`")

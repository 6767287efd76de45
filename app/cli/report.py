"""`agentchord report`: a run as one page of HTML."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from app.cli.cluster import find, transaction
from app.cli.messages import tell
from app.cli.output import console
from app.cli.parameters import RunId
from app.cli.run import outputs_of
from app.configuration.settings import load_settings
from app.domain.run_ids import short_id
from app.monitoring.report import report_page
from app.monitoring.run_history import read_history
from app.telemetry.redaction import Redactor


def report(
    run: RunId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; by default run-ID.html.")
    ] = None,
    outputs: Annotated[
        bool, typer.Option("--outputs", help="Show the agents' outputs, too.")
    ] = False,
) -> None:
    """Write a report of a run: one page of HTML.

    The page has the graph, the timeline, costs and failures, and loads no other files. The page has
    no prompts, and it has outputs only with --outputs.
    """
    run_id = find(run)
    printer = console(stderr=True)
    with printer.status(f"reading run {run_id}"):
        history = transaction(partial(read_history, run_id=run_id))
        said = outputs_of(run_id) if outputs else None
        redactor = Redactor(load_settings().secret_values())
        page = report_page(history, redactor.value(said), redact=redactor.text)
    target = output or Path(f"run-{short_id(run_id)}.html")
    target.write_text(page, encoding="utf-8")
    tell(str(target))

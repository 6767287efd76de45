"""`agentchord output`: what the agents of a run have answered, whole."""

from typing import Annotated, Any

import typer

from app.cli.cluster import ask, find
from app.cli.messages import say, tell
from app.cli.output import json_text, print_json
from app.cli.parameters import AsJson, RunId
from app.domain.suggestions import listed


def output(
    run: RunId,
    agent: Annotated[
        str | None,
        typer.Argument(help="An agent, or an item of a list, such as 'mails[3]'."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Print the whole outputs of a run's agents, or of one agent.

    A text is printed as it is, except for characters that control a terminal. Other values are
    printed as JSON. With --json every output is exact.
    """
    run_id = find(run)
    state = ask(lambda client: client.results.state(run_id))
    if agent is not None:
        found = state.result(agent)
        print_json(found) if json else tell(_text(found))
        return
    outputs = state.outputs
    if json:
        print_json(outputs)
        return
    for name, value in outputs.items():
        tell(f"── {name} ──")
        tell(_text(value))
        tell()
    missing = [name for name in state.results if "[" not in name and name not in outputs]
    if missing:
        say(f"no output of {listed(missing)}: see `agentchord status {run_id}`")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value, indent=2)

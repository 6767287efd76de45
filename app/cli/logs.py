"""`agentchord logs`: the history of a run, one line for each event."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import typer

from app.cli.cluster import arriving, find, transaction
from app.cli.messages import tell
from app.cli.output import console, json_text
from app.cli.parameters import RunId
from app.cli.styles import AMBER, RED, styled
from app.domain.events import Level
from app.domain.suggestions import did_you_mean
from app.errors import WorkflowError
from app.monitoring.event_lines import EventLine, event_line
from app.monitoring.progress import read_progress
from app.storage.runs import read_events

PAGE = 1000
COLOURS = {Level.INFO: "", Level.WARNING: AMBER, Level.ERROR: RED}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A filter of events.

    Attributes:
        search: A text that the line must contain; upper and lower case count as equal.
        level: The lowest level that passes.
        agent: The agent whose events pass, including the events of the agent's items; None means
            that the events of the run and of all agents pass.
    """

    search: str = ""
    level: Level = Level.INFO
    agent: str | None = None

    def accepts(self, line: EventLine) -> bool:
        """Return whether a line passes the filter."""
        own = self.agent is None or line.subject.partition("[")[0] == self.agent
        whole = line.subject == self.agent
        found = self.search.lower() in f"{line.subject} {line.text}".lower()
        return (own or whole) and line.level.rank >= self.level.rank and found


def logs(
    run: RunId,
    search: Annotated[
        str, typer.Option("--search", "-s", help="Only events with this text in their line.")
    ] = "",
    level: Annotated[
        Level, typer.Option("--level", "-l", help="Only events of this level or a higher one.")
    ] = Level.INFO,
    agent: Annotated[
        str | None, typer.Option("--agent", "-a", help="Only events of this agent.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show further events until the run has ended.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line for each event.")
    ] = False,
) -> None:
    """Show the history of a run, from Postgres: a line per event."""
    run_id = find(run)
    wanted = Wanted(search=search, level=level, agent=agent)
    if agent is not None:
        _check_agent(run_id, agent)
    show = _show_json if json else _show
    if follow:
        asyncio.run(_follow(run_id, wanted, show))
        return
    for event in _events(run_id):
        _tell(event, wanted, show)


async def _follow(run_id: UUID, wanted: Wanted, show: Any) -> None:
    async for event in arriving(lambda client: client.history.events(run_id, 0)):
        if event.type != "agent_text":
            facts = {"id": event.id, "type": event.type, "at": event.at}
            _tell({**facts, "attempt": event.attempt, "data": dict(event.data)}, wanted, show)


def _check_agent(run_id: UUID, agent: str) -> None:
    names = [each.name for each in transaction(partial(read_progress, run_id=run_id)).agents]
    if agent.partition("[")[0] not in names:
        hint = did_you_mean(agent, names)
        raise WorkflowError(f"run {run_id} has no agent {agent!r}{hint}", field="agent")


def _events(run_id: UUID) -> Iterator[dict[str, Any]]:
    after = 0
    while True:
        page = transaction(partial(read_events, run_id=run_id, after=after, limit=PAGE))
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1]["id"]


def _tell(event: dict[str, Any], wanted: Wanted, show: Any) -> None:
    line = event_line(event["type"], event["data"], event["attempt"])
    if wanted.accepts(line):
        show(event, line)


def _show(event: dict[str, Any], line: EventLine) -> None:
    at = f"{event['at']:%Y-%m-%d %H:%M:%S}.{event['at'].microsecond // 1000:03d}"
    text = f"{at}  {line.level:<7}  {line.subject}: {line.text}"
    console().print(styled(text, COLOURS[line.level]), soft_wrap=True)


def _show_json(event: dict[str, Any], line: EventLine) -> None:
    facts = {"level": line.level, "subject": line.subject, "text": line.text}
    tell(json_text({**event, **facts}))

"""Views of a run in progress: a live picture on a terminal, plain lines elsewhere."""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.padding import Padding

from app.cli.agent_columns import agent_cells, agent_columns, remark, shown_state
from app.cli.messages import tell
from app.cli.output import console, reason, seconds
from app.cli.styles import DIM, STYLES, styled
from app.cli.tables import INDENT, fit, row_lines
from app.cli.wrapping import item
from app.domain.counts import counted
from app.domain.money import aligned_dollars
from app.domain.plain_text import shown_line
from app.domain.run_ids import short_id
from app.domain.status import AgentStatus
from app.events.texts import Piece
from app.monitoring.progress import AgentProgress, RunProgress

#: If a run has more agents than this, each level shows only agents that failed, were retried or
#: completed in part.
MAX_AGENTS_SHOWN = 40
ERROR_WIDTH = 100
#: Maximum length of a printed line of streamed text, and of the end of a text in a picture.
TEXT_WIDTH = 100
#: The blanks before what is told below an agent.
BELOW = " " * 6


class LineView:
    """A view that prints lines: levels that begin, changes of agents, and agents' streamed texts.

    Args:
        stream: Stream for the lines; None means standard output.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._status: str | None = None
        self._level = -1
        self._known: dict[str, str] = {}
        self._texts: dict[str, str] = {}

    def show(self, run: RunProgress) -> None:
        """Print the changes since the last call."""
        if run.status != self._status and not run.status.is_final:
            self.note(f"run {run.id} ({run.workflow}): {run.status}")
        self._status = run.status
        for level, agents in enumerate(run.levels()):
            if level <= run.level and level > self._level and run.started_at is not None:
                self._level = level
                self.note(f"level {level + 1} of {run.level_count}: {_counted(agents)}")
            for agent in agents:
                self._show_agent(agent)
        if run.status.is_final:
            self.note(summary(run))

    def add_text(self, piece: Piece) -> None:
        """Print the complete lines of a streamed text; break long lines at a space."""
        if not piece.offset:
            self._end_text(piece.agent)
        *lines, rest = (self._texts.pop(piece.agent, "") + piece.text).split("\n")
        while len(rest) > TEXT_WIDTH:
            cut = rest.rfind(" ", 1, TEXT_WIDTH) + 1 or TEXT_WIDTH
            lines, rest = [*lines, rest[:cut]], rest[cut:]
        for line in lines:
            self._tell_text(piece.agent, line)
        self._texts[piece.agent] = rest

    def note(self, text: str) -> None:
        """Print a line."""
        tell(text, file=self._stream)

    def _end_text(self, agent: str) -> None:
        self._tell_text(agent, self._texts.pop(agent, ""))

    def _tell_text(self, agent: str, line: str) -> None:
        if line.strip():
            self.note(f"  {agent} | {shown_line(line)}")

    def _show_agent(self, agent: AgentProgress) -> None:
        tenths = agent.items_ended * 10 // agent.item_count if agent.item_count else 0
        state = f"{shown_state(agent)} {agent.retries}" + (f" {tenths}" if tenths else "")
        if state == self._known.get(agent.name, "pending 0"):
            return
        if agent.status is not AgentStatus.RUNNING:
            self._end_text(agent.name)
        self._known[agent.name] = state
        retry = f" (retry {agent.retries})" if agent.retries and not agent.status.is_final else ""
        text = f"  {agent.label} ({agent.module}, {agent.model}): {shown_state(agent)}{retry}"
        if agent.sub_run_id is not None and not agent.status.is_final:
            text += f" as run {agent.sub_run_id}"
        if agent.status.is_final:
            took = seconds(agent.started_at, agent.finished_at)
            text = ", ".join(filter(None, (text, took, _first_token(agent), _cost(agent))))
        if agent.error:
            text += f": {reason(agent.error, ERROR_WIDTH)}"
        self.note(text)


class LiveView:
    """A view that draws all levels over the last picture; use the view as a context manager."""

    def __init__(self) -> None:
        self._live = Live(console=console(), refresh_per_second=8, transient=False)
        self._texts: dict[str, str] = {}
        self._run: RunProgress | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, run: RunProgress) -> None:
        """Draw the run."""
        self._run = run
        self._live.update(picture(run, self._texts), refresh=run.status.is_final)

    def add_text(self, piece: Piece) -> None:
        """Draw the newest part of an agent's text below that agent."""
        said = self._texts.get(piece.agent, "") if piece.offset else ""
        self._texts[piece.agent] = (said + piece.text)[-2 * TEXT_WIDTH :]
        if self._run is not None:
            self._live.update(picture(self._run, self._texts))

    def note(self, text: str) -> None:
        """Print a line above the picture."""
        self._live.console.print(text)


def best_view() -> contextlib.AbstractContextManager[LineView | LiveView]:
    """Return the view that suits standard output: a picture on a terminal, lines elsewhere."""
    return LiveView() if sys.stdout.isatty() else contextlib.nullcontext(LineView())


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A run in lines: each level has a heading, and the level's agents are below.

    Attributes:
        run: The run.
        texts: The end of each agent's streamed text; the text is shown while that agent runs.
    """

    run: RunProgress
    texts: Mapping[str, str] = field(default_factory=dict)

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the lines."""
        run, width = self.run, options.max_width
        yield item(summary(run, short_id(run.id)), "", style=STYLES.get(run.status, ""))
        columns = agent_columns(run.agents)
        rows = {agent.name: agent_cells(agent, columns) for agent in run.agents}
        layout = fit(columns, list(rows.values()), width - INDENT)
        for level, agents in enumerate(run.levels()):
            style = "bold" if level == run.level and not run.status.is_final else ""
            yield styled(f"level {level + 1}: {_counted(agents)}", style=style)
            for agent in agents if len(run.agents) <= MAX_AGENTS_SHOWN else _notable(agents):
                for line in row_lines(columns, rows[agent.name], layout):
                    yield Padding(line, (0, 0, 0, INDENT), expand=False)
                yield from self._below(agent)

    def _below(self, agent: AgentProgress) -> Iterator[RenderableType]:
        if agent.status is AgentStatus.RUNNING and (said := self.texts.get(agent.name)):
            yield item(shown_line(said)[-TEXT_WIDTH:], BELOW, style=DIM)
        if told := remark(agent):
            yield item(told, BELOW, most=ERROR_WIDTH, style=STYLES.get(shown_state(agent), ""))


def picture(run: RunProgress, texts: Mapping[str, str] | None = None) -> Picture:
    """Return a picture of a run.

    Args:
        run: The run.
        texts: The end of each agent's streamed text; the text is shown while that agent runs.
    """
    return Picture(run=run, texts=dict(texts or {}))


def summary(run: RunProgress, id_: str = "") -> str:
    """Return a run as one line; ``id_`` replaces the whole id."""
    parts = (
        f"run {id_ or run.id} ({run.workflow}): {run.status}",
        _counted(run.agents),
        seconds(run.started_at, run.finished_at),
        run.shortfall,
        aligned_dollars(run.spent_usd),
    )
    return ", ".join(filter(None, parts)) + (f": {run.error}" if run.error else "")


def _counted(agents: Sequence[AgentProgress]) -> str:
    counts = Counter(map(shown_state, agents))
    total = counted(len(agents), "agent")
    states = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    return total if set(counts) <= {"pending"} else f"{total}: {states}"


def _notable(agents: list[AgentProgress]) -> list[AgentProgress]:
    return [
        agent for agent in agents if agent.status.is_failure or agent.retries or agent.is_partial
    ][:10]


def _first_token(agent: AgentProgress) -> str:
    return "" if agent.first_token_s is None else f"first token {agent.first_token_s:.2f} s"


def _cost(agent: AgentProgress) -> str:
    return aligned_dollars(agent.spent_usd) if agent.spent_usd else ""

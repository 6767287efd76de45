"""How a run that is going on looks: a live picture on a terminal, plain lines elsewhere."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self, TextIO

from app.cli.output import STYLES, console, dollars, reason, seconds, shorten
from app.monitoring.progress import AgentProgress, RunProgress

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

#: Runs of more agents show their levels and only what is worth a look.
MAX_AGENTS_SHOWN = 40
MARKS = {
    "completed": "✓",
    "running": "▶",
    "waiting": "▷",
    "pending": "·",
    "skipped": "-",
    "cancelled": "✗",
}
ERROR_WIDTH = 100


class LineView:
    """One line for each level that begins and each agent that changes.

    Args:
        stream: Where the lines go.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._status: str | None = None
        self._level = -1
        self._known: dict[str, str] = {}

    def show(self, run: RunProgress) -> None:
        """Print what is new."""
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

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._stream, flush=True)

    def _show_agent(self, agent: AgentProgress) -> None:
        tenths = agent.items_ended * 10 // agent.item_count if agent.item_count else 0
        state = f"{agent.status} {agent.retries}" + (f" {tenths}" if tenths else "")
        if state == self._known.get(agent.name, "pending 0"):
            return
        self._known[agent.name] = state
        retry = f" (retry {agent.retries})" if agent.retries and not agent.status.is_final else ""
        text = f"  {agent.label} ({agent.module}, {agent.model}): {agent.status}{retry}"
        if agent.sub_run_id is not None and not agent.status.is_final:
            text += f" for run {agent.sub_run_id}"
        if agent.status.is_final:
            took = seconds(agent.started_at, agent.finished_at)
            text += "".join(f", {part}" for part in (took, _cost(agent)) if part)
        if agent.error and agent.status != "completed":
            text += f": {reason(agent.error, ERROR_WIDTH)}"
        self.note(text)


class LiveView:
    """A picture of all levels that is drawn anew in place; use it as a context manager."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(console=console(), refresh_per_second=8, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, run: RunProgress) -> None:
        """Draw it."""
        self._live.update(picture(run), refresh=run.status.is_final)

    def note(self, text: str) -> None:
        """Print a line above the picture."""
        self._live.console.print(text)


def picture(run: RunProgress) -> "Group":
    """A run as a picture: a heading per level, its agents below."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(summary(run), style=STYLES.get(run.status, ""))]
    widths = [
        max((len(text) for text in texts), default=0)
        for texts in zip(*(_cells(agent) for agent in run.agents), strict=True)
    ]
    for level, agents in enumerate(run.levels()):
        style = "bold" if level == run.level and not run.status.is_final else ""
        parts.append(Text(f"level {level + 1}: {_counted(agents)}", style=style))
        for agent in agents if len(run.agents) <= MAX_AGENTS_SHOWN else _notable(agents):
            cells = zip(_cells(agent), widths, strict=True)
            line = "  ".join(text.ljust(width) for text, width in cells)
            parts.append(Text(f"  {line}", STYLES[agent.status], no_wrap=True))
            if agent.error and agent.status != "completed":
                parts.append(Text(f"      {shorten(agent.error, ERROR_WIDTH)}", style="red"))
    return Group(*parts)


def _cells(agent: AgentProgress) -> tuple[str, ...]:
    return (
        f"{MARKS.get(agent.status, '!')} {agent.label}",
        agent.module,
        agent.model,
        seconds(agent.started_at, agent.finished_at) or str(agent.status),
        _cost(agent),
    )


def summary(run: RunProgress) -> str:
    """A run in one line."""
    took = seconds(run.started_at, run.finished_at)
    parts = [
        f"run {run.id} ({run.workflow}): {run.status}",
        _counted(run.agents),
        *([took] if took else []),
        dollars(run.spent_usd),
    ]
    return ", ".join(parts) + (f": {run.error}" if run.error else "")


def _counted(agents: Sequence[AgentProgress]) -> str:
    counts = Counter(str(agent.status) for agent in agents)
    total = f"{len(agents)} agent{'s' if len(agents) != 1 else ''}"
    states = ", ".join(f"{count} {status}" for status, count in counts.items())
    return total if set(counts) == {"pending"} else f"{total}: {states}"


def _notable(agents: list[AgentProgress]) -> list[AgentProgress]:
    return [agent for agent in agents if agent.status.is_failure or agent.retries][:10]


def _cost(agent: AgentProgress) -> str:
    return dollars(agent.spent_usd) if agent.spent_usd else ""

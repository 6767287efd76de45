"""The picture of `agentchord watch`, which fits the screen for any number of agents."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from rich.cells import cell_len
from rich.console import Group
from rich.live import Live as Screen
from rich.text import Text

from app.cli.agent_columns import agent_cells, agent_columns, remark, shown_state
from app.cli.output import console
from app.cli.styles import AMBER, CYAN, DIM, RED, STYLES, styled
from app.cli.tables import Column, fit, number, row_lines
from app.cli.wrapping import shorten
from app.domain.counts import counted
from app.domain.money import aligned_dollars, dollars
from app.domain.plain_text import shown
from app.domain.run_ids import short_id
from app.domain.status import AgentStatus
from app.events.texts import Piece
from app.monitoring.activity import Activity
from app.monitoring.explain import Live, explain_waits
from app.monitoring.findings import AT_WORK, Finding, condensed
from app.monitoring.progress import AgentProgress, RunProgress
from app.monitoring.wording import names, seconds_of

BAR_WIDTH, SHORT_BAR = 24, 10
#: Shares of the lines below the head: levels and waits get these shares, and agents get the rest.
LEVEL_SHARE, WAIT_SHARE = 0.35, 0.35
FEWEST_LINES = 3
#: The states by which agents are counted; ``other`` are skipped and cancelled agents.
GROUPS = ("done", "running", "waiting", "pending", "failed", "other")
LEVELS = (
    number("level", room=5),
    Column(heading="progress", drop=2),
    number("agents", room=6),
    *(number(each, room=6) for each in GROUPS[:-1]),
    number(GROUPS[-1], room=6, drop=1),
)


class WatchView:
    """A view on the whole screen; use it as a context manager."""

    def __init__(self) -> None:
        self._console = console()
        # Each picture is drawn over the last picture, and only on request, so the screen is never
        # blank.
        self._screen = Screen(console=self._console, screen=True, auto_refresh=False)
        self._activity: Activity | None = None
        self._live = Live()
        self._notes: list[str] = []

    def __enter__(self) -> Self:
        self._screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._screen.stop()
        for note in self._notes:
            self._console.print(note)

    def update(self, activity: Activity, live: Live) -> None:
        """Store the activity of the run and the live state of the cluster for the next picture."""
        self._activity, self._live = activity, live

    def show(self, run: RunProgress) -> None:
        """Draw the run."""
        width, height = self._console.size
        activity = self._activity
        # If the run has ended, the last activity was read before that end.
        waiting = activity is not None and not run.status.is_final
        waits = explain_waits(activity.history, self._live) if activity and waiting else ()
        lines = watch_lines(run, activity, waits, width=width, height=height - 1)
        self._screen.update(Group(*lines), refresh=True)

    def add_text(self, piece: Piece) -> None:
        """Ignore the text, because this picture has no room for it."""

    def note(self, text: str) -> None:
        """Keep a line until the picture is closed."""
        self._notes.append(text)


def watch_lines(
    run: RunProgress,
    activity: Activity | None,
    waits: Sequence[Finding],
    *,
    width: int,
    height: int,
) -> list[Text]:
    """Return a run as lines that fit a screen.

    Args:
        run: The run.
        activity: The current activity of the run; None if the activity has not been read yet.
        waits: The findings about the work and the waits of the run's agents.
        width: Maximum number of characters in a line.
        height: Maximum number of lines.
    """
    lines = _head(run, activity, width)
    room = max(height - len(lines) - 4, 3 * FEWEST_LINES)
    lines += _levels(run, width, max(FEWEST_LINES, int(room * LEVEL_SHARE)))
    waiting = condensed((each for each in waits if each.reason not in AT_WORK), 1)
    lines += _waits(waiting, width, max(FEWEST_LINES, int(room * WAIT_SHARE)))
    return (lines + _agents(run, activity, width, height - len(lines)))[:height]


def _head(run: RunProgress, activity: Activity | None, width: int) -> list[Text]:
    took = _took(run, activity)
    level = f"level {min(run.level + 1, run.level_count)} of {run.level_count}"
    before = "  ".join(filter(None, (f"run {short_id(run.id)}", str(run.status), level, took)))
    lines = [
        _line(f"{before}  {run.workflow}", width, f"bold {STYLES.get(run.status, '')}"),
        _money(run, activity, width),
    ]
    if run.shortfall:
        lines.append(_line(f"inside {run.shortfall}", width, RED))
    return [*lines, _line(run.error, width, RED)] if run.error else lines


def _money(run: RunProgress, activity: Activity | None, width: int) -> Text:
    spent = float(run.spent_usd / run.limit_usd) if run.limit_usd else 0.0
    amounts = f"{aligned_dollars(run.spent_usd)} of {dollars(run.limit_usd)}"
    calls = f"  {counted(activity.calls, 'call')}, {activity.calls_per_s:.1f}/s" if activity else ""
    style = AMBER if spent >= 0.8 else ""  # noqa: PLR2004  as the budgets' thresholds
    return _line(f"cost  {_bar(spent)} {amounts}{calls}", width, style)


def _levels(run: RunProgress, width: int, most: int) -> list[Text]:
    """Return a table with a line for the whole run and for each level near the current one."""
    levels = list(enumerate(run.levels()))
    first = max(0, min(run.level - most // 2, len(levels) - most))
    near = levels[first : first + most]
    rows = [("all", *_counts(run.agents))]
    rows += [(str(number_ + 1), *_counts(agents)) for number_, agents in near]
    layout = fit(LEVELS, rows, width)
    headings = tuple(column.heading for column in LEVELS)
    lines = [styled(""), *row_lines(LEVELS, headings, layout, heads=True)]
    styles = ["", *(_level_style(run, level, agents) for level, agents in near)]
    for row, style in zip(rows, styles, strict=True):
        for line in row_lines(LEVELS, row, layout):
            line.stylize(style)
            lines.append(line)
    return lines


def _level_style(run: RunProgress, level: int, agents: Sequence[AgentProgress]) -> str:
    failed = any(agent.status.is_failure for agent in agents)
    return RED if failed else "bold" if level == run.level else ""


def _counts(agents: Sequence[AgentProgress]) -> tuple[str, ...]:
    """Return a bar, the number of agents, and the numbers of agents by state."""
    counts = Counter(_group(agent) for agent in agents)
    done = sum(agent.status.is_final for agent in agents)
    by_state = (f"{counts[each]:,}" if counts[each] else "" for each in GROUPS)
    return (_bar(done / max(len(agents), 1), SHORT_BAR), f"{len(agents):,}", *by_state)


def _group(agent: AgentProgress) -> str:
    """Return the heading under which an agent is counted."""
    if agent.status.is_failure:
        return "failed"
    named = {"completed": "done", "skipped": "other", "cancelled": "other"}
    return named.get(agent.status, shown_state(agent))


def _waits(waits: Sequence[Finding], width: int, most: int) -> list[Text]:
    by_number = sorted(waits, key=lambda each: -len(each.agents))
    told = [(_who(each.agents), each.predicate) for each in by_number[:most]]
    if len(by_number) > most:
        left = sum(len(each.agents) for each in by_number[most - 1 :])
        told[-1] = (counted(left, "other"), "waits" if left == 1 else "wait")
    margin = width // 4
    lines = [styled(""), *(_wait(who, text, margin, width) for who, text in told)]
    return lines if told else []


def _wait(who: str, predicate: str, margin: int, width: int) -> Text:
    name = shorten(who, margin)
    return _line(f"{name}{' ' * (margin - cell_len(name))}  {predicate}", width, CYAN)


def _agents(run: RunProgress, activity: Activity | None, width: int, room: int) -> list[Text]:
    """List failed agents, then running agents (the longest first), then ended agents."""
    seen = [agent for agent in run.agents if agent.started_at or agent.status.is_failure]
    if not seen or room <= FEWEST_LINES:
        return []
    columns = tuple(
        replace(column, cut=column.align == "left") for column in agent_columns(run.agents)
    )
    # The widths come from all agents, so that the columns stay where they are.
    layout = fit(columns, [agent_cells(agent, columns) for agent in run.agents], width)
    headings = tuple(column.heading for column in columns)
    lines = [styled(""), *row_lines(columns, headings, layout, heads=True)]
    shown = sorted(seen, key=_urgency)
    while shown:
        agent = shown[0]
        row = agent_cells(agent, columns, _took(agent, activity))
        own = list(row_lines(columns, row, layout))
        own += [styled(f"  {shorten(remark(agent), width - 2)}")] if remark(agent) else []
        if len(lines) + len(own) + (len(shown) > 1) > room:
            return [*lines, _line(f"and {_counted(shown)}", width, DIM)]
        for line in own:
            line.stylize(STYLES.get(shown_state(agent), ""))
        lines += own
        shown.pop(0)
    return lines


def _urgency(agent: AgentProgress) -> tuple[int, float]:
    failed, runs = agent.status.is_failure, agent.status is AgentStatus.RUNNING
    since = agent.started_at.timestamp() if agent.started_at else 0.0
    if failed or runs:
        return (0 if failed else 1), since
    return (2 if agent.finished_at else 3), -since


def _took(what: RunProgress | AgentProgress, activity: Activity | None) -> str:
    """Return the duration of a run or an agent, up to its end or else up to the last reading."""
    end = what.finished_at or (activity.history.now if activity else None)
    if end is None or what.started_at is None:
        return ""
    return seconds_of(max((end - what.started_at).total_seconds(), 0))


def _who(agents: Sequence[str]) -> str:
    return names(agents) if len(agents) <= 2 else counted(len(agents), "agent")  # noqa: PLR2004  fits


def _counted(agents: Sequence[AgentProgress]) -> str:
    counts = Counter(_group(agent) for agent in agents)
    states = ", ".join(f"{counts[each]:,} {each}" for each in GROUPS if counts[each])
    return f"{counted(len(agents), 'more agent')}: {states}"


def _bar(share: float, width: int = BAR_WIDTH) -> str:
    full = min(max(round(share * width), 0), width)
    return f"[{'#' * full}{'.' * (width - full)}]"


def _line(text: str, width: int, style: str = "") -> Text:
    text = shown(text).translate({ord(each): " " for each in "\t\n"})
    line = styled(text, style, no_wrap=True, overflow="ellipsis")
    line.truncate(width, overflow="ellipsis")
    return line

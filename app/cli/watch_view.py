"""The picture of `agentchord watch`, which fits the screen for any number of agents."""

from collections import Counter
from collections.abc import Sequence
from typing import Self

from rich.console import Group
from rich.live import Live as Screen
from rich.text import Text

from app.cli.output import STYLES, console, dollars, shorten, styled
from app.cli.progress_views import MARKS
from app.domain.plain_text import shown
from app.domain.status import AgentStatus
from app.events.texts import Piece
from app.monitoring.activity import Activity
from app.monitoring.explain import Live, explain_waits
from app.monitoring.findings import AT_WORK, Finding, condensed
from app.monitoring.progress import AgentProgress, RunProgress
from app.monitoring.wording import counted, names, seconds_of

BAR_WIDTH = 24
#: Shares of the lines below the head: levels and waits get these shares, and agents get the rest.
LEVEL_SHARE, WAIT_SHARE = 0.35, 0.35
FEWEST_LINES = 3
ORDER = ("completed", "running", "waiting", "pending", "skipped", "cancelled")


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
    room = max(height - len(lines) - 3, 3 * FEWEST_LINES)
    lines += _levels(run, width, max(FEWEST_LINES, int(room * LEVEL_SHARE)))
    waiting = condensed((each for each in waits if each.reason not in AT_WORK), 1)
    lines += _waits(waiting, width, max(FEWEST_LINES, int(room * WAIT_SHARE)))
    return (lines + _agents(run, activity, width, height - len(lines)))[:height]


def _head(run: RunProgress, activity: Activity | None, width: int) -> list[Text]:
    done = sum(agent.status.is_final for agent in run.agents)
    took = _took(run, activity)
    level = f"level {min(run.level + 1, run.level_count)} of {run.level_count}"
    title = "  ".join(filter(None, (run.workflow, str(run.status), level, took, str(run.id))))
    spent = float(run.spent_usd / run.limit_usd) if run.limit_usd else 0.0
    limit = dollars(run.limit_usd, places=2)
    calls = f"  {counted(activity.calls, 'call')}, {activity.calls_per_s:.1f}/s" if activity else ""
    lines = [
        _line(title, width, f"bold {STYLES.get(run.status, '')}"),
        _line(f"agents {_bar(done / max(len(run.agents), 1))} {_counted(run.agents)}", width),
        _line(
            f"cost   {_bar(spent)} {dollars(run.spent_usd)} of {limit}{calls}",
            width,
            "yellow" if spent >= 0.8 else "",  # noqa: PLR2004  as the budgets' thresholds
        ),
    ]
    if run.shortfall:
        lines.append(_line(f"inside {run.shortfall}", width, "red"))
    return [*lines, _line(run.error, width, "red")] if run.error else lines


def _levels(run: RunProgress, width: int, most: int) -> list[Text]:
    levels = list(enumerate(run.levels()))
    first = max(0, min(run.level - most // 2, len(levels) - most))
    lines = [_line("", width)]
    for number, agents in levels[first : first + most]:
        done = sum(agent.status.is_final for agent in agents)
        failed = any(agent.status.is_failure for agent in agents)
        style = "red" if failed else "bold" if number == run.level else ""
        bar = _bar(done / max(len(agents), 1))
        lines.append(_line(f"level {number + 1:<3} {bar} {_counted(agents)}", width, style))
    return lines


def _waits(waits: Sequence[Finding], width: int, most: int) -> list[Text]:
    lines = [_line("", width)]
    by_number = sorted(waits, key=lambda each: -len(each.agents))
    lines += [
        _line(f"{_who(each.agents)} {each.predicate}", width, "cyan") for each in by_number[:most]
    ]
    if len(by_number) > most:
        left = sum(len(each.agents) for each in by_number[most - 1 :])
        text = "1 other waits" if left == 1 else f"{left:,} others wait"
        lines[-1] = _line(text, width, "cyan")
    return lines if len(lines) > 1 else []


def _agents(run: RunProgress, activity: Activity | None, width: int, room: int) -> list[Text]:
    """List failed agents, then running agents (the longest first), then ended agents."""

    def urgency(agent: AgentProgress) -> tuple[int, float]:
        failed, runs = agent.status.is_failure, agent.status is AgentStatus.RUNNING
        since = agent.started_at.timestamp() if agent.started_at else 0.0
        if failed or runs:
            return (0 if failed else 1), since
        return (2 if agent.finished_at else 3), -since

    seen = (agent for agent in run.agents if agent.started_at or agent.status.is_failure)
    shown = sorted(seen, key=urgency)
    lines = [_line("", width)] if shown and room > 1 else []
    for agent in shown[: max(room - 1, 0)]:
        facts = (
            agent.module,
            agent.model,
            _took(agent, activity),
            dollars(agent.spent_usd) if agent.spent_usd else "",
            f"retry {agent.retries}" if agent.retries else "",
            shorten(agent.error, width) if agent.error and agent.status != "completed" else "",
        )
        text = "  ".join(filter(None, facts))
        mark = MARKS.get(agent.status, "!")
        lines.append(_line(f"{mark} {agent.label}  {text}", width, STYLES[agent.status]))
    return lines


def _took(what: RunProgress | AgentProgress, activity: Activity | None) -> str:
    """Return the duration of a run or an agent, up to its end or else up to the last reading."""
    end = what.finished_at or (activity.history.now if activity else None)
    if end is None or what.started_at is None:
        return ""
    return seconds_of(max((end - what.started_at).total_seconds(), 0))


def _who(agents: Sequence[str]) -> str:
    return names(agents) if len(agents) <= 2 else f"{len(agents)} agents"  # noqa: PLR2004  fits


def _counted(agents: Sequence[AgentProgress]) -> str:
    counts = Counter(str(agent.status) for agent in agents)
    states = sorted(counts, key=lambda each: ORDER.index(each) if each in ORDER else -1)
    return f"{len(agents)}: " + ", ".join(f"{counts[state]} {state}" for state in states)


def _bar(share: float) -> str:
    full = min(max(round(share * BAR_WIDTH), 0), BAR_WIDTH)
    return f"[{'#' * full}{'.' * (BAR_WIDTH - full)}]"


def _line(text: str, width: int, style: str = "") -> Text:
    text = shown(text).translate({ord(each): " " for each in "\t\n"})
    line = styled(text, style, no_wrap=True, overflow="ellipsis")
    line.truncate(width, overflow="ellipsis")
    return line

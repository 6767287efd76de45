"""The view of a run fits the screen for runs of any size."""

import io
import re

import pytest
from rich.console import Group, RenderableType

from app.cli.output import PlainConsole
from app.cli.progress_views import picture
from app.cli.watch_view import watch_lines
from app.domain.plain_text import shown
from app.monitoring.activity import Activity
from app.monitoring.explain import Live, explain_waits
from app.monitoring.run_history import RunHistory
from tests.support.histories import START, agent, history, standing

BUSY = Live(
    buckets={
        "openai/default": {
            "waiting": 40,
            "concurrency": 10,
            "in_flight": 10,
            "paused_s": 0,
            "tiers": [],
        }
    },
    bucket_of=lambda provider, _: f"{provider}/default",
)


def drawn(run: RunHistory, width: int = 80, height: int = 24) -> list[str]:
    activity = Activity(history=run, calls=1234, calls_per_s=12.34)
    waits = explain_waits(run, BUSY)
    lines = watch_lines(run.run, activity, waits, width=width, height=height)
    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)
    return [line.plain for line in lines]


def test_a_small_run_is_shown_whole() -> None:
    run = history(
        agent("parser"),
        agent("screener", status="running"),
        agent("writer", 1, status="pending", started_at=None),
        dependencies={"writer": ["screener"]},
        standing=(
            standing("screener", status="running"),
            standing("writer", level=1),
        ),
    )

    lines = drawn(run, width=120)

    assert lines[0] == "run 00000001  running  level 1 of 2  2 min  hiring"
    assert lines[1].endswith("$0.010000 of $1.00  1,234 calls, 12.3/s")
    all_agents, first = (lines[place].split() for place in (4, 5))
    assert all_agents == ["all", "[###.......]", "3", "1", "1", "1"]
    assert first == ["1", "[#####.....]", "2", "1", "1"]
    assert any(line.split()[:6] == "screener waits for the rate limit".split() for line in lines)
    assert any(line.split()[:5] == "writer waits for its dependencies:".split() for line in lines)
    assert any(line.split()[:4] == ["▶", "screener", "HR", "gpt-4o"] for line in lines)


def test_the_columns_stay_where_they_are_while_the_run_goes_on() -> None:
    """The heads of the tables never move, whichever agents are shown and however they stand."""
    heads = set()
    for ended in range(0, 120, 7):
        crowd = [
            agent(
                *(f"agent_{number}" * (1 + number % 3), number // 60),
                status="completed" if number < ended else "running" if runs else "pending",
                started_at=START if runs or number < ended else None,
            )
            for number in range(120)
            if (runs := ended <= number < ended + 10) or True
        ]
        lines = drawn(history(*crowd), height=30)
        heads.add(tuple(line for line in lines if line.startswith(("level", "agent  "))))

    assert len(heads) == 1
    assert len(heads.pop()) == 2


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 15), (200, 60)])
def test_five_hundred_agents_fit_the_screen(width: int, height: int) -> None:
    crowd = [agent(f"a{number}", number // 50, status="running") for number in range(499)]
    odd = agent("odd", 9, status="failed", error="broken\x1b[2J " * 50)
    run = history(
        *crowd,
        odd,
        standing=tuple(standing(one.name, status="running") for one in crowd),
    )

    lines = drawn(run, width, height)

    assert any(line.split()[:6] == "499 agents wait for the rate".split() for line in lines)
    assert any("odd" in line for line in lines) or height == 15
    assert not any("\x1b" in line for line in lines)


def test_nothing_is_known_yet_of_what_a_run_does() -> None:
    run = history(agent("a", status="running")).run

    lines = watch_lines(run, None, (), width=80, height=24)

    assert lines[0].plain == "run 00000001  running  level 1 of 1  hiring"


HOSTILE = "\x1b[2J\x1b]8;;http://x\x07\x08\r\x85\x9b\u202e\u200b[red]:smile:"


def on_a_terminal(drawing: RenderableType) -> str:
    """Draw on a terminal of much room; the styles of AgentChord itself are taken out."""
    screen = PlainConsole(file=io.StringIO(), force_terminal=True, width=2000, highlight=False)
    screen.print(drawing)
    drawn = screen.file
    assert isinstance(drawn, io.StringIO)
    return re.sub(r"\x1b\[[0-9;]*m", "", drawn.getvalue())


def test_both_pictures_spell_a_text_from_outside_as_lines_do() -> None:
    failed = agent("a", status="failed", error=f"error~{HOSTILE}~", module=f"module~{HOSTILE}~")
    busy = agent("b", status="running", finished_at=None)
    run = history(failed, busy, run={"workflow": f"workflow~{HOSTILE}~", "error": "x"})
    activity = Activity(history=run, calls=1, calls_per_s=1.0)
    lines = watch_lines(run.run, activity, (), width=2000, height=40)

    watched = on_a_terminal(Group(*lines))
    followed = on_a_terminal(picture(run.run, {"b": f"text~{HOSTILE}~"}))

    for place in ("workflow", "module", "error"):
        assert f"{place}~{shown(HOSTILE)}~" in watched
        assert f"{place}~{shown(HOSTILE)}~" in followed
    assert f"text~{shown(HOSTILE)}~" in followed
    assert (watched + followed).replace("\n", "").isprintable()

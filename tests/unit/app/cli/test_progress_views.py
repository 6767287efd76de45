"""The views of a run while it is running."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from rich.console import Console

from app.cli.progress_views import LineView, picture
from app.domain.status import AgentStatus, WorkflowStatus
from app.monitoring.progress import AgentProgress, RunProgress

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
DONE = AgentStatus.COMPLETED


def agent(name: str, level: int, **fields: Any) -> AgentProgress:
    given: dict[str, Any] = {
        "name": name,
        "module": "HR",
        "provider": "openai",
        "model": "gpt-4o",
        "level": level,
        "status": AgentStatus.PENDING,
        "attempt": 0,
        "retries": 0,
        "recoveries": 0,
        "error": None,
        "spent_usd": Decimal(0),
        "started_at": None,
        "finished_at": None,
    }
    return AgentProgress(**given | fields)


def ended(agent: AgentProgress, status: AgentStatus = DONE, **fields: Any) -> AgentProgress:
    return replace(
        agent,
        status=status,
        started_at=START,
        finished_at=START + timedelta(seconds=1.5),
        spent_usd=Decimal("0.00025"),
        **fields,
    )


def run(*agents: AgentProgress, **fields: Any) -> RunProgress:
    given: dict[str, Any] = {
        "id": UUID(int=1),
        "workflow": "hiring",
        "version": 1,
        "status": WorkflowStatus.RUNNING,
        "error": None,
        "level": 0,
        "level_count": 2,
        "limit_usd": Decimal(1),
        "spent_usd": Decimal("0.0005"),
        "created_at": START,
        "started_at": START,
        "finished_at": None,
        "agents": agents,
    }
    return RunProgress(**given | fields)


def drawn(progress: RunProgress) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(picture(progress))
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def test_plain_lines_tell_each_change_once() -> None:
    stream = io.StringIO()
    view = LineView(stream)
    parser, screener = agent("parser", 0), agent("screener", 1)

    view.show(run(parser, screener))
    view.show(run(replace(parser, status=AgentStatus.RUNNING), screener))
    view.show(run(replace(parser, status=AgentStatus.RUNNING), screener))
    view.show(run(ended(parser), screener, level=1))
    failure = ended(screener, AgentStatus.FAILED, error="no\nkey")
    view.show(
        run(
            ended(parser),
            failure,
            level=1,
            status=WorkflowStatus.PARTIALLY_COMPLETED,
            finished_at=START + timedelta(seconds=3),
        )
    )

    assert stream.getvalue().splitlines() == [
        f"run {UUID(int=1)} (hiring): running",
        "level 1 of 2: 1 agent",
        "  parser (HR, gpt-4o): running",
        "  parser (HR, gpt-4o): completed, 1.5 s, $0.000250",
        "level 2 of 2: 1 agent",
        "  screener (HR, gpt-4o): failed, 1.5 s, $0.000250: no key",
        (
            f"run {UUID(int=1)} (hiring): partially_completed, "
            "2 agents: 1 completed, 1 failed, 3.0 s, $0.000500"
        ),
    ]


def test_a_retry_is_told_as_one() -> None:
    stream = io.StringIO()
    view = LineView(stream)

    view.show(run(agent("parser", 0, retries=1, error="429: slow down")))

    assert "  parser (HR, gpt-4o): pending (retry 1): 429: slow down" in stream.getvalue()


def test_the_picture_has_a_heading_per_level_and_a_line_per_agent() -> None:
    text = drawn(run(ended(agent("parser", 0)), agent("screener", 1), level=1))

    lines = [line.rstrip() for line in text.splitlines()]
    assert lines == [
        "run 00000001 (hiring): running, 2 agents: 1 completed, 1 pending, $0.000500",
        "level 1: 1 agent: 1 completed",
        "  ✓ parser    HR      gpt-4o  completed      1.5 s  $0.000250",
        "level 2: 1 agent",
        "  · screener  HR      gpt-4o  pending",
    ]


def test_the_picture_of_a_large_run_shows_levels_and_what_needs_a_look() -> None:
    crowd = [ended(agent(f"a{n}", 0)) for n in range(500)]
    failure = ended(agent("odd", 0), AgentStatus.FAILED, error="broken")

    text = drawn(run(*crowd, failure))

    assert "level 1: 501 agents: 500 completed, 1 failed" in text
    assert "odd" in text
    assert "broken" in text
    assert len(text.splitlines()) < 10


def test_items_are_counted_and_told_by_tenths() -> None:
    stream = io.StringIO()
    view = LineView(stream)
    waiting = agent("screen", 0, status=AgentStatus.WAITING, started_at=START, item_count=100)

    for ended_items in (0, 3, 37, 38, 100):
        view.show(run(replace(waiting, items_ended=ended_items, items_failed=ended_items // 37)))

    lines = [line for line in stream.getvalue().splitlines() if "screen" in line]
    assert [line.split(" (HR")[0].strip() for line in lines] == [
        "screen 0/100",
        "screen 37/100 (1 failed)",
        "screen 100/100 (2 failed)",
    ]
    assert "▶ screen  HR      gpt-4o  running      37/100" in drawn(
        run(replace(waiting, items_ended=37))
    )

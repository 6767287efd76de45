"""The columns in which the pictures of a run show its agents; they stay where they are."""

from collections.abc import Sequence
from dataclasses import replace

from app.cli.output import seconds
from app.cli.tables import Column, number, state, words
from app.domain.money import aligned_dollars
from app.domain.plain_text import shown_line
from app.domain.status import AgentStatus
from app.monitoring.progress import AgentProgress

MARKS = {
    "completed": "✓",
    "running": "▶",
    "waiting": "▷",
    "pending": "·",
    "skipped": "-",
    "cancelled": "✗",
}
COLUMNS = (
    words("agent", 16),
    words("module", 8, drop=4),
    words("model", 12, drop=5),
    state(room=10),
    number("items", drop=2),
    number("took", drop=1, room=8),
    number("cost", room=9),
)


def agent_columns(agents: Sequence[AgentProgress]) -> tuple[Column, ...]:
    """Return the columns for the agents of a run; only a run with lists has a column of items."""
    counts = [agent.item_count for agent in agents if agent.item_count is not None]
    room = 2 * len(str(max(counts, default=0))) + 1
    return tuple(
        replace(column, room=room) if column.heading == "items" else column
        for column in COLUMNS
        if counts or column.heading != "items"
    )


def agent_cells(agent: AgentProgress, columns: Sequence[Column], took: str = "") -> tuple[str, ...]:
    """Return the cells of an agent.

    Args:
        agent: The agent.
        columns: The columns.
        took: The time since the agent's start, if the agent has not ended.
    """
    items = "" if agent.item_count is None else f"{agent.items_ended}/{agent.item_count}"
    cells = {
        "agent": f"{MARKS.get(shown_state(agent), '!')} {agent.name}",
        "module": agent.module,
        "model": agent.model,
        "status": shown_state(agent),
        "items": items,
        "took": seconds(agent.started_at, agent.finished_at) or took,
        "cost": aligned_dollars(agent.spent_usd) if agent.spent_usd else "",
    }
    return tuple(shown_line(cells[column.heading]) for column in columns)


def shown_state(agent: AgentProgress) -> str:
    """Return the state of an agent for people.

    An agent that completed without a part of its result is ``partial``. An agent whose elements or
    whose inner run are at work is ``running``; the database has it as ``waiting``.
    """
    if agent.is_partial:
        return "partial"
    inside = agent.item_count is not None or agent.sub_run_id is not None
    if agent.status is AgentStatus.WAITING and inside and agent.waits_until is None:
        return str(AgentStatus.RUNNING)
    return str(agent.status)


def remark(agent: AgentProgress) -> str:
    """Return what the columns do not tell: retries, items without a whole result, the error."""
    parts = (
        f"retry {agent.retries}" if agent.retries else "",
        agent.shortfall,
        agent.error if agent.error and agent.status != "completed" else "",
    )
    return "; ".join(filter(None, parts))

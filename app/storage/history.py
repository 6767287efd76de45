"""Writes into a run's history the lines that are not part of another change."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.session import dumps

ADD_EVENTS: TextClause = text("""
    INSERT INTO events (run_id, agent_run_id, attempt, type, data)
    SELECT e.run_id, e.agent_run_id, e.attempt, e.type, e.data
    FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS e(
        run_id uuid, agent_run_id uuid, attempt int, type text, data jsonb)
    JOIN runs ON runs.id = e.run_id
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryLine:
    """An event of an agent run."""

    run_id: UUID
    agent_run_id: UUID
    attempt: int
    type: str
    data: Mapping[str, Any]


async def add_events(connection: AsyncConnection, lines: Sequence[HistoryLine]) -> list[None]:
    """Write lines of history; if a run no longer exists, its lines are skipped."""
    await connection.execute(ADD_EVENTS, {"events": dumps([asdict(line) for line in lines])})
    return [None] * len(lines)

"""Events of the runs' histories that are written alone, without another change."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from app.storage.group_commit import GroupCommit
from app.storage.history import HistoryLine, add_events
from workers.background import Background
from workers.jobs import Job


class HistoryWriter:
    """Writes events of the history in the background, so that no agent waits for them.

    Its weakness: a killed worker loses the events that are not written yet, and an event may be
    written after the end of its attempt. An event that is necessary for a run is written with the
    record of its attempt instead (``app.storage.records.Ending``).

    Args:
        engine: The process's engine.
        background: Runs steps that no agent waits for.

    Example:
        history.note(job, "circuit_open", {"agent": "a", "provider": "openai", "model": "gpt-4o"})
    """

    def __init__(self, engine: AsyncEngine, background: Background) -> None:
        self._lines: GroupCommit[HistoryLine, None] = GroupCommit(
            engine, add_events, name="history"
        )
        self._background = background

    def note(self, job: Job, type_: str, data: Mapping[str, Any]) -> None:
        """Write an event about an attempt, and return at once."""
        line = HistoryLine(
            run_id=job.run.run_id,
            agent_run_id=job.claimed.id,
            attempt=job.claimed.attempt,
            type=type_,
            data=data,
        )
        self._background.start(self._lines.submit(line), name="history")

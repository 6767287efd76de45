"""The current activity of a run, cheap enough to be read every second."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.monitoring.run_history import RunHistory, read_present

#: Period over which calls are counted to measure their rate.
WINDOW_S = 10.0
# An estimate that was taken back, and its correction, together count as no call.
READ_RATE: TextClause = text("""
    SELECT coalesce(sum(calls), 0)::bigint AS calls, coalesce(sum(calls) FILTER (
        WHERE created_at > clock_timestamp() - make_interval(secs => :window_s)), 0)::bigint
            AS lately
    FROM cost_lines WHERE run_id = ANY(CAST(:run_ids AS uuid[]))
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class Activity:
    """The state of a run at one moment.

    Attributes:
        history: The run without its past.
        calls: Number of calls so far, as in the ledger, with the calls of sub-workflows.
        calls_per_s: Number of calls that ended in the last 10 s, per second.
    """

    history: RunHistory
    calls: int
    calls_per_s: float


async def read_activity(connection: AsyncConnection, run_id: UUID) -> Activity:
    """Read the current activity of a run and of the runs inside it.

    Raises:
        UnknownRun: If there is no such run.
    """
    history = await read_present(connection, run_id)
    values = {"run_ids": list(history.places), "window_s": WINDOW_S}
    found = await connection.execute(READ_RATE, values)
    counted = found.one()
    age_s = (history.now - (history.run.started_at or history.now)).total_seconds()
    over_s = min(max(age_s, 1.0), WINDOW_S)
    return Activity(history=history, calls=counted.calls, calls_per_s=counted.lately / over_s)

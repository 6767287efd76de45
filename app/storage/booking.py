"""Records the thresholds that a booking passes, and wakes the agents that wait for money."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.budgets import budget_label, passed_thresholds
from app.storage.budget_waiters import WakeWaiters, wake_none
from app.storage.fetch import Row
from app.storage.hold_queue import next_in_queue
from app.storage.session import dumps
from app.storage.statements import NOTE_THRESHOLDS

Entry = Mapping[str, Any]

log = structlog.get_logger(__name__)


async def note_booked(
    connection: AsyncConnection,
    rows: Sequence[Row],
    entries: Sequence[Entry],
    *,
    wake: WakeWaiters = wake_none,
) -> None:
    """Note passed thresholds, log overdrafts, and wake agents whose holds may fit now.

    Args:
        connection: Inside the transaction of the booking.
        rows: The rows that APPLY_RECORDS returns for the budgets.
        entries: The cost entries of the booking, in order. If an entry passes a threshold, the
            threshold goes into the history of the entry's run.
        wake: Called with the agent runs whose holds may fit now.
    """
    passed = [line for row in rows for line in _passed(row, entries)]
    if passed:
        await connection.execute(NOTE_THRESHOLDS, {"passed": dumps(passed)})
    for row in rows:
        if row.overdrawn_usd and row.booked > row.released:
            log.error(
                "budget_overdrawn",
                budget=budget_label(row.scope, row.subject, row.period),
                limit_usd=str(row.limit_usd),
                spent_usd=str(row.spent_usd),
                overdrawn_usd=str(row.overdrawn_usd),
            )
    if awaited := [row.id for row in rows if row.awaited]:
        wake(await next_in_queue(connection, awaited))


def _passed(row: Row, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the history lines of the budget's thresholds that this booking has passed."""
    found = passed_thresholds(
        row.thresholds, reached=row.reached, spent_usd=row.spent_usd, limit_usd=row.limit_usd
    )
    return [_line(row, percent, _passing_entry(row, percent, entries)) for percent in found]


def _passing_entry(row: Row, percent: int, entries: Sequence[Entry]) -> Entry:
    """Find the entry with which the spending reached a percentage of the limit."""
    mine = [entry for entry in entries if row.id in entry["budget_ids"]]
    spent_usd = row.spent_usd - row.booked
    for entry in mine:
        spent_usd += Decimal(entry["cost_usd"])
        if passed_thresholds([percent], reached=0, spent_usd=spent_usd, limit_usd=row.limit_usd):
            return entry
    # An earlier change lowered the limit below the spending. This booking records the threshold.
    return mine[-1] if mine else {}


def _line(row: Row, percent: int, entry: Entry) -> dict[str, Any]:
    data = {
        "scope": row.scope,
        "subject": row.subject,
        "period": row.period,
        "share": percent / 100,
        "spent_usd": str(row.spent_usd),
        "limit_usd": str(row.limit_usd),
    }
    log.warning("budget_threshold", **data)
    owner = {name: entry.get(name) for name in ("run_id", "agent_run_id", "attempt")}
    return {"id": row.id, "reached": percent, "data": data, **owner}

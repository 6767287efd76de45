"""Counts the agents of runs; the counts decide whether a level is done, and how a run ends."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.outcome import AgentCounts
from app.storage.fetch import Row, fetch

# In the totals, an agent and its items count as one agent. An agent that waits for a sub-workflow
# counts as running. An agent that waits for its items does not count as open itself, because its
# open items are counted. A sub-workflow that completed in part counts like a failed item.
AGENT_COUNTS: TextClause = text("""
    SELECT a.run_id, count(*) FILTER (WHERE a.parent_id IS NULL) AS total,
        count(*) FILTER (WHERE s.failed AND a.parent_id IS NULL) AS failed,
        count(*) FILTER (WHERE s.failed AND a.parent_id IS NULL AND a.priority >= 8)
            AS critical_failed,
        count(*) FILTER (WHERE s.failed AND a.parent_id IS NOT NULL
            OR a.error_class = 'SubWorkflowPartial') AS failed_items,
        count(*) FILTER (WHERE s.failed AND a.parent_id IS NOT NULL AND a.level = r.level
            AND (a.priority >= 8 OR NOT r.allow_partial_completion)) AS decisive_items,
        count(*) FILTER (WHERE a.status = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE s.running) AS running,
        count(*) FILTER (WHERE a.level = r.level AND (a.status = 'pending' OR s.running)) AS open,
        count(*) FILTER (WHERE a.level = r.level AND a.status = 'waiting'
            AND a.item_count IS NOT NULL) AS to_collect,
        min(a.level) FILTER (WHERE a.level > r.level AND a.status IN ('pending', 'waiting'))
            AS next_level
    FROM agent_runs a JOIN runs r ON r.id = a.run_id
    CROSS JOIN LATERAL (
        SELECT a.status IN ('failed', 'rate_limited', 'budget_exceeded') AS failed,
            a.status = 'running' OR a.status = 'waiting' AND a.item_count IS NULL AS running
    ) s
    WHERE r.id = ANY(CAST(:ids AS uuid[])) GROUP BY a.run_id
""")


async def agent_counts(connection: AsyncConnection, run_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Count the agents of each run by state, and the open agents at the run's level."""
    return {
        row.run_id: row for row in await fetch(connection, AGENT_COUNTS, {"ids": list(run_ids)})
    }


def at_the_end(row: Row) -> AgentCounts:
    """Return the counts that decide how a run ends whose level is done."""
    return AgentCounts(
        total=row.total,
        failed=row.failed,
        critical_failed=row.critical_failed,
        cancelled=row.cancelled,
        failed_items=row.failed_items,
    )

"""Retention: removes the texts of runs that ended long ago; costs are never removed.

Pruning keeps the row of a run and the rows of its agents, with states, times, attempt numbers and
dollars. Pruning removes the run's input, list elements, outputs, error messages, tool calls and
history. The attempts that completed are deleted. The attempts that did not complete stay, because
the report of wasted costs reads these attempts.
"""

from dataclasses import dataclass

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

#: Number of runs that one transaction prunes. Such a transaction takes some seconds, and removes at
#: most some hundred thousand rows.
BATCH = 20

# A run that another process prunes or retries at this moment is locked, and is skipped.
LOCK_PRUNABLE: TextClause = text("""
    SELECT id FROM runs
    WHERE pruned_at IS NULL AND finished_at < now() - make_interval(secs => :older_than_s)
        AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    ORDER BY finished_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
""")
PRUNE: TextClause = text("""
    WITH event_lines AS (
        DELETE FROM events WHERE run_id = ANY(CAST(:ids AS uuid[])) RETURNING 1
    ), tried AS (
        DELETE FROM attempts t USING agent_runs a
        WHERE a.run_id = ANY(CAST(:ids AS uuid[])) AND t.agent_run_id = a.id
            AND t.outcome = 'completed'
        RETURNING 1
    ), kept AS (
        UPDATE attempts t SET error = NULL FROM agent_runs a
        WHERE a.run_id = ANY(CAST(:ids AS uuid[])) AND t.agent_run_id = a.id
            AND t.outcome <> 'completed' AND t.error IS NOT NULL
    ), used AS (
        DELETE FROM tool_calls t USING agent_runs a
        WHERE a.run_id = ANY(CAST(:ids AS uuid[])) AND t.agent_run_id = a.id RETURNING 1
    ), conversed AS (
        DELETE FROM turns t USING agent_runs a
        WHERE a.run_id = ANY(CAST(:ids AS uuid[])) AND t.agent_run_id = a.id
    ), emptied AS (
        UPDATE agent_runs SET output = NULL, error = NULL, item = NULL, kept = NULL,
            seen = NULL
        WHERE run_id = ANY(CAST(:ids AS uuid[])) RETURNING 1
    ), pruned AS (
        UPDATE runs SET input = '{}', pruned_at = clock_timestamp()
        WHERE id = ANY(CAST(:ids AS uuid[])) RETURNING 1
    )
    SELECT (SELECT count(*) FROM pruned) AS runs, (SELECT count(*) FROM emptied) AS agents,
        (SELECT count(*) FROM tried) AS attempts, (SELECT count(*) FROM event_lines) AS events,
        (SELECT count(*) FROM used) AS tool_calls
""")
COUNT_PRUNABLE: TextClause = text("""
    WITH old AS MATERIALIZED (
        SELECT id FROM runs
        WHERE pruned_at IS NULL AND finished_at < now() - make_interval(secs => :older_than_s)
            AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    )
    SELECT (SELECT count(*) FROM old) AS runs,
        (SELECT count(*) FROM agent_runs a JOIN old ON old.id = a.run_id) AS agents,
        (SELECT count(*) FROM attempts t JOIN agent_runs a ON a.id = t.agent_run_id
            JOIN old ON old.id = a.run_id WHERE t.outcome = 'completed') AS attempts,
        (SELECT count(*) FROM events e JOIN old ON old.id = e.run_id) AS events,
        (SELECT count(*) FROM tool_calls t JOIN agent_runs a ON a.id = t.agent_run_id
            JOIN old ON old.id = a.run_id) AS tool_calls
""")
# Events that programs recorded belong to no tenant, so these events stay when the runs of only one
# tenant are pruned.
PRUNE_RECORDED: TextClause = text("""
    WITH gone AS (
        DELETE FROM recorded_events WHERE at < now() - make_interval(secs => :older_than_s)
            AND CAST(:tenant AS text) IS NULL
        RETURNING 1
    )
    SELECT count(*) FROM gone
""")
COUNT_RECORDED: TextClause = text("""
    SELECT count(*) FROM recorded_events WHERE at < now() - make_interval(secs => :older_than_s)
        AND CAST(:tenant AS text) IS NULL
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """Counts of the removed data, or of the data that pruning would remove.

    Attributes:
        runs: Number of runs whose input was removed.
        agents: Number of agent runs whose output and error were removed.
        attempts: Number of removed attempts.
        events: Number of removed lines of history.
        tool_calls: Number of removed tool calls; the turns of these calls were also removed.
        recorded_events: Number of removed events that programs had recorded.
    """

    runs: int = 0
    agents: int = 0
    attempts: int = 0
    events: int = 0
    tool_calls: int = 0
    recorded_events: int = 0

    def __add__(self, other: "Pruned") -> "Pruned":
        return Pruned(
            runs=self.runs + other.runs,
            agents=self.agents + other.agents,
            attempts=self.attempts + other.attempts,
            events=self.events + other.events,
            tool_calls=self.tool_calls + other.tool_calls,
            recorded_events=self.recorded_events + other.recorded_events,
        )


async def prune_batch(
    connection: AsyncConnection, *, older_than_s: float, tenant: str | None = None
) -> Pruned:
    """Prune some runs that ended more than ``older_than_s`` seconds ago, the oldest runs first.

    Args:
        connection: Inside a transaction.
        older_than_s: Seconds since a run's end, by the database's clock.
        tenant: The tenant whose runs are pruned; None means all tenants.

    Returns:
        Counts of the removed data; ``runs`` is 0 if no run is left to prune.
    """
    where = {"older_than_s": older_than_s, "tenant": tenant, "limit": BATCH}
    ids = list(await connection.scalars(LOCK_PRUNABLE, where))
    if not ids:
        return Pruned()
    return Pruned(**(await connection.execute(PRUNE, {"ids": ids})).mappings().one())


async def count_prunable(
    connection: AsyncConnection, *, older_than_s: float, tenant: str | None = None
) -> Pruned:
    """Count the data that pruning would remove now."""
    where = {"older_than_s": older_than_s, "tenant": tenant}
    row = await connection.execute(COUNT_PRUNABLE, where)
    recorded = await connection.scalar(COUNT_RECORDED, where)
    return Pruned(**row.mappings().one(), recorded_events=recorded or 0)


async def prune_recorded(
    connection: AsyncConnection, *, older_than_s: float, tenant: str | None = None
) -> Pruned:
    """Remove old events that programs recorded; if a tenant is given, nothing is removed."""
    where = {"older_than_s": older_than_s, "tenant": tenant}
    gone = await connection.scalar(PRUNE_RECORDED, where)
    return Pruned(recorded_events=gone or 0)

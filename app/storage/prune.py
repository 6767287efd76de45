"""Retention: the texts of runs that ended long ago are removed, their costs never.

A run keeps its row and those of its agents: states, times, attempts and dollars. Its input, the
elements of its lists, its outputs, the texts of its errors, its tool calls and its history go. Of
its attempts those stay that did not complete: the ledger's report of waste reads them.
"""

from dataclasses import dataclass

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

#: Runs of one transaction: some hundred thousand rows at most, in seconds.
BATCH = 20

# A run that another process prunes, or retries right now, is locked: it is passed over.
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
        UPDATE agent_runs SET output = NULL, error = NULL, item = NULL
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
# What programs recorded is no tenant's, so it stays when one tenant's runs are pruned.
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
    """Counts of what was removed, or would be.

    Attributes:
        runs: Runs whose input was removed.
        agents: Agent runs whose output and error were removed.
        attempts: Attempts that were removed.
        events: Lines of history that were removed.
        tool_calls: Tool calls that were removed, with the turns that asked for them.
        recorded_events: Events of programs that were removed.
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
    """Remove the payload of some runs that ended so long ago, the oldest first.

    Args:
        connection: Inside a transaction.
        older_than_s: Seconds since a run's end, by the database's clock.
        tenant: Only runs of this tenant; None takes all.

    Returns:
        What was removed; no runs, if none is left.
    """
    where = {"older_than_s": older_than_s, "tenant": tenant, "limit": BATCH}
    ids = list(await connection.scalars(LOCK_PRUNABLE, where))
    if not ids:
        return Pruned()
    return Pruned(**(await connection.execute(PRUNE, {"ids": ids})).mappings().one())


async def count_prunable(
    connection: AsyncConnection, *, older_than_s: float, tenant: str | None = None
) -> Pruned:
    """Count what pruning would remove now."""
    where = {"older_than_s": older_than_s, "tenant": tenant}
    row = await connection.execute(COUNT_PRUNABLE, where)
    recorded = await connection.scalar(COUNT_RECORDED, where)
    return Pruned(**row.mappings().one(), recorded_events=recorded or 0)


async def prune_recorded(
    connection: AsyncConnection, *, older_than_s: float, tenant: str | None = None
) -> Pruned:
    """Remove events that programs recorded so long ago, unless only a tenant's are asked for."""
    where = {"older_than_s": older_than_s, "tenant": tenant}
    gone = await connection.scalar(PRUNE_RECORDED, where)
    return Pruned(recorded_events=gone or 0)

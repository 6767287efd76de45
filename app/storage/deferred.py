"""Finds and wakes agents that were given back, and that may be claimed again only later."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.progress import LevelPlan, plans_of

# Slots are counted from the Unix epoch by the database's clock, so a slot has the same number in
# all processes.
COMING: TextClause = text("""
    SELECT DISTINCT floor(extract(epoch FROM a.ready_at) / :slot_s)::bigint AS slot,
        extract(epoch FROM clock_timestamp())::float8 AS now
    FROM agent_runs a JOIN runs r ON r.id = a.run_id AND r.level = a.level
    WHERE a.status = 'pending' AND a.attempt > 0
        AND a.ready_at BETWEEN now() - make_interval(secs => :behind_s)
            AND now() + make_interval(secs => :ahead_s)
        AND r.status = 'running' AND r.stop_as IS NULL
    ORDER BY slot
""")
# A lane that has waited for some of the agents has claimed these agents by now. If a run has no
# free place, no lane is needed, because the lane that frees a place claims the agents.
DUE: TextClause = text("""
    SELECT r.id AS run_id, r.level, r.max_parallel_agents, r.priority, a.provider,
        count(*) AS agents
    FROM agent_runs a JOIN runs r ON r.id = a.run_id AND r.level = a.level
    WHERE a.status = 'pending' AND a.attempt > 0
        AND a.ready_at >= to_timestamp(:slot * CAST(:slot_s AS float8))
        AND a.ready_at < to_timestamp((:slot + 1) * CAST(:slot_s AS float8))
        AND r.status = 'running' AND r.stop_as IS NULL
        AND r.max_parallel_agents > (
            SELECT count(*) FROM agent_runs busy
            WHERE busy.run_id = r.id AND busy.status = 'running'
        )
    GROUP BY r.id, a.provider ORDER BY r.priority DESC, r.id
""")

# Locked agents are skipped, because another transaction claims or cancels them.
WAKE_DEFERRED_BY_LIMITS: TextClause = text("""
    WITH waiting AS (
        SELECT id FROM agent_runs
        WHERE status = 'pending' AND attempt > 0 AND ready_at > clock_timestamp()
            AND waits_for LIKE :pattern
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE agent_runs a SET ready_at = clock_timestamp() FROM waiting WHERE a.id = waiting.id
""")
WAKE_DEFERRED: TextClause = text("""
    WITH waiting AS (
        SELECT id FROM agent_runs
        WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'pending' AND waits_for IS NOT NULL
            AND ready_at > clock_timestamp()
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE agent_runs a SET ready_at = clock_timestamp() FROM waiting WHERE a.id = waiting.id
    RETURNING a.id
""")


async def wake_deferred_by_limits(connection: AsyncConnection) -> None:
    """Wake all agents that wait for a limit per hour or day; these agents are ready at once."""
    await connection.execute(WAKE_DEFERRED_BY_LIMITS, {"pattern": "% requests_per_%"})


async def wake_deferred(
    connection: AsyncConnection, waiters: Sequence[Sequence[UUID]]
) -> list[bool]:
    """Make agent runs ready at once if they were given back for a long wait.

    Args:
        connection: Inside a transaction.
        waiters: For each caller, the agent runs that the caller names.

    Returns:
        For each caller, whether at least one of the caller's agent runs was made ready.
    """
    ids = sorted({id_ for each in waiters for id_ in each})
    back = set(await connection.scalars(WAKE_DEFERRED, {"ids": ids}))
    return [not back.isdisjoint(each) for each in waiters]


async def coming_slots(
    connection: AsyncConnection, *, slot_s: float, behind_s: float, ahead_s: float
) -> list[tuple[int, float]]:
    """Find the slots of time in which the wait of an agent ends.

    Args:
        connection: Inside a transaction.
        slot_s: Length of a slot in seconds.
        behind_s: Number of seconds to look back. The look back finds the agents that were made
            ready before the planned end of their wait.
        ahead_s: Number of seconds to look ahead.

    Returns:
        For each slot, its number and the seconds until its end.
    """
    values = {"slot_s": slot_s, "behind_s": behind_s, "ahead_s": ahead_s}
    rows = await connection.execute(COMING, values)
    return [(row.slot, (row.slot + 1) * slot_s - row.now) for row in rows]


async def plan_due(connection: AsyncConnection, *, slot: int, slot_s: float) -> Sequence[LevelPlan]:
    """Find the agents that are still pending after the end of a slot, in runs with free places."""
    return plans_of(await connection.execute(DUE, {"slot": slot, "slot_s": slot_s}))

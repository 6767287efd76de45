"""Starts pending runs, by priority and then age, up to the number that may run at once."""

from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.fetch import fetch
from app.storage.progress import LevelPlan

ADMISSION_LOCK = 7_465_002

SOME_PENDING: TextClause = text("""
    SELECT EXISTS (SELECT FROM runs WHERE status = 'pending' AND stop_as IS NULL)
""")
LOCK_ADMISSION: TextClause = text("SELECT pg_advisory_xact_lock(:key)")
# The runs of sub-workflows take no places of their own. Otherwise outer runs could take all places,
# and would wait for their sub-workflows for ever.
ADMIT: TextClause = text("""
    WITH next AS (
        SELECT id, started_at IS NULL AS first FROM runs
        WHERE status = 'pending' AND stop_as IS NULL AND parent_agent_run_id IS NULL
        ORDER BY priority DESC, id
        LIMIT greatest(:max_running - (
            SELECT count(*) FROM runs WHERE status = 'running' AND parent_agent_run_id IS NULL
        ), 0)
        FOR NO KEY UPDATE
    ), inner_ones AS (
        SELECT id, started_at IS NULL AS first FROM runs
        WHERE status = 'pending' AND stop_as IS NULL AND parent_agent_run_id IS NOT NULL
        ORDER BY id FOR NO KEY UPDATE
    ), admitted AS (
        UPDATE runs SET status = 'running',
            started_at = coalesce(started_at, clock_timestamp()), time_left_s = NULL,
            deadline_at = clock_timestamp()
                + make_interval(secs => coalesce(time_left_s, timeout_s))
        FROM (SELECT * FROM next UNION ALL SELECT * FROM inner_ones) next
        WHERE runs.id = next.id
        RETURNING runs.id, runs.level, runs.max_parallel_agents, runs.priority, next.first
    ), noted AS (
        INSERT INTO events (run_id, type)
        SELECT id, CASE WHEN first THEN 'run_started' ELSE 'run_continued' END FROM admitted
    )
    SELECT d.id AS run_id, d.level, d.max_parallel_agents, d.priority, a.provider, a.agents
    FROM admitted d LEFT JOIN LATERAL (
        SELECT provider, count(*) AS agents FROM agent_runs
        WHERE run_id = d.id AND level = d.level AND status = 'pending' GROUP BY provider
    ) a ON true
    ORDER BY d.priority DESC, d.id, a.agents DESC
""")


async def has_pending(connection: AsyncConnection) -> bool:
    """Return whether any run waits for its admission."""
    return bool((await fetch(connection, SOME_PENDING, {}))[0].exists)


async def admit(connection: AsyncConnection, *, max_running: int) -> list[LevelPlan]:
    """Start pending runs, by priority and then age, up to the number that may run at once.

    Args:
        connection: Inside a transaction.
        max_running: Number of runs that may run at once in the whole cluster.

    Returns:
        The current level of each admitted run. If a resumed run has no agent left to start at this
        level, the plan has no agents. The caller then advances the run.
    """
    await fetch(connection, LOCK_ADMISSION, {"key": ADMISSION_LOCK})
    plans: dict[UUID, LevelPlan] = {}
    for row in await fetch(connection, ADMIT, {"max_running": max_running}):
        plan = LevelPlan(
            run_id=row.run_id,
            level=row.level,
            max_parallel_agents=row.max_parallel_agents,
            priority=row.priority,
        )
        if row.provider is not None:
            plans.setdefault(row.run_id, plan).agents[row.provider] = row.agents
        else:
            plans[row.run_id] = plan
    return list(plans.values())

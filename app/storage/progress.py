"""A run's way through its levels: admitted, advanced level by level, finished.

Every function locks the run's row first and acts only if the run stands where the caller thinks,
so it may be called early, late or twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.outcome import Tally, failure_reason, final_status
from app.domain.status import WorkflowStatus
from app.storage.session import dumps

ADMISSION_LOCK = 7_465_002

LOCK_ADMISSION: TextClause = text("SELECT pg_advisory_xact_lock(:key)")
ADMIT: TextClause = text("""
    WITH next AS (
        SELECT id, started_at IS NULL AS first FROM runs
        WHERE status = 'pending' AND stop_as IS NULL
        ORDER BY priority DESC, id
        LIMIT greatest(:max_running - (SELECT count(*) FROM runs WHERE status = 'running'), 0)
        FOR NO KEY UPDATE
    ), admitted AS (
        UPDATE runs SET status = 'running',
            started_at = coalesce(started_at, clock_timestamp()), time_left_s = NULL,
            deadline_at = clock_timestamp()
                + make_interval(secs => coalesce(time_left_s, timeout_s))
        FROM next WHERE runs.id = next.id
        RETURNING runs.id, runs.level, runs.max_parallel_agents, runs.priority, next.first
    ), noted AS (
        INSERT INTO events (run_id, type)
        SELECT id, CASE WHEN first THEN 'run_started' ELSE 'run_continued' END FROM admitted
    )
    SELECT id AS run_id, level, max_parallel_agents, priority FROM admitted
""")
LOCK_RUNS_FULL: TextClause = text("""
    SELECT id, status, level, level_count, allow_partial_completion, stop_as, stop_reason FROM runs
    WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE
""")
TALLY: TextClause = text("""
    SELECT a.run_id, count(*) AS total,
        count(*) FILTER (WHERE a.status IN ('failed', 'rate_limited', 'budget_exceeded')) AS failed,
        count(*) FILTER (WHERE a.status IN ('failed', 'rate_limited', 'budget_exceeded')
            AND a.priority >= 8) AS critical_failed,
        count(*) FILTER (WHERE a.status = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE a.status = 'running') AS running,
        count(*) FILTER (WHERE a.level = r.level AND a.status IN ('pending', 'running')) AS open,
        min(a.level) FILTER (WHERE a.level > r.level AND a.status = 'pending') AS next_level
    FROM agent_runs a JOIN runs r ON r.id = a.run_id
    WHERE r.id = ANY(CAST(:ids AS uuid[])) GROUP BY a.run_id
""")
SET_LEVELS: TextClause = text("""
    UPDATE runs SET level = m.level
    FROM jsonb_to_recordset(CAST(:moves AS jsonb)) AS m(id uuid, level int) WHERE runs.id = m.id
""")
HAS_PENDING: TextClause = text("""
    SELECT EXISTS (SELECT FROM agent_runs
        WHERE run_id = :id AND level = :level AND status = 'pending')
""")
# Dependents of an agent that did not complete, unless they accept missing inputs.
CANCEL_DEPENDENTS: TextClause = text("""
    WITH cancelled AS (
        UPDATE agent_runs a SET status = 'cancelled', finished_at = clock_timestamp(),
            error_class = 'UpstreamFailed', error = 'upstream failed: ' || broken.names
        FROM (
            SELECT b.id, string_agg(d.name, ', ' ORDER BY d.position) AS names
            FROM agent_runs b JOIN agent_runs d
                ON d.run_id = b.run_id AND d.name = ANY(b.dependencies)
            WHERE b.run_id = :id AND b.level = :level AND b.status = 'pending'
                AND NOT b.accept_missing_inputs AND d.status NOT IN ('completed', 'skipped')
            GROUP BY b.id
        ) broken
        WHERE a.id = broken.id RETURNING a.id, a.run_id, a.name, a.error
    ), noted AS (
        INSERT INTO events (run_id, agent_run_id, type, data)
        SELECT run_id, id, 'agent_cancelled', jsonb_build_object('agent', name, 'error', error)
        FROM cancelled
    )
    SELECT count(*) FROM cancelled
""")
OPEN_BY_PROVIDER: TextClause = text("""
    SELECT a.run_id, r.level, r.max_parallel_agents, r.priority, a.provider, count(*) AS agents
    FROM agent_runs a JOIN runs r ON r.id = a.run_id AND r.level = a.level
    WHERE r.id = ANY(CAST(:ids AS uuid[])) AND a.status = 'pending' AND r.status = 'running'
        AND r.stop_as IS NULL
    GROUP BY a.run_id, r.level, r.max_parallel_agents, r.priority, a.provider
    ORDER BY a.run_id, agents DESC
""")
CANCEL_PENDING: TextClause = text("""
    WITH cancelled AS (
        UPDATE agent_runs SET status = 'cancelled', finished_at = clock_timestamp(),
            error_class = 'RunStopped', error = CAST(:reason AS text)
        WHERE run_id = :id AND status = 'pending' RETURNING id, run_id, name
    )
    INSERT INTO events (run_id, agent_run_id, type, data)
    SELECT run_id, id, 'agent_cancelled',
        jsonb_build_object('agent', name, 'error', CAST(:reason AS text))
    FROM cancelled
""")
# Ready for a few seconds already, so that messages on their way are not sent twice.
READY_RUNS: TextClause = text("""
    SELECT r.id FROM runs r
    WHERE r.status = 'running' AND r.stop_as IS NULL AND r.started_at < now() - interval '5 s'
        AND EXISTS (
            SELECT FROM agent_runs a WHERE a.run_id = r.id AND a.level = r.level
                AND a.status = 'pending' AND a.ready_at < now() - interval '1 s'
        ) AND NOT (:idle_only AND EXISTS (
            SELECT FROM agent_runs a WHERE a.run_id = r.id AND a.status = 'running'
        ))
""")
# Until its calls are closed a run that is being stopped is running, whatever it was before.
STOP: TextClause = text("""
    UPDATE runs SET status = 'running', stop_as = coalesce(stop_as, :as_),
        stop_reason = coalesce(stop_reason, :reason)
    WHERE id = :id
""")
CLOSE_BUDGET: TextClause = text("""
    UPDATE budgets SET closed = true, paused = false WHERE id = :id
""")
FINISH: TextClause = text("""
    WITH finished AS (
        UPDATE runs SET status = :status, error = CAST(:error AS text),
            finished_at = clock_timestamp()
        WHERE id = :id RETURNING id
    )
    INSERT INTO events (run_id, type, data)
    SELECT id, 'run_' || :status,
        jsonb_strip_nulls(jsonb_build_object('error', CAST(:error AS text)))
    FROM finished
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelPlan:
    """A level that has just become ready to be dispatched.

    Attributes:
        run_id: The run.
        level: Its level.
        max_parallel_agents: Agents of the run that may be in progress at once.
        priority: Priority of the run, 1 to 10.
        agents: Number of pending agents by provider, most first.
    """

    run_id: UUID
    level: int
    max_parallel_agents: int
    priority: int
    agents: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What advancing did to one run: it ended, or a level is to be dispatched, or neither."""

    plan: LevelPlan | None = None
    finished: bool = False


async def admit(connection: AsyncConnection, *, max_running: int) -> list[LevelPlan]:
    """Start pending runs, by priority and then age, up to the number that may run at once.

    Args:
        connection: Inside a transaction.
        max_running: Runs that may be running at once in the whole cluster.

    Returns:
        The level at which each admitted run stands. It has no agents if a run that is resumed has
        nothing left to start there: then it is to be advanced.
    """
    await connection.execute(LOCK_ADMISSION, {"key": ADMISSION_LOCK})
    rows = (await connection.execute(ADMIT, {"max_running": max_running})).mappings()
    standing = {row["run_id"]: LevelPlan(**row) for row in rows}
    ready = await plan_levels(connection, list(standing))
    return list((standing | {plan.run_id: plan for plan in ready}).values())


async def plan_levels(connection: AsyncConnection, run_ids: Sequence[UUID]) -> list[LevelPlan]:
    """What is pending in the current level of running runs."""
    if not run_ids:
        return []
    plans: dict[UUID, LevelPlan] = {}
    for row in await connection.execute(OPEN_BY_PROVIDER, {"ids": list(run_ids)}):
        plan = plans.setdefault(
            row.run_id,
            LevelPlan(
                run_id=row.run_id,
                level=row.level,
                max_parallel_agents=row.max_parallel_agents,
                priority=row.priority,
            ),
        )
        plan.agents[row.provider] = row.agents
    return list(plans.values())


async def advance(connection: AsyncConnection, steps: Sequence[tuple[UUID, int]]) -> list[Progress]:
    """Move runs on whose level is done: to the next level, or to their end.

    Args:
        connection: Inside a transaction.
        steps: (run, level that the caller believes done), each run once; stale ones change
            nothing.

    Returns:
        What became of each.
    """
    level_of = dict(steps)
    locked = await connection.execute(LOCK_RUNS_FULL, {"ids": sorted(level_of)})
    runs = [
        row
        for row in locked
        if row.status == WorkflowStatus.RUNNING
        and (row.level == level_of[row.id] or row.stop_as is not None)
    ]
    if not runs:
        return [Progress() for _ in steps]
    tallies = {
        row.run_id: row for row in await connection.execute(TALLY, {"ids": [r.id for r in runs]})
    }
    moved: dict[UUID, int] = {}
    finished = set()
    for run in runs:
        counts = tallies[run.id]
        if run.stop_as is not None:
            if not counts.running:
                # What was given back while it was being stopped: a retry, a recovered agent.
                await connection.execute(CANCEL_PENDING, {"id": run.id, "reason": run.stop_reason})
                await _finish(connection, run.id, run.stop_as, run.stop_reason)
                finished.add(run.id)
        elif not counts.open:
            level = await _next_level(connection, run, counts)
            if level is None:
                finished.add(run.id)
            else:
                moved[run.id] = level
    if moved:
        moves = dumps([{"id": run_id, "level": level} for run_id, level in moved.items()])
        await connection.execute(SET_LEVELS, {"moves": moves})
    plans = {plan.run_id: plan for plan in await plan_levels(connection, list(moved))}
    return [Progress(plan=plans.get(run_id), finished=run_id in finished) for run_id, _ in steps]


async def stop(
    connection: AsyncConnection, run_id: UUID, *, as_: WorkflowStatus, reason: str
) -> bool:
    """Have a run end early: nothing new starts, what is in flight is told to stop.

    Closing the run's budget is what makes "nothing new" exact: a call needs a hold, and a hold
    locks the budget's row.

    Args:
        connection: Inside a transaction.
        run_id: The run.
        as_: State to end in, CANCELLED or FAILED.
        reason: Why, for the history.

    Returns:
        Whether the run was still going.
    """
    locked = (await connection.execute(LOCK_RUNS_FULL, {"ids": [run_id]})).one_or_none()
    if locked is None or WorkflowStatus(locked.status).is_final:
        return False
    await connection.execute(STOP, {"id": run_id, "as_": as_, "reason": reason})
    await connection.execute(CANCEL_PENDING, {"id": run_id, "reason": reason})
    counts = (await connection.execute(TALLY, {"ids": [run_id]})).one()
    if not counts.running:
        await _finish(connection, run_id, locked.stop_as or as_, locked.stop_reason or reason)
    await connection.execute(CLOSE_BUDGET, {"id": run_id})
    return True


async def _next_level(connection: AsyncConnection, run: Row[Any], counts: Row[Any]) -> int | None:
    """The level a run goes on with, past those that have nothing to start; None at its end."""
    tally = Tally(
        total=counts.total,
        failed=counts.failed,
        critical_failed=counts.critical_failed,
        cancelled=counts.cancelled,
    )
    reason = failure_reason(tally, allow_partial_completion=run.allow_partial_completion)
    if reason is not None:
        await connection.execute(CANCEL_PENDING, {"id": run.id, "reason": f"run failed: {reason}"})
        await _finish(connection, run.id, WorkflowStatus.FAILED, reason)
        return None
    # Levels may have ended before: an agent that is tried again may be all that is left of one.
    following = run.level_count if counts.next_level is None else counts.next_level
    for level in range(following, run.level_count):
        if tally.failed or tally.cancelled:
            where = {"id": run.id, "level": level}
            cancelled = (await connection.execute(CANCEL_DEPENDENTS, where)).scalar_one()
            tally = replace(tally, cancelled=tally.cancelled + cancelled)
            if not (await connection.execute(HAS_PENDING, where)).scalar_one():
                continue
        return level
    await _finish(connection, run.id, final_status(tally), None)
    return None


async def _finish(
    connection: AsyncConnection, run_id: UUID, status: str, error: str | None
) -> None:
    await connection.execute(FINISH, {"id": run_id, "status": str(status), "error": error})


async def plan_ready_levels(connection: AsyncConnection, *, idle_only: bool) -> list[LevelPlan]:
    """Levels with agents that have been ready for a while.

    Args:
        connection: Inside a transaction.
        idle_only: Leave out runs of which something is in progress.
    """
    ids = list(await connection.scalars(READY_RUNS, {"idle_only": idle_only}))
    return await plan_levels(connection, ids)

"""Moves runs through their levels, and ends runs.

Before a function changes a run, the function locks the run's row. The function changes the run only
if the run is still at the level and in the state that the caller expects. Therefore a function may
be called early, late or twice.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.outcome import failure_reason, final_status
from app.domain.status import WorkflowStatus
from app.storage.agent_counts import agent_counts, at_the_end
from app.storage.fan_out import collect
from app.storage.fetch import Row, fetch
from app.storage.repair import reopen_outdated
from app.storage.run_tree import LOCK_RUNS_FULL
from app.storage.session import dumps
from app.storage.sub_runs import ParentStep, return_to_parent

#: The default of engine.max_collected_bytes.
MAX_COLLECTED_BYTES = 50_000_000

# moves: [{id, level}]. The runs are locked, running and not being stopped.
MOVE: TextClause = text("""
    WITH moved AS (
        UPDATE runs r SET level = m.level
        FROM jsonb_to_recordset(CAST(:moves AS jsonb)) AS m(id uuid, level int) WHERE r.id = m.id
        RETURNING r.id, r.level, r.max_parallel_agents, r.priority
    )
    SELECT a.run_id, m.level, m.max_parallel_agents, m.priority, a.provider, count(*) AS agents
    FROM moved m JOIN agent_runs a ON a.run_id = m.id AND a.level = m.level
    WHERE a.status = 'pending'
    GROUP BY a.run_id, m.level, m.max_parallel_agents, m.priority, a.provider
    ORDER BY a.run_id, agents DESC
""")
# An agent with items may be waiting at this level already, if all of its items had ended when the
# run was cancelled.
HAS_PENDING: TextClause = text("""
    SELECT EXISTS (SELECT FROM agent_runs
        WHERE run_id = :id AND level = :level AND status IN ('pending', 'waiting'))
""")
# Cancels the dependents of agents that did not complete, unless these dependents accept missing
# inputs.
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
# With :all, agents that wait for items are also cancelled, because nothing needs the lists of these
# agents.
CANCEL_PENDING: TextClause = text("""
    WITH cancelled AS (
        UPDATE agent_runs SET status = 'cancelled', finished_at = clock_timestamp(),
            error_class = 'RunStopped', error = CAST(:reason AS text), waits_for = NULL
        WHERE run_id = :id AND (status = 'pending'
            OR status = 'waiting' AND item_count IS NOT NULL AND :all)
        RETURNING id, run_id, name, attempt, item_count
    ), attempted AS (
        UPDATE attempts t SET outcome = 'cancelled', finished_at = clock_timestamp(),
            error_class = 'RunStopped', error = CAST(:reason AS text)
        FROM cancelled c WHERE c.item_count IS NOT NULL
            AND t.agent_run_id = c.id AND t.number = c.attempt
    )
    INSERT INTO events (run_id, agent_run_id, type, data)
    SELECT run_id, id, 'agent_cancelled',
        jsonb_build_object('agent', name, 'error', CAST(:reason AS text))
    FROM cancelled
""")
# Finds runs whose agents have been ready for a while. If agents have become ready only now, the
# messages for these agents may still be on their way, and must not be sent twice.
READY_RUNS: TextClause = text("""
    SELECT r.id FROM runs r
    WHERE r.status = 'running' AND r.stop_as IS NULL AND r.started_at < now() - interval '5 s'
        AND EXISTS (
            SELECT FROM agent_runs a WHERE a.run_id = r.id AND a.level = r.level
                AND a.status = 'pending' AND a.ready_at < now() - interval '1 s'
        ) AND NOT (:idle_only AND EXISTS (
            SELECT FROM agent_runs a WHERE a.run_id = r.id AND a.status = 'running'
        ))
    ORDER BY r.id
""")
# ends: [{id, status, error}].
FINISH: TextClause = text("""
    WITH finished AS (
        UPDATE runs r SET status = e.status, error = e.error, finished_at = clock_timestamp()
        FROM jsonb_to_recordset(CAST(:ends AS jsonb)) AS e(id uuid, status text, error text)
        WHERE r.id = e.id RETURNING r.id, r.status, r.error
    )
    INSERT INTO events (run_id, type, data)
    SELECT id, 'run_' || status, jsonb_strip_nulls(jsonb_build_object('error', error))
    FROM finished
""")


#: A locked run, the state in which the run ends, and the reason.
End = tuple[Row, str, str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelPlan:
    """A level that may be dispatched.

    Attributes:
        run_id: The run.
        level: The run's level.
        max_parallel_agents: Number of the run's agents that may be in progress at once.
        priority: Priority of the run, 1 to 10.
        agents: Number of pending agents by provider; the provider with the most agents comes first.
    """

    run_id: UUID
    level: int
    max_parallel_agents: int
    priority: int
    agents: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """The effect of a step that advances a run: the run's end, a level to dispatch, or neither.

    Attributes:
        plan: The level that has to be dispatched now; None if no level has to be dispatched.
        finished: Whether the run ended.
        open: Whether the run stays at its level, because an agent of the level has not ended.
        parent: The outer run that may go on; None if the end of this run has ended no agent of an
            outer run.
    """

    plan: LevelPlan | None = None
    finished: bool = False
    open: bool = False
    parent: ParentStep | None = None


async def plan_levels(connection: AsyncConnection, run_ids: Sequence[UUID]) -> list[LevelPlan]:
    """Count the pending agents in the current levels of running runs, by provider."""
    if not run_ids:
        return []
    return plans_of(await fetch(connection, OPEN_BY_PROVIDER, {"ids": list(run_ids)}))


async def _move(connection: AsyncConnection, levels: Mapping[UUID, int]) -> list[LevelPlan]:
    """Move runs to other levels; returns the pending agents of these levels."""
    if not levels:
        return []
    moves = [{"id": run_id, "level": level} for run_id, level in levels.items()]
    return plans_of(await fetch(connection, MOVE, {"moves": dumps(moves)}))


def plans_of(rows: Iterable[Row]) -> list[LevelPlan]:
    """Make level plans from rows; each row has the pending agents of one run and provider."""
    plans: dict[UUID, LevelPlan] = {}
    for row in rows:
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


async def lock_runs(connection: AsyncConnection, run_ids: Collection[UUID]) -> list[Row]:
    """Lock runs in the order of their ids, and return the rows for ``advance``."""
    return await fetch(connection, LOCK_RUNS_FULL, {"ids": sorted(run_ids)})


async def advance(
    connection: AsyncConnection,
    steps: Sequence[tuple[UUID, int]],
    *,
    max_collected_bytes: int = MAX_COLLECTED_BYTES,
    locked: Sequence[Row] | None = None,
) -> list[Progress]:
    """Move each run to its next level, or end the run, if the run's current level is done.

    Args:
        connection: Inside a transaction.
        steps: Pairs of a run and the level that the caller believes to be done. Each run may be
            given only once. If a run is no longer at the given level, the pair changes nothing.
        max_collected_bytes: Size of the largest output that may be collected from items or from a
            sub-workflow.
        locked: The rows of ``lock_runs``, if this transaction has locked these runs already, and
            possibly other runs. None if no run is locked.

    Returns:
        The progress of each run.
    """
    level_of = dict(steps)
    if locked is None:
        locked = await lock_runs(connection, level_of)
    runs = [
        row
        for row in locked
        if row.id in level_of
        and row.status == WorkflowStatus.RUNNING
        and (row.level == level_of[row.id] or row.stop_as is not None)
    ]
    if not runs:
        return [Progress() for _ in steps]
    counted = await agent_counts(connection, [run.id for run in runs])
    for run in runs:
        counts = counted[run.id]
        if counts.to_collect and not counts.open and run.stop_as is None:
            await collect(
                connection,
                run.id,
                run.level,
                allow_partial_completion=run.allow_partial_completion,
                max_bytes=max_collected_bytes,
            )
            counted |= await agent_counts(connection, [run.id])
    moved: dict[UUID, int] = {}
    ends: list[End] = []
    staying: set[UUID] = set()
    for run in runs:
        counts = counted[run.id]
        if run.stop_as is not None:
            if not counts.running:
                # While the run was being stopped, a retry or a recovery may have made agents
                # pending again.
                params = {"id": run.id, "reason": run.stop_reason, "all": True}
                await connection.execute(CANCEL_PENDING, params)
                ends.append((run, run.stop_as, run.stop_reason))
        elif not counts.open:
            following = await _next_level(connection, run, counts)
            if isinstance(following, int):
                moved[run.id] = following
            else:
                ends.append((run, *following))
        else:
            staying.add(run.id)
    finished = await finish(connection, ends, max_bytes=max_collected_bytes)
    plans = {plan.run_id: plan for plan in await _move(connection, moved)}
    return [
        Progress(
            plan=plans.get(run_id),
            finished=run_id in finished,
            open=run_id in staying,
            parent=finished.get(run_id),
        )
        for run_id, _ in steps
    ]


async def _next_level(
    connection: AsyncConnection, run: Row, row: Row
) -> int | tuple[WorkflowStatus, str | None]:
    """Find the next level with agents to start, or the state in which the run ends.

    The dependents of failed or cancelled agents are cancelled on the way. After a retry, agents
    whose inputs have changed run again. If the run fails, its pending agents are cancelled.
    """
    counts = at_the_end(row)
    reason = failure_reason(counts, allow_partial_completion=run.allow_partial_completion)
    if reason is not None:
        params = {"id": run.id, "reason": f"run failed: {reason}", "all": False}
        await connection.execute(CANCEL_PENDING, params)
        return WorkflowStatus.FAILED, reason
    if run.round and await reopen_outdated(connection, run.id, run.level):
        row = (await agent_counts(connection, [run.id]))[run.id]
        counts = at_the_end(row)
    # After a retry, later levels may have ended already, so the next level is not always level + 1.
    following = run.level_count if row.next_level is None else row.next_level
    for level in range(following, run.level_count):
        if counts.failed or counts.cancelled:
            where = {"id": run.id, "level": level}
            cancelled = (await connection.execute(CANCEL_DEPENDENTS, where)).scalar_one()
            counts = replace(counts, cancelled=counts.cancelled + cancelled)
            if not (await connection.execute(HAS_PENDING, where)).scalar_one():
                continue
        return level
    return final_status(counts), None


async def finish(
    connection: AsyncConnection,
    ends: Sequence[End],
    *,
    max_bytes: int = MAX_COLLECTED_BYTES,
) -> dict[UUID, ParentStep | None]:
    """End runs; returns for each run the step of the outer run that may go on."""
    if not ends:
        return {}
    rows = [{"id": run.id, "status": str(status), "error": error} for run, status, error in ends]
    await fetch(connection, FINISH, {"ends": dumps(rows)})
    return {
        run.id: None
        if run.parent_agent_run_id is None
        else await return_to_parent(connection, run.id, max_bytes=max_bytes)
        for run, _, _ in ends
    }


async def plan_ready_levels(connection: AsyncConnection, *, idle_only: bool) -> list[LevelPlan]:
    """Find levels with agents that have been ready for a while.

    Args:
        connection: Inside a transaction.
        idle_only: Whether runs with agents in progress are left out.
    """
    ids = list(await connection.scalars(READY_RUNS, {"idle_only": idle_only}))
    return await plan_levels(connection, ids)

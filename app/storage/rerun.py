"""Makes a new run from an ended run: the new run repeats a part, and takes over the other results.

The old run does not change. A rerun from an agent repeats the agent and all agents that depend on
it. A rerun of one item of a list repeats the item. Then the list is collected again, and the agents
that read the list run again, as after a retry.
"""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.domain.for_each import agent_of
from app.domain.status import AgentStatus, WorkflowStatus
from app.errors import RunConflict
from app.storage.control import lock_run, no_such_agent, refuse_pruned
from app.storage.session import dumps

OPEN_RERUN: TextClause = text("""
    SELECT id FROM runs WHERE rerun_of = :id AND rerun_from = :agent AND finished_at IS NULL
""")
AGENTS_OF_RUN: TextClause = text("""
    SELECT name, level, status, dependencies FROM agent_runs
    WHERE run_id = :id AND parent_id IS NULL ORDER BY position
""")
ITEMS_OF_RUN: TextClause = text("""
    SELECT i.name, p.name AS owner FROM agent_runs i JOIN agent_runs p ON p.id = i.parent_id
    WHERE i.run_id = :id AND i.item_index < p.item_count ORDER BY p.position, i.item_index
""")
# agents: [{id, name, again}]. The new run takes over an agent that does not run again, together
# with the agent's output. Such an agent costs the new run nothing, because the old run has paid for
# the agent. The new run begins in the given round. In a later round than 0, agents that read a
# changed output run again.
RERUN: TextClause = text("""
    WITH run AS (
        INSERT INTO runs (id, workflow_id, input, priority, tenant, weight, level, level_count,
            max_parallel_agents, allow_partial_completion, timeout_s, rerun_of, rerun_from, round,
            labels)
        SELECT :new, workflow_id, input, priority, tenant, weight, :level, level_count,
            max_parallel_agents, allow_partial_completion, timeout_s, id, :agent, :round, labels
        FROM runs WHERE id = :id RETURNING id
    ), budget AS (
        INSERT INTO budgets (id, scope, subject, limit_usd, thresholds)
        SELECT run.id, 'run', CAST(run.id AS text), b.limit_usd, b.thresholds
        FROM run, budgets b WHERE b.id = :id
    ), agents AS (
        INSERT INTO agent_runs (id, run_id, name, position, level, module, provider, model,
            priority, dependencies, reads, accept_missing_inputs, limit_usd, status, output,
            error, error_class, seen, kept, started_at, finished_at)
        SELECT n.id, run.id, a.name, position, level, module, provider, model,
            priority, dependencies, reads, accept_missing_inputs, limit_usd,
            CASE WHEN n.again THEN 'pending' ELSE status END,
            CASE WHEN n.again THEN NULL ELSE output END,
            CASE WHEN n.again THEN NULL ELSE error END,
            CASE WHEN n.again THEN NULL ELSE error_class END,
            CASE WHEN n.again THEN NULL ELSE seen END,
            CASE WHEN n.again AND :round > 0 AND status IN ('completed', 'skipped')
                THEN jsonb_build_object('output', output) END,
            CASE WHEN n.again THEN NULL ELSE started_at END,
            CASE WHEN n.again THEN NULL ELSE finished_at END
        FROM run, agent_runs a JOIN jsonb_to_recordset(CAST(:agents AS jsonb))
            AS n(id uuid, name text, again bool) ON n.name = a.name
        WHERE a.run_id = :id
    )
    INSERT INTO events (run_id, type, data)
    SELECT run.id, 'run_created', CAST(:created AS jsonb) FROM run
    UNION ALL
    SELECT CAST(:id AS uuid), 'run_rerun', CAST(:data AS jsonb) FROM run
""")
# items: [{id, name, owner}]. The list of the item that runs again is read again before any item
# starts, so no item is pending now.
TAKE_OVER_ITEMS: TextClause = text("""
    WITH items AS (
        INSERT INTO agent_runs (id, run_id, parent_id, item_index, item, name, position, level,
            module, provider, model, priority, dependencies, reads, accept_missing_inputs,
            limit_usd, status, output, error, error_class, seen, started_at, finished_at)
        SELECT n.id, p.run_id, p.id, i.item_index, i.item, i.name, i.position, i.level,
            i.module, i.provider, i.model, i.priority, i.dependencies, i.reads,
            i.accept_missing_inputs, i.limit_usd,
            CASE WHEN i.name = :agent THEN 'cancelled' ELSE i.status END,
            CASE WHEN i.name = :agent THEN NULL ELSE i.output END,
            CASE WHEN i.name = :agent THEN 'the item runs again' ELSE i.error END,
            CASE WHEN i.name = :agent THEN 'RunStopped' ELSE i.error_class END,
            CASE WHEN i.name = :agent THEN NULL ELSE i.seen END, i.started_at, i.finished_at
        FROM jsonb_to_recordset(CAST(:items AS jsonb)) AS n(id uuid, name text, owner text)
        JOIN agent_runs i ON i.run_id = :id AND i.name = n.name
        JOIN agent_runs p ON p.run_id = :new AND p.name = n.owner
    )
    UPDATE agent_runs made SET item_count = taken.item_count FROM agent_runs taken
    WHERE taken.run_id = :id AND made.run_id = :new AND made.name = taken.name
        AND made.status = 'completed'
""")


async def rerun(connection: AsyncConnection, run_id: UUID, agent: str) -> UUID:
    """Make a new run with the same workflow and input; the new run repeats an agent or an item.

    With the name of an agent, the agents that run again are this agent, all agents that depend on
    it, and all agents without a result. With the name of an item, such as ``handled[20]``, this
    item and all agents and items without a result run again; then the agents run again that read a
    changed output. The remaining results are taken over. Until the new run has ended, another call
    for the same name returns the same new run.

    Args:
        connection: Inside a transaction.
        run_id: The run that has ended.
        agent: Name of the agent or of the item.

    Returns:
        The id of the new run.

    Raises:
        WorkflowError: If the run has no agent or item of that name.
        RunConflict: If the run has not ended, or if its input has been removed.
    """
    run = await lock_run(connection, run_id)
    given: dict[str, Any] = {"id": run_id, "agent": agent}
    found: UUID | None = await connection.scalar(OPEN_RERUN, given)
    if found is not None:
        return found
    if not WorkflowStatus(run.status).is_final:
        raise RunConflict(
            f"run {run_id} is {run.status}: only an ended run can be rerun, so wait for its end, "
            "or cancel it first"
        )
    refuse_pruned(run)
    rows = (await connection.execute(AGENTS_OF_RUN, {"id": run_id})).all()
    owner = agent_of(agent)
    items = (await connection.execute(ITEMS_OF_RUN, {"id": run_id})).all() if owner != agent else ()
    if agent not in {row.name for row in (*rows, *items)}:
        raise await no_such_agent(connection, run_id, agent)
    again = _to_run_again(rows, owner, dependents=owner == agent)
    new: UUID = uuid7()
    values = given | {"new": new, "round": int(owner != agent)}
    await connection.execute(RERUN, values | _documents(run, rows, again, values))
    if items:
        taken = [{"id": uuid7(), "name": row.name, "owner": row.owner} for row in items]
        await connection.execute(TAKE_OVER_ITEMS, values | {"items": dumps(taken)})
    return new


def _documents(
    run: Row[Any], rows: Sequence[Row[Any]], again: Collection[str], values: dict[str, Any]
) -> dict[str, Any]:
    """Return the level, the agents and the events of a new run."""
    agents = [{"id": uuid7(), "name": row.name, "again": row.name in again} for row in rows]
    created = {
        "workflow": run.workflow,
        "agents": len(rows),
        "levels": run.level_count,
        "rerun_of": run.id,
        "rerun_from": values["agent"],
        "taken_over": len(rows) - len(again),
    }
    return {
        "level": min(row.level for row in rows if row.name in again),
        "agents": dumps(agents),
        "created": dumps(created),
        "data": dumps({"agent": values["agent"], "run_id": values["new"]}),
    }


def _to_run_again(rows: Sequence[Row[Any]], agent: str, *, dependents: bool) -> Collection[str]:
    """Return the agent, all agents without a result, and perhaps all dependents of these agents."""
    kept = (AgentStatus.COMPLETED, AgentStatus.SKIPPED)
    again = {agent, *(row.name for row in rows if row.status not in kept)}
    for row in sorted(rows, key=lambda row: row.level) if dependents else ():
        if again.intersection(row.dependencies):
            again.add(row.name)
    return again

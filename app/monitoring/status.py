"""Numbers about workflows and the cluster, read from Postgres: they survive every restart."""

from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

OPEN = ("active", "pending", "paused")
LATEST_RUN: TextClause = text("""
    SELECT w.id AS workflow_id, w.name, r.id AS run_id, coalesce(r.status, 'pending') AS status,
        coalesce(b.spent_usd, 0) AS total_cost, r.error
    FROM workflows w
    LEFT JOIN LATERAL (
        SELECT * FROM runs WHERE workflow_id = w.id ORDER BY id DESC LIMIT 1
    ) r ON true
    LEFT JOIN budgets b ON b.id = r.id
    WHERE w.id = :id
""")
AGENTS_BY_STATUS: TextClause = text("""
    SELECT status, count(*) AS agents FROM agent_runs WHERE run_id = :run_id GROUP BY status
""")
WORKFLOWS: TextClause = text("""
    SELECT count(*) AS started,
        count(*) FILTER (WHERE status = 'completed') AS completed,
        count(*) FILTER (WHERE status = 'partially_completed') AS partially_completed,
        count(*) FILTER (WHERE status = 'failed') AS failed,
        count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE status = 'running') AS active,
        count(*) FILTER (WHERE status = 'pending') AS pending,
        count(*) FILTER (WHERE status = 'paused') AS paused
    FROM runs
""")
# Completed attempts of old runs are pruned; their agents are not.
AGENTS: TextClause = text("""
    SELECT (SELECT count(*) FROM agent_runs WHERE status = 'completed' AND attempt > 0)
            AS completed,
        count(*) FILTER (WHERE outcome = 'failed') AS failed,
        count(*) FILTER (WHERE outcome = 'running') AS active,
        coalesce(avg(extract(epoch FROM finished_at - started_at))
            FILTER (WHERE outcome = 'completed'), 0)::float8 AS avg_execution_time
    FROM attempts
""")
CALLS: TextClause = text("""
    SELECT count(*) FILTER (WHERE kind <> 'correction') AS calls,
        count(*) FILTER (WHERE outcome = 'RateLimited') AS rate_limited,
        coalesce(sum(input_tokens + cached_tokens + cache_write_tokens + cache_write_1h_tokens
            + output_tokens), 0)::bigint AS tokens,
        coalesce(sum(cost_usd), 0) AS cost
    FROM cost_entries
""")


async def workflow_status(connection: AsyncConnection, id_: UUID) -> dict[str, Any] | None:
    """State of the newest run of a workflow, or None if there is no such workflow."""
    row = (await connection.execute(LATEST_RUN, {"id": id_})).mappings().one_or_none()
    if row is None:
        return None
    agents = await connection.execute(AGENTS_BY_STATUS, {"run_id": row["run_id"]})
    return {
        "workflow_id": str(row["workflow_id"]),
        "name": row["name"],
        "status": row["status"],
        "run_id": str(row["run_id"]) if row["run_id"] else None,
        "total_cost": float(row["total_cost"]),
        "error": row["error"],
        "agents": {row.status: row.agents for row in agents},
    }


async def system_status(connection: AsyncConnection) -> dict[str, Any]:
    """Metrics of the whole cluster, since its first day."""
    workflows = dict((await connection.execute(WORKFLOWS)).mappings().one())
    agents = dict((await connection.execute(AGENTS)).mappings().one())
    calls = (await connection.execute(CALLS)).mappings().one()
    ended = workflows["started"] - sum(workflows[open_] for open_ in OPEN)
    good = workflows["completed"] + workflows["partially_completed"]
    return {
        "monitoring": {
            "workflows": workflows | {"success_rate": 100.0 * good / ended if ended else 0.0},
            "agents": agents | {"executed": agents["completed"] + agents["failed"]},
        },
        "rate_limiting": {
            "total_requests": calls["calls"],
            "total_tokens": calls["tokens"],
            "rate_limited": calls["rate_limited"],
        },
        "cost_tracking": {"total_cost": float(calls["cost"]), "total_calls": calls["calls"]},
    }

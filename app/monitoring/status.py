"""Totals of workflows and the cluster, from Postgres; the totals survive every restart."""

from collections.abc import Mapping
from dataclasses import dataclass
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
# The run of a sub-workflow is a part of its outer run, so it does not count as a run.
WORKFLOWS: TextClause = text("""
    SELECT count(*) AS started,
        count(*) FILTER (WHERE status = 'completed') AS completed,
        count(*) FILTER (WHERE status = 'partially_completed') AS partially_completed,
        count(*) FILTER (WHERE status = 'failed') AS failed,
        count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE status = 'running') AS active,
        count(*) FILTER (WHERE status = 'pending') AS pending,
        count(*) FILTER (WHERE status = 'paused') AS paused
    FROM runs WHERE parent_agent_run_id IS NULL
""")
AGENTS: TextClause = text("""
    SELECT count(*) FILTER (WHERE status = 'completed' AND attempt > 0) AS completed,
        count(*) FILTER (WHERE status IN ('failed', 'rate_limited', 'budget_exceeded')) AS failed,
        count(*) FILTER (WHERE status = 'running') AS active
    FROM agent_runs
""")
# Attempts of old runs are pruned, so this time is the mean of the attempts that are still stored.
EXECUTION_TIME: TextClause = text("""
    SELECT coalesce(avg(extract(epoch FROM finished_at - started_at)), 0)::float8
    FROM attempts WHERE outcome = 'completed'
""")
# The ledger, summed up by day. An answer from the cache is not counted as a call.
CALLS: TextClause = text("""
    SELECT coalesce(sum(calls) FILTER (WHERE kind <> 'cached'), 0)::bigint AS calls,
        coalesce(sum(calls) FILTER (WHERE outcome = 'RateLimited'), 0)::bigint AS rate_limited,
        coalesce(sum(prompt_tokens + output_tokens), 0)::bigint AS tokens,
        coalesce(sum(cost_usd), 0) AS cost
    FROM cost_totals
""")
SINCE: TextClause = text("""
    SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8
    FROM workflows
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemTotals:
    """Totals of the whole cluster since its first workflow was registered.

    Attributes:
        uptime_s: Seconds since the registration of the first workflow.
        workflows: Number of runs by state, without the runs of sub-workflows; ``started`` counts
            all of these runs, and ``active`` counts the running runs.
        completed: Agents that have run and completed.
        failed: Agents that have failed and are not retried.
        active: Agents that are running.
        execution_s: Mean seconds of a completed attempt.
        calls: Calls to providers.
        rate_limited: Calls that a provider refused with 429.
        tokens: Tokens of all calls.
        cost_usd: Dollars of all calls.
    """

    uptime_s: float
    workflows: Mapping[str, int]
    completed: int
    failed: int
    active: int
    execution_s: float
    calls: int
    rate_limited: int
    tokens: int
    cost_usd: float

    @property
    def executed(self) -> int:
        """Agents that have run to their end."""
        return self.completed + self.failed

    @property
    def ended(self) -> int:
        """Runs that have ended."""
        return self.workflows["started"] - sum(self.workflows[open_] for open_ in OPEN)


async def workflow_status(connection: AsyncConnection, id_: UUID) -> dict[str, Any] | None:
    """Read the state of a workflow's newest run; return None if there is no such workflow."""
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


async def system_totals(connection: AsyncConnection) -> SystemTotals:
    """Read the totals of the whole cluster since its first day."""
    agents = (await connection.execute(AGENTS)).one()
    calls = (await connection.execute(CALLS)).one()
    return SystemTotals(
        uptime_s=await connection.scalar(SINCE) or 0.0,
        workflows=dict((await connection.execute(WORKFLOWS)).mappings().one()),
        completed=agents.completed,
        failed=agents.failed,
        active=agents.active,
        execution_s=await connection.scalar(EXECUTION_TIME) or 0.0,
        calls=calls.calls,
        rate_limited=calls.rate_limited,
        tokens=calls.tokens,
        cost_usd=float(calls.cost),
    )


def metrics_of(totals: SystemTotals) -> dict[str, Any]:
    """Return the totals in the form of ``Monitor.get_metrics``."""
    states = ("started", "completed", "partially_completed", "failed", "cancelled", "active")
    return {f"workflows_{state}": totals.workflows[state] for state in states} | {
        "agents_executed": totals.executed,
        "agents_failed": totals.failed,
        "agents_active": totals.active,
        "total_api_calls": totals.calls,
        "total_tokens": totals.tokens,
        "total_cost": totals.cost_usd,
        "rate_limit_hits": totals.rate_limited,
        "avg_agent_execution_time": totals.execution_s,
        "uptime_seconds": totals.uptime_s,
    }


def summary_of(totals: SystemTotals) -> dict[str, Any]:
    """Return the totals in the form of ``Monitor.get_summary``."""
    good = totals.workflows["completed"] + totals.workflows["partially_completed"]
    return {
        "uptime_seconds": totals.uptime_s,
        "workflows": {**totals.workflows, "success_rate": _percent(good, totals.ended)},
        "agents": {
            "executed": totals.executed,
            "completed": totals.completed,
            "failed": totals.failed,
            "active": totals.active,
            "success_rate": _percent(totals.completed, totals.executed),
            "avg_execution_time": totals.execution_s,
        },
        "api": {
            "total_calls": totals.calls,
            "total_tokens": totals.tokens,
            "rate_limited": totals.rate_limited,
        },
        "costs": {
            "total_cost": totals.cost_usd,
            "cost_per_workflow": totals.cost_usd / totals.ended if totals.ended else 0.0,
        },
    }


async def system_status(connection: AsyncConnection) -> dict[str, Any]:
    """Read the totals of the whole cluster in the form of the engine's status."""
    totals = await system_totals(connection)
    return {
        "monitoring": summary_of(totals),
        "rate_limiting": {
            "total_requests": totals.calls,
            "total_tokens": totals.tokens,
            "rate_limited": totals.rate_limited,
        },
        "cost_tracking": {"total_cost": totals.cost_usd, "total_calls": totals.calls},
    }


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0

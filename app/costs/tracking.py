"""Books the spending outside the workers on the cluster's budgets, and reads the budgets' state."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.costs.budgets import standing_budgets
from app.domain.budgets import subjects_of
from app.domain.usage import Usage
from app.errors import UnknownRun, UnknownWorkflow
from app.storage.holds import read_standing
from app.storage.records import CallRecord, Record, apply_records
from app.storage.statements import LOCK_AGENT_RUNS

DEFAULT_MODULE = "General"

# Finds a run by the id of the run, or by the id of its workflow. A workflow's id finds the newest
# run of the workflow. If the workflow has no run, its id finds nothing.
FIND_RUN: TextClause = text("""
    SELECT r.id AS run_id, r.ancestors, r.tenant, w.id AS workflow_id, w.name AS workflow,
        w.version, w.id = :id AS by_workflow
    FROM workflows w LEFT JOIN LATERAL (
        SELECT id, ancestors, tenant FROM runs WHERE workflow_id = w.id AND (w.id = :id OR id = :id)
        ORDER BY id DESC LIMIT 1
    ) r ON true
    WHERE w.id = coalesce((SELECT workflow_id FROM runs WHERE id = :id), :id)
""")
FIND_AGENT: TextClause = text("""
    SELECT id, name, module, attempt FROM agent_runs
    WHERE run_id = :run_id AND (CAST(id AS text) = :agent_id OR name = :agent_name)
    ORDER BY CAST(id AS text) = :agent_id DESC LIMIT 1
""")
USED_UP: TextClause = text("""
    SELECT EXISTS (SELECT FROM budgets WHERE id = ANY(CAST(:ids AS uuid[]))
        AND NOT soft AND spent_usd >= limit_usd)
""")
AGENT_WITHIN: TextClause = text("SELECT spent_usd < limit_usd FROM agent_runs WHERE id = :id")
TOTALS: TextClause = text("""
    SELECT count(*) FILTER (WHERE kind <> 'correction')
            - count(*) FILTER (WHERE corrects IS NOT NULL) AS total_calls,
        coalesce(sum(input_tokens + cached_tokens + cache_write_tokens + cache_write_1h_tokens
            + output_tokens), 0)::bigint AS total_tokens,
        coalesce(sum(cost_usd), 0) AS total_cost
    FROM cost_entries
""")
TOTALS_BY: TextClause = text("""
    SELECT model, workflow, agent, grouping(model, workflow, agent) AS level,
        sum(cost_usd) AS cost
    FROM cost_entries GROUP BY GROUPING SETS ((model), (workflow), (agent))
    ORDER BY cost DESC
""")
#: The number from grouping() has one bit for each column. The bit is set if the line is not grouped
#: by the column.
LEVELS = {0b011: "model", 0b101: "workflow", 0b110: "agent"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Spending:
    """A call that a program made without the workers.

    Attributes:
        agent_id: Id of an agent run, or any name that the caller chooses.
        agent_name: Name of the agent.
        owner: Id of a run or of a workflow.
        provider: Provider name, or empty.
        model: Model name.
        usage: Tokens of the call.
        cost_usd: Cost of the call in dollars.
        price_version: Source of the price.
        metadata: The caller's own facts. The facts ``module`` and ``tenant`` also decide which
            budgets count the call.
    """

    agent_id: str
    agent_name: str
    owner: UUID
    provider: str
    model: str
    usage: Usage
    cost_usd: Decimal
    price_version: str
    metadata: Mapping[str, Any]


async def book_spending(connection: AsyncConnection, spending: Spending) -> None:
    """Add an entry to the ledger, and book the entry on every budget that counts it.

    The money is spent already, so the full amount is booked. If a budget does not have the amount
    left, the budget is overdrawn and frozen.

    Raises:
        UnknownWorkflow: If no run and no workflow has the id.
    """
    owner = await _owner(connection, spending.owner)
    run_id = None if owner["by_workflow"] else owner["run_id"]
    agent = await _agent(connection, run_id, spending)
    module = str(spending.metadata.get("module") or agent.get("module") or DEFAULT_MODULE)
    tenant = owner["tenant"] if run_id else spending.metadata.get("tenant")
    call_id = uuid7()
    # A call outside any run is stored in the ledger as a run of its own.
    agent_run_id, attempt = agent.get("id", call_id), agent.get("attempt", 0)
    await connection.execute(LOCK_AGENT_RUNS, {"ids": [agent_run_id]})
    subjects = subjects_of(workflow=owner["workflow"], module=module, tenant=tenant)
    _, standing = await read_standing(connection, subjects)
    # The runs around the run also count the call, as they count the calls of workers.
    own = () if run_id is None else (run_id, *owner["ancestors"])
    call = CallRecord(
        call_id=call_id,
        run_id=run_id or call_id,
        agent_run_id=agent_run_id,
        attempt=attempt,
        workflow_id=owner["workflow_id"],
        workflow=owner["workflow"],
        version=owner["version"],
        tenant=tenant,
        agent=spending.agent_name,
        module=module,
        provider=spending.provider,
        model=spending.model,
        budget_ids=(*own, *(id_ for ids in standing.values() for id_ in ids)),
        cost_usd=spending.cost_usd,
        usage=spending.usage,
        raw_usage={"metadata": dict(spending.metadata)},
        price_version=spending.price_version,
    )
    record = Record(agent_run_id=agent_run_id, attempt=attempt, calls=(call,))
    await apply_records(connection, [record])


async def within_budgets(connection: AsyncConnection, owner_id: UUID) -> bool:
    """Return whether every hard budget of a run, or of a workflow's newest run, has money left.

    Raises:
        UnknownWorkflow: If no run and no workflow has the id.
    """
    owner = await _owner(connection, owner_id)
    subjects = {("all", ""), ("workflow", owner["workflow"]), ("tenant", owner["tenant"])}
    standing = [
        account
        for account in await standing_budgets(connection)
        if (account.scope, account.subject) in subjects and not account.soft
    ]
    if any(account.spent_usd >= account.limit_usd for account in standing):
        return False
    ids = [owner["run_id"]] if owner["run_id"] else []
    return not (await connection.execute(USED_UP, {"ids": ids})).scalar_one()


async def agent_within_budget(connection: AsyncConnection, agent_run_id: UUID) -> bool:
    """Return whether an agent has spent less than its cost_limit.

    Raises:
        UnknownRun: If no agent run has the id.
    """
    within = await connection.scalar(AGENT_WITHIN, {"id": agent_run_id})
    if within is None:
        raise UnknownRun(f"no agent run has the id {str(agent_run_id)!r}: see Run.results")
    return bool(within)


async def cost_statistics(connection: AsyncConnection) -> dict[str, Any]:
    """Return the cluster's costs by subject, and the state of its standing budgets."""
    totals = (await connection.execute(TOTALS)).mappings().one()
    by: dict[str, dict[str, float]] = {name: {} for name in LEVELS.values()}
    for row in (await connection.execute(TOTALS_BY)).mappings():
        name = LEVELS[row["level"]]
        by[name][row[name]] = float(row["cost"])
    budgets = [
        {
            "scope": account.scope,
            "subject": account.subject,
            "period": str(account.period),
            "limit": float(account.limit_usd),
            "spent": float(account.spent_usd),
            "held": float(account.held_usd),
        }
        for account in await standing_budgets(connection)
    ]
    return {
        **totals,
        "total_cost": float(totals["total_cost"]),
        **{f"by_{name}": costs for name, costs in by.items()},
        "budgets": budgets,
    }


async def _owner(connection: AsyncConnection, id_: UUID) -> Mapping[str, Any]:
    row = (await connection.execute(FIND_RUN, {"id": id_})).mappings().one_or_none()
    if row is None:
        raise UnknownWorkflow(f"no run and no workflow has the id {str(id_)!r}")
    return dict(row)


async def _agent(
    connection: AsyncConnection, run_id: UUID | None, spending: Spending
) -> Mapping[str, Any]:
    """Find the agent run that the spending names; empty if there is no such agent run.

    Without an agent run, only the shared budgets count the spending.
    """
    names = {"agent_id": spending.agent_id, "agent_name": spending.agent_name}
    rows = await connection.execute(FIND_AGENT, {"run_id": run_id, **names})
    found = rows.mappings().one_or_none()
    return {} if found is None else dict(found)

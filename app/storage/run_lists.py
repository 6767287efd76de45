"""Lists the newest runs of a tenant, of a workflow or with labels; says which names are unknown."""

# ruff: noqa: S608 - every part of these statements is a constant of this file

from collections.abc import Sequence
from itertools import chain, combinations
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.run_filter import EVERY_RUN, RunFilter
from app.domain.status import WorkflowStatus
from app.domain.suggestions import did_you_mean
from app.storage.runs import RunRecord, run_record
from app.storage.session import dumps

#: The conditions of a list by the name of the parameter. Each statement has only the conditions
#: that are asked for, because an index supports a condition only if the condition is always there.
CONDITIONS = {
    "status": "r.status = :status",
    "tenant": "r.tenant = :tenant",
    "labels": "r.labels <> '{}' AND r.labels @> CAST(:labels AS jsonb)",
    "label_keys": "r.labels <> '{}' AND r.labels ?& CAST(:label_keys AS text[])",
}
WORKFLOW = "workflow"
_NEWEST = """SELECT r.id FROM runs r WHERE r.parent_agent_run_id IS NULL{conditions}
        ORDER BY r.id DESC LIMIT :limit"""
# Each version of a workflow is stored under an id of its own.
_NEWEST_OF_WORKFLOW = """SELECT found.id FROM workflows version CROSS JOIN LATERAL (
            SELECT r.id FROM runs r
            WHERE r.workflow_id = version.id AND r.parent_agent_run_id IS NULL{conditions}
            ORDER BY r.id DESC LIMIT :limit
        ) found
        WHERE version.name = :workflow ORDER BY found.id DESC LIMIT :limit"""


def _list(names: Sequence[str]) -> TextClause:
    source = _NEWEST_OF_WORKFLOW if WORKFLOW in names else _NEWEST
    conditions = "".join(f" AND {CONDITIONS[name]}" for name in names if name in CONDITIONS)
    return text(f"""
    WITH newest AS MATERIALIZED (
        {source.format(conditions=conditions)}
    )
    SELECT r.id, r.status, r.error, r.level, r.level_count, r.created_at, r.started_at,
        r.finished_at, r.pruned_at, r.key, r.labels, r.rerun_of, r.rerun_from, r.workflow_id,
        NULL AS input, w.name AS workflow, w.version, b.limit_usd, b.spent_usd, b.held_usd
    FROM newest JOIN runs r ON r.id = newest.id JOIN workflows w ON w.id = r.workflow_id
        JOIN budgets b ON b.id = r.id
    ORDER BY r.id DESC""")


_NAMES = (*CONDITIONS, WORKFLOW)
_SUBSETS = chain.from_iterable(combinations(_NAMES, size) for size in range(len(_NAMES) + 1))
#: The statements by the set of their conditions.
LIST_RUNS: dict[frozenset[str], TextClause] = {frozenset(names): _list(names) for names in _SUBSETS}
#: Tenants of runs and of the ledger. The search jumps from tenant to tenant in the index, so it
#: reads one row for each tenant and not for each run.
KNOWN_TENANTS: TextClause = text("""
    WITH RECURSIVE known(tenant, number) AS (
        SELECT (SELECT tenant FROM runs
            WHERE tenant IS NOT NULL AND parent_agent_run_id IS NULL ORDER BY tenant LIMIT 1), 1
        UNION ALL
        SELECT (SELECT tenant FROM runs
            WHERE tenant > known.tenant AND tenant IS NOT NULL AND parent_agent_run_id IS NULL
            ORDER BY tenant LIMIT 1), number + 1
        FROM known WHERE known.tenant IS NOT NULL AND number < 10000
    )
    SELECT tenant FROM known WHERE tenant IS NOT NULL
""")
LEDGER_TENANTS: TextClause = text("""
    SELECT DISTINCT tenant FROM cost_totals WHERE tenant IS NOT NULL
""")
KNOWN_WORKFLOWS: TextClause = text("""
    SELECT DISTINCT name FROM workflows ORDER BY name LIMIT 10000
""")
HAS_KEY: TextClause = text("""
    SELECT EXISTS (SELECT FROM runs
        WHERE labels <> '{}' AND labels ?& CAST(:label_keys AS text[]))
""")
# The keys of the newest runs with labels are enough for a suggestion.
KNOWN_KEYS: TextClause = text("""
    SELECT DISTINCT jsonb_object_keys(labels) FROM (
        SELECT labels FROM runs WHERE labels <> '{}' ORDER BY id DESC LIMIT 10000
    ) newest
""")


async def list_runs(
    connection: AsyncConnection,
    *,
    status: WorkflowStatus | None = None,
    limit: int = 20,
    tenant: str | None = None,
    only: RunFilter = EVERY_RUN,
) -> list[RunRecord]:
    """Read the newest runs without their inputs, and without the runs of sub-workflows.

    Args:
        connection: Connection inside a transaction.
        status: State of the runs; None means any state.
        limit: Largest number of runs.
        tenant: The only tenant whose runs may be read; None means the whole installation.
        only: Conditions that the runs fulfil.
    """
    if tenant is not None and only.tenant not in (None, tenant):
        return []  # another tenant's runs are treated like runs that do not exist
    given: dict[str, Any] = {
        "status": status,
        "tenant": tenant or only.tenant,
        "workflow": only.workflow,
        "labels": dumps(only.exact_labels) if only.exact_labels else None,
        "label_keys": only.label_keys or None,
    }
    values = {name: value for name, value in given.items() if value is not None}
    rows = await connection.execute(LIST_RUNS[frozenset(values)], values | {"limit": limit})
    return [run_record(row) for row in rows.mappings()]


async def find_unknown(connection: AsyncConnection, only: RunFilter) -> list[str]:
    """Return a sentence for each name of a filter that nothing in the installation has.

    Args:
        connection: Connection inside a transaction.
        only: A filter that has found nothing.
    """
    found: list[str] = []
    if only.tenant is not None:
        known = {
            *await connection.scalars(KNOWN_TENANTS),
            *await connection.scalars(LEDGER_TENANTS),
        }
        found += _unknown("tenant", only.tenant, known)
    if only.workflow is not None:
        found += _unknown("workflow", only.workflow, {*await connection.scalars(KNOWN_WORKFLOWS)})
    for key in only.labels:
        if not await connection.scalar(HAS_KEY, {"label_keys": [key]}):
            found += _unknown("label", key, {*await connection.scalars(KNOWN_KEYS)})
    return found


def _unknown(noun: str, name: str, known: set[str]) -> list[str]:
    if name in known:
        return []
    return [f"there is no {noun} {name!r}{did_you_mean(name, known)}"]

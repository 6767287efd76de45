"""Stores workflows, and reads workflows and runs for clients."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.domain.status import AgentStatus, WorkflowStatus
from app.domain.sub_workflow import named_workflows, with_embedded
from app.domain.workflow import Workflow
from app.storage.fetch import fetch
from app.storage.session import dumps

LOCK_NAME: TextClause = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 7465))")
FIND_WORKFLOW: TextClause = text("""
    SELECT id FROM workflows WHERE name = :name AND content_hash = :content_hash
""")
ADD_WORKFLOW: TextClause = text("""
    INSERT INTO workflows (id, name, version, content_hash, definition)
    SELECT :id, :name, coalesce(max(version), 0) + 1, :content_hash, CAST(:definition AS jsonb)
    FROM workflows WHERE name = :name
""")
READ_WORKFLOW: TextClause = text("SELECT definition FROM workflows WHERE id = :id")
NEWEST_DEFINITIONS: TextClause = text("""
    SELECT DISTINCT ON (name) name, definition FROM workflows
    WHERE name = ANY(CAST(:names AS text[])) ORDER BY name, version DESC
""")
READ_RUNS: TextClause = text("""
    SELECT r.id, r.status, r.error, r.level, r.level_count, r.created_at, r.started_at,
        r.finished_at, r.pruned_at, r.key, r.labels, r.rerun_of, r.rerun_from, r.workflow_id,
        r.input,
        w.name AS workflow, w.version, b.limit_usd, b.spent_usd, b.held_usd
    FROM runs r JOIN workflows w ON w.id = r.workflow_id JOIN budgets b ON b.id = r.id
    WHERE r.id = ANY(CAST(:ids AS uuid[]))
        AND (CAST(:tenant AS text) IS NULL OR r.tenant = :tenant)
""")
READ_STATUSES: TextClause = text("""
    SELECT id, status FROM runs WHERE id = ANY(CAST(:ids AS uuid[]))
        AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
""")
READ_AGENT_RUNS: TextClause = text("""
    SELECT a.id, a.name, a.module, a.provider, a.model, a.level, a.priority, a.status, a.attempt,
        a.retries, a.recoveries, a.output, a.error, a.error_class,
        a.spent_usd + coalesce(b.spent_usd, 0) AS spent_usd, a.started_at, a.finished_at,
        a.parent_id, a.item_index, a.item_count, r.id AS sub_run_id,
        coalesce(c.tokens, 0) + coalesce(inside.tokens, 0) AS tokens,
        extract(epoch FROM t.finished_at - t.started_at)::float8 AS attempt_s, t.first_token_s,
        t.finish_reason
    FROM agent_runs a
    LEFT JOIN attempts t ON t.agent_run_id = a.id AND t.number = a.attempt
    LEFT JOIN runs r ON r.parent_agent_run_id = a.id
    LEFT JOIN budgets b ON b.id = r.id
    LEFT JOIN (
        SELECT agent_run_id, sum(input_tokens + cached_tokens + cache_write_tokens
            + cache_write_1h_tokens + output_tokens)::int AS tokens
        FROM cost_entries WHERE run_id = :run_id GROUP BY agent_run_id
    ) c ON c.agent_run_id = a.id
    LEFT JOIN LATERAL (
        SELECT sum(e.input_tokens + e.cached_tokens + e.cache_write_tokens
            + e.cache_write_1h_tokens + e.output_tokens)::int AS tokens
        FROM runs k JOIN cost_entries e ON e.run_id = k.id
        WHERE r.id IS NOT NULL
            AND (k.id = r.id OR k.ancestors <> '{}' AND k.ancestors @> ARRAY[r.id])
    ) inside ON true
    WHERE a.run_id = :run_id ORDER BY a.position, a.item_index NULLS FIRST
""")
READ_EVENTS: TextClause = text("""
    SELECT e.id, e.type, e.at, e.attempt, e.data FROM events e
    WHERE e.run_id = :run_id AND e.id > :after ORDER BY e.id LIMIT :limit
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """One stored run.

    If the run is a rerun, ``rerun_of`` is the run whose results the rerun took over. In this case,
    ``rerun_from`` is the agent from which the rerun started. ``pruned_at`` is the time at which the
    run's input, outputs and history were removed. ``labels`` are the run's labels, with the default
    labels of its workflow.
    """

    id: UUID
    workflow_id: UUID
    workflow: str
    version: int
    status: WorkflowStatus
    error: str | None
    input: Mapping[str, Any] | None
    level: int
    level_count: int
    limit_usd: Decimal
    spent_usd: Decimal
    held_usd: Decimal
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    pruned_at: datetime | None
    key: str | None
    labels: Mapping[str, str]
    rerun_of: UUID | None
    rerun_from: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentRunRecord:
    """One stored agent run, with its tokens and the seconds of its last attempt.

    ``first_token_s`` is the number of seconds from the attempt's first request to the first token,
    if the agent streams. ``finish_reason`` says how the model's last answer ended. An agent run
    with a for_each has an ``item_count``. The elements of the for_each have the id of this agent
    run as their ``parent_id``. ``sub_run_id`` is the run of the agent run's sub-workflow; the
    dollars and tokens of the sub-workflow are included in ``spent_usd`` and ``tokens``.
    """

    id: UUID
    name: str
    module: str
    provider: str
    model: str
    level: int
    priority: int
    status: AgentStatus
    attempt: int
    retries: int
    recoveries: int
    output: Any
    error: str | None
    error_class: str | None
    spent_usd: Decimal
    tokens: int
    attempt_s: float | None
    first_token_s: float | None
    finish_reason: str | None
    started_at: datetime | None
    finished_at: datetime | None
    parent_id: UUID | None = None
    item_index: int | None = None
    item_count: int | None = None
    sub_run_id: UUID | None = None


async def store_workflow(connection: AsyncConnection, workflow: Workflow) -> UUID:
    """Store a workflow, unless the same content is stored already; returns the stored id."""
    key = {"name": workflow.name, "content_hash": workflow.content_hash()}
    found: UUID | None = await connection.scalar(FIND_WORKFLOW, key)
    if found is not None:
        return found
    # The version numbers of a name are consecutive, so two writers of a name never work at the same
    # time.
    await connection.execute(LOCK_NAME, {"name": workflow.name})
    found = await connection.scalar(FIND_WORKFLOW, key)
    if found is not None:
        return found
    id_: UUID = uuid7()
    definition = dumps(workflow.definition())
    await connection.execute(ADD_WORKFLOW, key | {"id": id_, "definition": definition})
    return id_


async def store_workflows(connection: AsyncConnection, workflows: Sequence[Workflow]) -> list[UUID]:
    """Store several workflows; returns their ids in the given order."""
    # The workflows are stored in the order of their names, so that writers of the same names cannot
    # deadlock.
    order = sorted(range(len(workflows)), key=lambda index: workflows[index].name)
    ids = {index: await store_workflow(connection, workflows[index]) for index in order}
    return [ids[index] for index in range(len(workflows))]


async def read_workflow(connection: AsyncConnection, id_: UUID) -> Workflow | None:
    """Read the workflow with this id; returns None if there is no such workflow."""
    definition = await connection.scalar(READ_WORKFLOW, {"id": id_})
    return None if definition is None else Workflow.from_definition(definition)


async def with_stored_workflows(connection: AsyncConnection, workflow: Workflow) -> Workflow:
    """Replace the names of sub-workflows by the newest stored definitions.

    Raises:
        WorkflowError: If no stored workflow has the name of a sub-workflow.
    """
    names = named_workflows(workflow)
    if not names:
        return workflow
    rows = await connection.execute(NEWEST_DEFINITIONS, {"names": sorted(names)})
    return with_embedded(workflow, {row.name: row.definition for row in rows})


async def read_runs(
    connection: AsyncConnection, ids: Sequence[UUID], *, tenant: str | None = None
) -> list[RunRecord]:
    """Read the runs with these ids, in any order; leave out unknown ids and other tenants' runs."""
    rows = await connection.execute(READ_RUNS, {"ids": list(ids), "tenant": tenant})
    return [run_record(row) for row in rows.mappings()]


async def read_statuses(
    connection: AsyncConnection, ids: Collection[UUID], *, tenant: str | None = None
) -> dict[UUID, WorkflowStatus]:
    """Read only the states of runs; leave out unknown ids and other tenants' runs."""
    rows = await fetch(connection, READ_STATUSES, {"ids": list(ids), "tenant": tenant})
    return {row.id: WorkflowStatus(row.status) for row in rows}


def run_record(row: RowMapping) -> RunRecord:
    """Return the record of a row."""
    return RunRecord(**{**row, "status": WorkflowStatus(row["status"])})


async def read_agent_runs(connection: AsyncConnection, run_id: UUID) -> list[AgentRunRecord]:
    """Read the agent runs of a run, in the order of the workflow's definition."""
    rows = await connection.execute(READ_AGENT_RUNS, {"run_id": run_id})
    return [
        AgentRunRecord(**{**row, "status": AgentStatus(row["status"])}) for row in rows.mappings()
    ]


async def read_events(
    connection: AsyncConnection, run_id: UUID, *, after: int, limit: int
) -> list[dict[str, Any]]:
    """Read a page of a run's history: events with an id above ``after``, oldest first."""
    rows = await connection.execute(READ_EVENTS, {"run_id": run_id, "after": after, "limit": limit})
    return [dict(row) for row in rows.mappings()]

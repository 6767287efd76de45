"""Runs as clients see them: written once by enqueue, read by everybody."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Row, RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.domain.budgets import DEFAULT_THRESHOLDS
from app.domain.run_options import RunOptions
from app.domain.status import AgentStatus, WorkflowStatus
from app.domain.sub_workflow import named_workflows, with_embedded
from app.domain.workflow import Workflow
from app.errors import RunConflict
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
# Runs, their budgets (of the same ids), agent runs and the first lines of their histories; nothing
# of a run whose key there is already. One of that key whose commit is under way is waited for.
ADD_RUNS: TextClause = text("""
    WITH given AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:runs AS jsonb)) AS r(id uuid, workflow_id uuid,
            input jsonb, priority int, tenant text, weight float8, level_count int,
            max_parallel_agents int, allow_partial_completion bool, timeout_s float8, key text,
            input_hash text, parent_agent_run_id uuid, ancestors uuid[], cost_budget numeric,
            created jsonb)
    ), run AS (
        INSERT INTO runs (id, workflow_id, input, priority, tenant, weight, level_count,
            max_parallel_agents, allow_partial_completion, timeout_s, key, input_hash,
            parent_agent_run_id, ancestors)
        SELECT id, workflow_id, input, priority, tenant, weight, level_count,
            max_parallel_agents, allow_partial_completion, timeout_s, key, input_hash,
            parent_agent_run_id, ancestors
        FROM given
        ON CONFLICT (key) WHERE key IS NOT NULL DO NOTHING
        RETURNING id
    ), budget AS (
        INSERT INTO budgets (id, scope, subject, limit_usd, thresholds)
        SELECT id, 'run', CAST(id AS text), given.cost_budget, CAST(:thresholds AS int[])
        FROM run JOIN given USING (id)
    ), agents AS (
        INSERT INTO agent_runs (id, run_id, name, position, level, module, provider, model,
            priority, dependencies, reads, accept_missing_inputs, limit_usd)
        SELECT a.id, run.id, name, position, level, module, provider, model,
            priority, dependencies, reads, accept_missing_inputs, limit_usd
        FROM jsonb_to_recordset(CAST(:agents AS jsonb)) AS a(id uuid, run_id uuid, name text,
            position int, level int, module text, provider text, model text, priority int,
            dependencies text[], reads text[], accept_missing_inputs bool, limit_usd numeric)
        JOIN run ON run.id = a.run_id
    )
    INSERT INTO events (run_id, type, data)
    SELECT id, 'run_created', given.created FROM run JOIN given USING (id) RETURNING run_id
""")
FIND_KEYS: TextClause = text("""
    SELECT r.key, r.id, r.workflow_id, w.name AS workflow, w.version, r.tenant, r.input_hash
    FROM runs r JOIN workflows w ON w.id = r.workflow_id
    WHERE r.key = ANY(CAST(:keys AS text[]))
""")
READ_RUNS: TextClause = text("""
    SELECT r.id, r.status, r.error, r.level, r.level_count, r.created_at, r.started_at,
        r.finished_at, r.pruned_at, r.key, r.rerun_of, r.rerun_from, r.workflow_id, r.input,
        w.name AS workflow, w.version, b.limit_usd, b.spent_usd, b.held_usd
    FROM runs r JOIN workflows w ON w.id = r.workflow_id JOIN budgets b ON b.id = r.id
    WHERE r.id = ANY(CAST(:ids AS uuid[]))
""")
LIST_RUNS: TextClause = text("""
    SELECT r.id, r.status, r.error, r.level, r.level_count, r.created_at, r.started_at,
        r.finished_at, r.pruned_at, r.key, r.rerun_of, r.rerun_from, r.workflow_id, NULL AS input,
        w.name AS workflow, w.version, b.limit_usd, b.spent_usd, b.held_usd
    FROM runs r JOIN workflows w ON w.id = r.workflow_id JOIN budgets b ON b.id = r.id
    WHERE (CAST(:status AS text) IS NULL OR r.status = :status) AND r.parent_agent_run_id IS NULL
    ORDER BY r.id DESC LIMIT :limit
""")
READ_AGENT_RUNS: TextClause = text("""
    SELECT a.id, a.name, a.module, a.provider, a.model, a.level, a.priority, a.status, a.attempt,
        a.retries, a.recoveries, a.output, a.error, a.error_class,
        a.spent_usd + coalesce(b.spent_usd, 0) AS spent_usd, a.started_at, a.finished_at,
        a.parent_id, a.item_index, a.item_count, r.id AS sub_run_id,
        coalesce(c.tokens, 0) + coalesce(inside.tokens, 0) AS tokens,
        extract(epoch FROM t.finished_at - t.started_at)::float8 AS attempt_s, t.first_token_s
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
    """One run as stored.

    ``rerun_of`` is the run whose results it took over, ``rerun_from`` the agent from which on it
    ran again; ``pruned_at`` is when its input, outputs and history were removed.
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
    rerun_of: UUID | None
    rerun_from: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentRunRecord:
    """One agent run as stored, with its tokens and the seconds of its last attempt.

    ``first_token_s`` are the seconds from its first request to the first token, if it streamed.
    An element of a for_each has the ``parent_id`` of its agent's, which has an ``item_count``.
    ``sub_run_id`` is the run of its sub-workflow, whose dollars and tokens are its own.
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
    started_at: datetime | None
    finished_at: datetime | None
    parent_id: UUID | None = None
    item_index: int | None = None
    item_count: int | None = None
    sub_run_id: UUID | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """What the run of a sub-workflow is: an agent run, inside of runs, outermost first."""

    agent_run_id: UUID
    ancestors: tuple[UUID, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRun:
    """A run that is wanted.

    Attributes:
        workflow: Its workflow.
        workflow_id: That of the stored workflow.
        agents: ``agent_rows`` of it.
        input: JSON values by key.
        options: Tenant, weight and key.
        parent: What it is the sub-workflow of.
    """

    workflow: Workflow
    workflow_id: UUID
    agents: Sequence[Mapping[str, Any]]
    input: Mapping[str, Any]
    options: RunOptions
    parent: Parent | None = None

    @property
    def level_count(self) -> int:
        """Levels of the workflow."""
        return 1 + max(int(agent["level"]) for agent in self.agents)


async def store_workflow(connection: AsyncConnection, workflow: Workflow) -> UUID:
    """Store a workflow unless this very version is stored already; returns its id."""
    key = {"name": workflow.name, "content_hash": workflow.content_hash()}
    found: UUID | None = await connection.scalar(FIND_WORKFLOW, key)
    if found is not None:
        return found
    # Version numbers are consecutive by name, so writers of one name take turns.
    await connection.execute(LOCK_NAME, {"name": workflow.name})
    found = await connection.scalar(FIND_WORKFLOW, key)
    if found is not None:
        return found
    id_: UUID = uuid7()
    definition = dumps(workflow.definition())
    await connection.execute(ADD_WORKFLOW, key | {"id": id_, "definition": definition})
    return id_


async def store_workflows(connection: AsyncConnection, workflows: Sequence[Workflow]) -> list[UUID]:
    """Store several workflows; returns their ids, in the order given."""
    # In the order of their names: who waits for the same ones waits in the same order.
    order = sorted(range(len(workflows)), key=lambda index: workflows[index].name)
    ids = {index: await store_workflow(connection, workflows[index]) for index in order}
    return [ids[index] for index in range(len(workflows))]


async def read_workflow(connection: AsyncConnection, id_: UUID) -> Workflow | None:
    """The workflow of that id, or None."""
    definition = await connection.scalar(READ_WORKFLOW, {"id": id_})
    return None if definition is None else Workflow.from_definition(definition)


async def with_stored_workflows(connection: AsyncConnection, workflow: Workflow) -> Workflow:
    """A workflow with the newest stored definitions in the place of sub-workflows' names.

    Raises:
        WorkflowError: If a name is not known.
    """
    names = named_workflows(workflow)
    if not names:
        return workflow
    rows = await connection.execute(NEWEST_DEFINITIONS, {"names": sorted(names)})
    return with_embedded(workflow, {row.name: row.definition for row in rows})


async def create_run(
    connection: AsyncConnection,
    workflow: Workflow,
    workflow_id: UUID,
    input_: Mapping[str, Any],
    options: RunOptions,
    thresholds: Sequence[int] = DEFAULT_THRESHOLDS,
    *,
    parent: Parent | None = None,
) -> UUID:
    """Write one run; see ``create_runs``."""
    new = NewRun(
        workflow=workflow,
        workflow_id=workflow_id,
        agents=agent_rows(workflow),
        input=input_,
        options=options,
        parent=parent,
    )
    (id_,) = await create_runs(connection, [new], thresholds)
    return id_


async def create_runs(
    connection: AsyncConnection, new: Sequence[NewRun], thresholds: Sequence[int]
) -> list[UUID]:
    """Write runs, their budgets and agent runs, except where there is a run of that key already.

    Nothing happens to them before ``advance`` is asked for, which the caller does after the commit.

    Args:
        connection: Inside a transaction.
        new: The runs; no two have the same key.
        thresholds: Percentages of their budgets whose passing is told.

    Returns:
        The ids of the runs.

    Raises:
        RunConflict: If the run of a key is one of another workflow, input or tenant.
    """
    ids: list[UUID] = [uuid7() for _ in new]
    rows = [_run_row(each, id_) for each, id_ in zip(new, ids, strict=True)]
    written = {
        # Who waits for the same keys waits in the same order.
        "runs": dumps(sorted(rows, key=lambda row: row["key"] or "")),
        "agents": dumps(
            [row for each, id_ in zip(new, ids, strict=True) for row in _agents(each, id_)]
        ),
        "thresholds": list(thresholds),
    }
    added = set(await connection.scalars(ADD_RUNS, written))
    keys = [row["key"] for row in rows if row["id"] not in added]
    found = (await connection.execute(FIND_KEYS, {"keys": keys})).all() if keys else []
    there = {row.key: row for row in found}
    return [
        id_ if id_ in added else _same(row, there[row["key"]])
        for id_, row in zip(ids, rows, strict=True)
    ]


def _same(wanted: Mapping[str, Any], found: Row[Any]) -> UUID:
    """The id of the run that has the key of the one that is wanted, if they are the same."""
    different = {
        f"workflow {found.workflow!r} v{found.version}": found.workflow_id != wanted["workflow_id"],
        "another input": found.input_hash != wanted["input_hash"],
        f"the tenant {found.tenant!r}": found.tenant != wanted["tenant"],
    }
    if any(different.values()):
        has = ", ".join(fact for fact, differs in different.items() if differs)
        raise RunConflict(
            f"the key {found.key!r} is that of run {found.id}, which has {has}: a key names one "
            "run for good, so give another key"
        )
    id_: UUID = found.id
    return id_


def _hash(input_: Mapping[str, Any]) -> str:
    return hashlib.sha256(dumps(input_, sort_keys=True).encode()).hexdigest()


def _run_row(new: NewRun, id_: UUID) -> dict[str, Any]:
    workflow, options, parent = new.workflow, new.options, new.parent
    return {
        "id": id_,
        "workflow_id": new.workflow_id,
        "input": new.input,
        "priority": workflow.priority,
        "tenant": options.tenant,
        "weight": options.weight,
        "level_count": new.level_count,
        "max_parallel_agents": workflow.max_parallel_agents,
        "allow_partial_completion": workflow.allow_partial_completion,
        "timeout_s": workflow.timeout,
        "key": options.key,
        "input_hash": None if options.key is None else _hash(new.input),
        "parent_agent_run_id": parent and parent.agent_run_id,
        "ancestors": parent.ancestors if parent else (),
        "cost_budget": str(workflow.cost_budget),
        "created": {
            "workflow": workflow.name,
            "agents": len(workflow.agents),
            "levels": new.level_count,
        },
    }


def _agents(new: NewRun, run_id: UUID) -> list[dict[str, Any]]:
    return [{"id": uuid7(), "run_id": run_id, **row} for row in new.agents]


def agent_rows(workflow: Workflow) -> list[dict[str, Any]]:
    """What every run of a workflow writes down of its agents."""
    levels = workflow.get_levels()
    level_of = {agent.name: level for level, agents in enumerate(levels) for agent in agents}
    return [
        {
            "name": agent.name,
            "position": position,
            "level": level_of[agent.name],
            "module": agent.module,
            "provider": agent.provider,
            "model": agent.model,
            "priority": agent.priority,
            "dependencies": list(agent.dependencies),
            "reads": sorted(workflow.data_flow.reads(agent)),
            "accept_missing_inputs": agent.accept_missing_inputs,
            "limit_usd": str(agent.cost_limit),
        }
        for position, agent in enumerate(workflow.agents)
    ]


async def read_runs(connection: AsyncConnection, ids: Sequence[UUID]) -> list[RunRecord]:
    """The runs of these ids, in no order; unknown ids are missing."""
    rows = await connection.execute(READ_RUNS, {"ids": list(ids)})
    return [_run_record(row) for row in rows.mappings()]


async def list_runs(
    connection: AsyncConnection, *, status: WorkflowStatus | None = None, limit: int = 20
) -> list[RunRecord]:
    """The newest runs, without their inputs."""
    rows = await connection.execute(LIST_RUNS, {"status": status, "limit": limit})
    return [_run_record(row) for row in rows.mappings()]


def _run_record(row: RowMapping) -> RunRecord:
    return RunRecord(**{**row, "status": WorkflowStatus(row["status"])})


async def read_agent_runs(connection: AsyncConnection, run_id: UUID) -> list[AgentRunRecord]:
    """The agent runs of a run, in the order of the workflow's definition."""
    rows = await connection.execute(READ_AGENT_RUNS, {"run_id": run_id})
    return [
        AgentRunRecord(**{**row, "status": AgentStatus(row["status"])}) for row in rows.mappings()
    ]


async def read_events(
    connection: AsyncConnection, run_id: UUID, *, after: int, limit: int
) -> list[dict[str, Any]]:
    """A page of a run's history: events with an id above ``after``, oldest first."""
    rows = await connection.execute(READ_EVENTS, {"run_id": run_id, "after": after, "limit": limit})
    return [dict(row) for row in rows.mappings()]

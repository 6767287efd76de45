"""Writes new runs with their budgets, agent runs and first events."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.domain.budgets import DEFAULT_THRESHOLDS
from app.domain.run_options import RunOptions
from app.domain.workflow import Workflow
from app.errors import RunConflict
from app.storage.session import dumps

# Writes runs and, for each run, a budget with the id of the run, the agent runs and the first lines
# of the history. If a run's key exists already, nothing of this run is written. If another
# transaction is writing a run with the same key, the statement waits for the end of that
# transaction.
ADD_RUNS: TextClause = text("""
    WITH given AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:runs AS jsonb)) AS r(id uuid, workflow_id uuid,
            input jsonb, priority int, tenant text, weight float8, level_count int,
            max_parallel_agents int, allow_partial_completion bool, timeout_s float8, key text,
            input_hash text, parent_agent_run_id uuid, ancestors uuid[], cost_budget numeric,
            labels jsonb, created jsonb)
    ), run AS (
        INSERT INTO runs (id, workflow_id, input, priority, tenant, weight, level_count,
            max_parallel_agents, allow_partial_completion, timeout_s, key, input_hash,
            parent_agent_run_id, ancestors, labels)
        SELECT id, workflow_id, input, priority, tenant, weight, level_count,
            max_parallel_agents, allow_partial_completion, timeout_s, key, input_hash,
            parent_agent_run_id, ancestors, labels
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
        AND (CAST(:tenant AS text) IS NULL OR r.tenant = :tenant)
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """The agent run whose sub-workflow is executed, and the outer runs, outermost first."""

    agent_run_id: UUID
    ancestors: tuple[UUID, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRun:
    """A run that has to be written.

    Attributes:
        workflow: The run's workflow.
        workflow_id: Id of the stored workflow.
        agents: The result of ``agent_rows`` for the workflow.
        input: JSON values by key.
        options: Tenant, weight, key and labels; the labels of the workflow are among them already.
        parent: The agent run whose sub-workflow this run executes; None if there is no such agent
            run.
    """

    workflow: Workflow
    workflow_id: UUID
    agents: Sequence[Mapping[str, Any]]
    input: Mapping[str, Any]
    options: RunOptions
    parent: Parent | None = None

    @property
    def level_count(self) -> int:
        """The number of levels of the workflow."""
        return 1 + max(int(agent["level"]) for agent in self.agents)


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
    connection: AsyncConnection,
    new: Sequence[NewRun],
    thresholds: Sequence[int],
    *,
    tenant: str | None = None,
) -> list[UUID]:
    """Write runs with budgets and agent runs; runs whose keys exist already are left out.

    The runs start only after the caller has asked for their admission. The caller asks for the
    admission after the commit.

    Args:
        connection: Inside a transaction.
        new: The runs; no two runs have the same key.
        thresholds: Percentages of a run's budget; if the spending passes one of these percentages,
            the history gets an event.
        tenant: The tenant that asks for the runs; None means the whole installation. A tenant
            learns nothing about the runs of other tenants.

    Returns:
        The ids of the runs. If the key of a run exists already, the id is the id of the existing
        run.

    Raises:
        RunConflict: If the existing run with a key has another workflow, input or tenant.
    """
    ids: list[UUID] = [uuid7() for _ in new]
    rows = [_run_row(each, id_) for each, id_ in zip(new, ids, strict=True)]
    written = {
        # The order is fixed, so that writers of the same keys cannot deadlock.
        "runs": dumps(sorted(rows, key=lambda row: row["key"] or "")),
        "agents": dumps(
            [row for each, id_ in zip(new, ids, strict=True) for row in _agents(each, id_)]
        ),
        "thresholds": list(thresholds),
    }
    added = set(await connection.scalars(ADD_RUNS, written))
    keys = [row["key"] for row in rows if row["id"] not in added]
    values = {"keys": keys, "tenant": tenant}
    found = (await connection.execute(FIND_KEYS, values)).all() if keys else []
    there = {row.key: row for row in found}
    return [
        id_ if id_ in added else _same(row, there.get(row["key"]))
        for id_, row in zip(ids, rows, strict=True)
    ]


def _same(wanted: Mapping[str, Any], found: Row[Any] | None) -> UUID:
    """Return the id of the existing run with the wanted run's key, if the two runs are alike."""
    if found is None:
        raise RunConflict(
            f"the key {wanted['key']!r} belongs to a run of another tenant: give another key"
        )
    different = {
        f"workflow {found.workflow!r} v{found.version}": found.workflow_id != wanted["workflow_id"],
        "another input": found.input_hash != wanted["input_hash"],
        f"the tenant {found.tenant!r}": found.tenant != wanted["tenant"],
    }
    if any(different.values()):
        has = ", ".join(fact for fact, differs in different.items() if differs)
        raise RunConflict(
            f"the key {found.key!r} belongs to run {found.id}, which has {has}: a key belongs to "
            "one run for good, so give another key"
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
        "labels": options.labels,
        "created": {
            "workflow": workflow.name,
            "agents": len(workflow.agents),
            "levels": new.level_count,
            **({"labels": options.labels} if options.labels else {}),
        },
    }


def _agents(new: NewRun, run_id: UUID) -> list[dict[str, Any]]:
    return [{"id": uuid7(), "run_id": run_id, **row} for row in new.agents]


def agent_rows(workflow: Workflow) -> list[dict[str, Any]]:
    """Return agent runs with only the columns that are equal in all runs of a workflow."""
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

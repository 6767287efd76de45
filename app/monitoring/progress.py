"""The progress of a run and its agents, without inputs and outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.counts import counted
from app.domain.run_ids import ID_DIGITS, digits_of, short_ids
from app.domain.status import AgentStatus, WorkflowStatus
from app.errors import UnknownRun

READ_RUN: TextClause = text("""
    SELECT r.id, w.name AS workflow, w.version, r.status, r.error, r.level, r.level_count,
        b.limit_usd, b.spent_usd, r.created_at, r.started_at, r.finished_at, r.pruned_at, r.key,
        r.labels, r.rerun_of, r.rerun_from, r.ancestors[cardinality(r.ancestors)] AS part_of,
        r.ancestors[1] AS outermost
    FROM runs r JOIN workflows w ON w.id = r.workflow_id JOIN budgets b ON b.id = r.id
    WHERE r.id = :run_id
""")
# Without ``element``, the agents of the workflow are read. With ``element``, only this element of a
# list is read. A sub-workflow that completed in part counts as partial.
READ_AGENTS: TextClause = text("""
    SELECT a.name, a.module, a.provider, a.model, a.level, a.status, a.attempt, a.retries,
        a.recoveries, coalesce(a.error, items.error) AS error, a.started_at, a.finished_at,
        a.item_count, t.first_token_s,
        CASE WHEN a.status = 'pending' THEN a.waits_for END AS waits_for,
        CASE WHEN a.status = 'pending' AND a.waits_for IS NOT NULL THEN a.ready_at END
            AS waits_until,
        a.spent_usd + coalesce(inner_budget.spent_usd, 0) + coalesce(items.spent_usd, 0)
            AS spent_usd,
        coalesce(items.ended, 0) AS items_ended, coalesce(items.failed, 0) AS items_failed,
        coalesce(items.partial, 0) AS items_partial,
        coalesce(items.cancelled, 0) AS items_cancelled,
        coalesce(items.skipped, 0) AS items_skipped,
        inner_run.id AS sub_run_id,
        a.status = 'completed' AND a.error_class IS NOT DISTINCT FROM 'SubWorkflowPartial'
            AS sub_run_partial
    FROM agent_runs a
    LEFT JOIN attempts t ON t.agent_run_id = a.id AND t.number = a.attempt
    LEFT JOIN runs inner_run ON inner_run.parent_agent_run_id = a.id
    LEFT JOIN budgets inner_budget ON inner_budget.id = inner_run.id
    LEFT JOIN LATERAL (
        SELECT count(*) FILTER (WHERE i.finished_at IS NOT NULL) AS ended,
            count(*) FILTER (WHERE i.status IN ('failed', 'rate_limited', 'budget_exceeded'))
                AS failed,
            count(*) FILTER (WHERE i.status = 'completed' AND i.error_class = 'SubWorkflowPartial')
                AS partial,
            count(*) FILTER (WHERE i.status = 'cancelled') AS cancelled,
            count(*) FILTER (WHERE i.status = 'skipped') AS skipped,
            sum(i.spent_usd + coalesce(b.spent_usd, 0)) AS spent_usd,
            (array_agg(i.name || ': ' || i.error ORDER BY i.item_index)
                FILTER (WHERE i.error IS NOT NULL AND i.status <> 'skipped'))[1] AS error
        FROM agent_runs i LEFT JOIN runs r ON r.parent_agent_run_id = i.id
        LEFT JOIN budgets b ON b.id = r.id
        WHERE i.parent_id = a.id AND i.item_index < a.item_count
    ) items ON a.item_count IS NOT NULL
    WHERE a.run_id = :run_id AND CASE WHEN CAST(:element AS text) IS NULL
        THEN a.parent_id IS NULL ELSE a.parent_id IS NOT NULL AND a.name = :element END
    ORDER BY a.level, a.position
""")
# A primary key finds the beginning of an id, and the index of short ids finds the end.
FIND_RUNS: TextClause = text("""
    WITH found AS (
        (SELECT id FROM runs WHERE id BETWEEN :low AND :high ORDER BY id LIMIT :most)
        UNION
        (SELECT id FROM runs
            WHERE "right"(id::text, 8) = "right"(:digits, 8) AND length(:digits) >= 8
                AND "right"(replace(id::text, '-', ''), length(:digits)) = :digits
            LIMIT :most)
    )
    SELECT r.id, w.name AS workflow, r.status, r.created_at
    FROM found JOIN runs r ON r.id = found.id JOIN workflows w ON w.id = r.workflow_id
    ORDER BY r.id LIMIT :most
""")
#: Most candidates that a refusal of an ambiguous id names.
MOST_CANDIDATES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentProgress:
    """The state of one agent of a run.

    ``waits_for`` and ``waits_until`` are set while the agent is handed back for a long wait. If the
    agent has a for_each, the items are only counted. ``spent_usd`` is then the sum over all items.
    ``items_partial`` counts the items whose sub-workflow completed in part. If the agent is a
    sub-workflow, ``sub_run_id`` is the id of the inner run, and ``spent_usd`` includes the dollars
    of the inner run. ``sub_run_partial`` says whether this inner run completed in part.
    """

    name: str
    module: str
    provider: str
    model: str
    level: int
    status: AgentStatus
    attempt: int
    retries: int
    recoveries: int
    error: str | None
    spent_usd: Decimal
    started_at: datetime | None
    finished_at: datetime | None
    first_token_s: float | None = None
    waits_for: str | None = None
    waits_until: datetime | None = None
    item_count: int | None = None
    items_ended: int = 0
    items_failed: int = 0
    items_partial: int = 0
    items_cancelled: int = 0
    items_skipped: int = 0
    sub_run_id: UUID | None = None
    sub_run_partial: bool = False

    @property
    def label(self) -> str:
        """The agent's name, with the number of ended items: ``screen 37/100 (2 failed)``."""
        name = self.name
        if self.item_count is not None:
            name = f"{name} {self.items_ended}/{self.item_count}"
        return f"{name} ({self.shortfall})" if self.shortfall else name

    @property
    def shortfall(self) -> str:
        """The items without a whole result, such as ``2 failed, 9 partial``; empty if none."""
        if self.sub_run_partial:
            return "partial"
        counts = (
            (self.items_failed, "failed"),
            (self.items_partial, "partial"),
            (self.items_cancelled, "cancelled"),
            (self.items_skipped, "skipped"),
        )
        return ", ".join(f"{count} {outcome}" for count, outcome in counts if count)

    @property
    def is_partial(self) -> bool:
        """Whether the agent completed without a part of its result."""
        lost = self.items_failed or self.items_partial or self.items_cancelled
        return self.status is AgentStatus.COMPLETED and bool(lost or self.sub_run_partial)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunProgress:
    """A run with its agents, ordered by level and then by the agents' order in the workflow.

    For the run of a sub-workflow, ``part_of`` is the outer run, and ``outermost`` is the run that
    can be retried.
    """

    id: UUID
    workflow: str
    version: int
    status: WorkflowStatus
    error: str | None
    level: int
    level_count: int
    limit_usd: Decimal
    spent_usd: Decimal
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    pruned_at: datetime | None = None
    key: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    rerun_of: UUID | None = None
    rerun_from: str | None = None
    part_of: UUID | None = None
    outermost: UUID | None = None
    agents: tuple[AgentProgress, ...]

    def levels(self) -> list[list[AgentProgress]]:
        """Return the agents level by level."""
        levels: list[list[AgentProgress]] = [[] for _ in range(self.level_count)]
        for agent in self.agents:
            levels[agent.level].append(agent)
        return levels

    @property
    def shortfall(self) -> str:
        """The elements and sub-workflows without a whole result; empty if there are none.

        The agents of the workflow itself are not counted, because each of them has its state.
        """
        counts = (
            (sum(agent.items_failed for agent in self.agents), "element", "failed"),
            (sum(agent.items_partial for agent in self.agents), "element", "partial"),
            (sum(agent.items_cancelled for agent in self.agents), "element", "cancelled"),
            (sum(agent.sub_run_partial for agent in self.agents), "sub-workflow", "partial"),
        )
        return ", ".join(
            f"{counted(count, noun)} {outcome}" for count, noun, outcome in counts if count
        )


async def read_progress(connection: AsyncConnection, run_id: UUID) -> RunProgress:
    """Read the progress of a run.

    Raises:
        UnknownRun: If there is no such run.
    """
    row = (await connection.execute(READ_RUN, {"run_id": run_id})).mappings().one_or_none()
    if row is None:
        raise UnknownRun(f"no run has the id {str(run_id)!r}: see `agentchord runs`")
    return RunProgress(
        **{**row, "status": WorkflowStatus(row["status"])},
        agents=await _read_agents(connection, run_id),
    )


async def read_element(
    connection: AsyncConnection, run_id: UUID, name: str
) -> AgentProgress | None:
    """Read the progress of one element of a list, such as ``screen[3]``; None if there is none."""
    return next(iter(await _read_agents(connection, run_id, element=name)), None)


async def _read_agents(
    connection: AsyncConnection, run_id: UUID, *, element: str | None = None
) -> tuple[AgentProgress, ...]:
    rows = await connection.execute(READ_AGENTS, {"run_id": run_id, "element": element})
    return tuple(
        AgentProgress(**{**row, "status": AgentStatus(row["status"])}) for row in rows.mappings()
    )


async def find_run(connection: AsyncConnection, name: str) -> UUID:
    """Find a run by its id, by the beginning of its id, or by at least eight digits of the end.

    Args:
        connection: A connection inside a transaction.
        name: The digits, with or without dashes.

    Raises:
        UnknownRun: If no run has such an id, or if several runs have such an id.
    """
    digits = digits_of(name)
    if digits is None:
        raise UnknownRun(f"{name!r} is not the id of a run: see `agentchord runs`")
    low, high = digits.ljust(ID_DIGITS, "0"), digits.ljust(ID_DIGITS, "f")
    given = {"low": UUID(low), "high": UUID(high), "digits": digits, "most": MOST_CANDIDATES + 1}
    found = (await connection.execute(FIND_RUNS, given)).all()
    if not found:
        id_ = "the id" if len(digits) == ID_DIGITS else "an id that begins or ends with"
        raise UnknownRun(f"no run has {id_} {name!r}: see `agentchord runs`")
    if len(found) > 1:
        raise _several(name, found)
    run_id: UUID = found[0].id
    return run_id


def _several(name: str, found: Sequence[Row[Any]]) -> UnknownRun:
    short = short_ids(str(row.id) for row in found)
    named = ", ".join(
        f"{short[str(row.id)]} ({row.workflow}, {row.status}, {row.created_at:%Y-%m-%d %H:%M:%S})"
        for row in found[:MOST_CANDIDATES]
    )
    more = " and others" if len(found) > MOST_CANDIDATES else ""
    return UnknownRun(
        f"several runs have an id that begins or ends with {name!r}: {named}{more}; "
        "give one of these ends, or more digits"
    )

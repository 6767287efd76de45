"""How far a run is, as somebody who watches it wants to see it: no inputs, no outputs."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.status import AgentStatus, WorkflowStatus
from app.errors import UnknownRun

HEX_DIGITS = 32
READ_RUN: TextClause = text("""
    SELECT r.id, w.name AS workflow, w.version, r.status, r.error, r.level, r.level_count,
        b.limit_usd, b.spent_usd, r.created_at, r.started_at, r.finished_at, r.pruned_at, r.key,
        r.rerun_of, r.rerun_from
    FROM runs r JOIN workflows w ON w.id = r.workflow_id JOIN budgets b ON b.id = r.id
    WHERE r.id = :run_id
""")
READ_AGENTS: TextClause = text("""
    SELECT a.name, a.module, a.provider, a.model, a.level, a.status, a.attempt, a.retries,
        a.recoveries, a.error, a.spent_usd, a.started_at, a.finished_at, t.first_token_s
    FROM agent_runs a LEFT JOIN attempts t ON t.agent_run_id = a.id AND t.number = a.attempt
    WHERE a.run_id = :run_id ORDER BY a.level, a.position
""")
FIND_RUNS: TextClause = text("""
    SELECT id FROM runs WHERE id BETWEEN :low AND :high ORDER BY id LIMIT 2
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentProgress:
    """One agent of a run, as it stands."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class RunProgress:
    """A run with its agents, by level and then in the order of its definition."""

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
    rerun_of: UUID | None = None
    rerun_from: str | None = None
    agents: tuple[AgentProgress, ...]

    def levels(self) -> list[list[AgentProgress]]:
        """The agents level by level."""
        levels: list[list[AgentProgress]] = [[] for _ in range(self.level_count)]
        for agent in self.agents:
            levels[agent.level].append(agent)
        return levels


async def read_progress(connection: AsyncConnection, run_id: UUID) -> RunProgress:
    """How far a run is.

    Raises:
        UnknownRun: If there is no such run.
    """
    row = (await connection.execute(READ_RUN, {"run_id": run_id})).mappings().one_or_none()
    if row is None:
        raise UnknownRun(f"no run has the id {str(run_id)!r}: see `agentchord runs`")
    agents = (await connection.execute(READ_AGENTS, {"run_id": run_id})).mappings()
    return RunProgress(
        **{**row, "status": WorkflowStatus(row["status"])},
        agents=tuple(
            AgentProgress(**{**agent, "status": AgentStatus(agent["status"])}) for agent in agents
        ),
    )


async def find_run(connection: AsyncConnection, prefix: str) -> UUID:
    """The run whose id begins like this.

    Args:
        connection: Inside a transaction.
        prefix: First characters of the id, with or without its dashes.

    Raises:
        UnknownRun: If there is none, or more than one.
    """
    digits = prefix.replace("-", "").lower()
    if not digits or len(digits) > HEX_DIGITS or set(digits) - set("0123456789abcdef"):
        raise UnknownRun(f"{prefix!r} is not the id of a run: see `agentchord runs`")
    low, high = UUID(digits.ljust(HEX_DIGITS, "0")), UUID(digits.ljust(HEX_DIGITS, "f"))
    found = list(await connection.scalars(FIND_RUNS, {"low": low, "high": high}))
    if not found:
        raise UnknownRun(f"no run has an id that begins with {prefix!r}: see `agentchord runs`")
    if len(found) > 1:
        raise UnknownRun(
            f"several runs have an id that begins with {prefix!r}: give more of it "
            "(ids begin with the time, so runs of one minute share eight or nine characters)"
        )
    run_id: UUID = found[0]
    return run_id

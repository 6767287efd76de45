"""Renews the leases of living workers, and takes away the leases of silent workers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.status import AgentStatus
from app.errors import RecoveriesExhausted, WorkerLost
from app.storage.records import CallRecord, Ending, Record, apply_records
from app.storage.session import dumps
from app.storage.statements import HOLDS_OF_AGENT_RUNS, LOCK_EXPIRED, RENEW_LEASES
from app.storage.turns import lose_tool_calls


@dataclass(frozen=True, kw_only=True, slots=True)
class Renewed:
    """A lease that still belongs to its worker, with the state of the run."""

    stopping: bool
    paused: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """A lease that was taken away; ``error`` is set if the agent had too many recoveries."""

    run_id: UUID
    name: str
    agent_run_id: UUID
    attempt: int
    retries: int
    error: str | None = None


def renew_leases(
    connection: Connection, held: Mapping[UUID, int], *, lease_s: float
) -> dict[UUID, Renewed]:
    """Extend all leases of a process in one statement.

    Args:
        connection: The heartbeat's own connection; the connection is synchronous, because the
            heartbeat runs in a thread.
        held: The attempts that the process still owns, as far as the process knows. The keys are
            ids of agent runs.
        lease_s: Seconds from now until the leases end.

    Returns:
        The leases that still belong to the process. A lease that is missing here was taken away.
    """
    leases = [{"id": id_, "attempt": attempt} for id_, attempt in held.items()]
    rows = connection.execute(RENEW_LEASES, {"leases": dumps(leases), "lease_s": lease_s})
    return {row.id: Renewed(stopping=row.stop_as is not None, paused=row.paused) for row in rows}


async def recover_expired(connection: AsyncConnection, *, max_recoveries: int) -> list[Lost]:
    """Make the agents of silent workers ready again, and book the worst cases of the agents' calls.

    It is unknown whether a call in flight was billed. Therefore the hold of the call becomes an
    ``unconfirmed`` entry with the cost of the worst case. If an agent was recovered too often, the
    agent fails, because the agent may have killed its workers. An agent that has its last chance is
    a suspect. CLAIM never gives a worker two suspects at once, so that one suspect cannot make
    another suspect fail.

    Args:
        connection: Inside a transaction.
        max_recoveries: Number of recoveries after which an agent fails and is not made ready again.

    Returns:
        All leases that were taken away.
    """
    expired = (await connection.execute(LOCK_EXPIRED)).all()
    if not expired:
        return []
    calls: dict[UUID, list[CallRecord]] = {row.id: [] for row in expired}
    for hold in (await connection.execute(HOLDS_OF_AGENT_RUNS, {"ids": list(calls)})).mappings():
        fields = {**hold, "budget_ids": tuple(hold["budget_ids"])}
        cost = fields.pop("amount_usd")
        calls[hold["agent_run_id"]].append(
            CallRecord(**fields, cost_usd=cost, kind="unconfirmed", outcome="unknown")
        )
    records, lost = [], []
    for row in expired:
        error = _quarantine(row) if row.recoveries >= max_recoveries else None
        ending = Ending(
            run_id=row.run_id,
            name=row.name,
            status=AgentStatus.FAILED if error else AgentStatus.PENDING,
            outcome="lost",
            event="agent_failed" if error else "agent_recovered",
            error=error or f"worker {row.worker} went silent",
            error_class=(RecoveriesExhausted if error else WorkerLost).__name__,
            recovery=True,
        )
        records.append(
            Record(
                agent_run_id=row.id, attempt=row.attempt, calls=tuple(calls[row.id]), ending=ending
            )
        )
        lost.append(
            Lost(
                run_id=row.run_id,
                name=row.name,
                agent_run_id=row.id,
                attempt=row.attempt,
                retries=row.retries,
                error=error,
            )
        )
    await lose_tool_calls(connection, list(calls))
    await apply_records(connection, records)
    return lost


def _quarantine(row: Row[Any]) -> str:
    return (
        f"quarantined: worker {row.worker} went silent, after {row.recoveries} recoveries for the "
        "same reason: look for the cause in the agent's tools or its use of memory, or raise "
        "engine.max_recoveries"
    )

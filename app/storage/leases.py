"""Leases: renewed while their worker lives, taken away when it does not."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.status import AgentStatus
from app.storage.records import CallRecord, Ending, Record, apply_records
from app.storage.session import dumps
from app.storage.statements import HOLDS_OF_AGENT_RUNS, LOCK_EXPIRED, RENEW_LEASES


@dataclass(frozen=True, kw_only=True, slots=True)
class Renewed:
    """A lease that is still its owner's, and what has become of its run."""

    stopping: bool
    paused: bool


def renew_leases(
    connection: Connection, held: Mapping[UUID, int], *, lease_s: float
) -> dict[UUID, Renewed]:
    """Extend all leases of a process in one statement.

    Args:
        connection: The heartbeat's own connection, synchronous because it lives in a thread.
        held: Attempt by agent run, as the process believes.
        lease_s: Seconds from now until they end.

    Returns:
        The leases that are still the process's own. One that is missing has been taken by somebody
        else.
    """
    leases = [{"id": id_, "attempt": attempt} for id_, attempt in held.items()]
    rows = connection.execute(RENEW_LEASES, {"leases": dumps(leases), "lease_s": lease_s})
    return {row.id: Renewed(stopping=row.stop_as is not None, paused=row.paused) for row in rows}


async def recover_expired(
    connection: AsyncConnection, *, max_recoveries: int
) -> list[tuple[UUID, str]]:
    """Give agents whose worker went silent back for a new attempt, and book what it may have spent.

    Nobody knows whether a call in flight was billed, so its hold becomes an ``unconfirmed`` entry
    at the worst case. An agent recovered too often fails: it may be what kills the workers.

    Args:
        connection: Inside a transaction.
        max_recoveries: Recoveries after which an agent fails instead.

    Returns:
        (run, agent name) of every lease taken away.
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
    records = []
    for row in expired:
        gone = f"worker {row.worker} went silent"
        exhausted = row.recoveries >= max_recoveries
        ending = Ending(
            run_id=row.run_id,
            name=row.name,
            status=AgentStatus.FAILED if exhausted else AgentStatus.PENDING,
            outcome="lost",
            event="agent_failed" if exhausted else "agent_recovered",
            error=f"{gone}, after {row.recoveries} recoveries" if exhausted else gone,
            error_class="RecoveriesExhausted" if exhausted else "WorkerLost",
            recovery=True,
        )
        records.append(
            Record(
                agent_run_id=row.id, attempt=row.attempt, calls=tuple(calls[row.id]), ending=ending
            )
        )
    await apply_records(connection, records)
    return [(row.run_id, row.name) for row in expired]

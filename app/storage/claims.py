"""Claims ready agents of a run's level for a worker."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.fetch import fetch
from app.storage.session import dumps
from app.storage.statements import CLAIM, LOCK_RUNS, REMAINING


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimRequest:
    """A lane's request for up to ``width`` agents, in addition to the lane's ``busy`` agents.

    ``pending`` is the number of the level's pending agents, if this transaction has begun the level
    and counted these agents; otherwise it is None.
    """

    run_id: UUID
    level: int
    provider: str
    width: int
    busy: int = 0
    pending: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedAgent:
    """An agent run that belongs to this worker until the lease ends.

    Attributes:
        id: Id of the agent run.
        run_id: Id of the run.
        name: Name of the agent in the workflow.
        attempt: Number of this attempt, which is the fencing token.
        retries: Number of retries before this attempt.
        limit_usd: The agent's cost_limit.
        spent_usd: The cost of the agent run's earlier attempts.
        outputs: The outputs that the prompt reads, by agent name.
        item_index: Index of the agent run's element in its for_each list, from 0; None if the agent
            run is not an element.
        item: The element itself; None if the agent run is not an element.
        expanded: Whether an earlier attempt has recorded the list of the agent's for_each.
        seen: The hash of the values from which ``kept`` was made; None if nothing is kept.
        kept: The output that was accepted before a retry of the run.
        drained: Number of earlier attempts whose workers were asked to stop during their calls,
            since the last attempt with another end.
    """

    id: UUID
    run_id: UUID
    name: str
    attempt: int
    retries: int
    limit_usd: Decimal
    spent_usd: Decimal
    outputs: Mapping[str, Any]
    item_index: int | None = None
    item: Any = None
    expanded: bool = False
    seen: str | None = None
    kept: Any = None
    drained: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """The agents that a lane got, and the work that is left.

    Attributes:
        agents: The claimed agents, by priority.
        more: Whether more agents of the request's provider are ready now.
        other_provider: Another provider whose agents are ready; None if no such provider exists.
        open: Whether an agent of the level is not final yet; claimed agents are not final.
        alone: Whether all agents that are not final belong to this lane.
        room: Whether the run may have more agents in progress than it has now.
    """

    agents: tuple[ClaimedAgent, ...]
    more: bool
    other_provider: str | None
    open: bool
    alone: bool
    room: bool


async def claim(
    connection: AsyncConnection,
    requests: Sequence[ClaimRequest],
    *,
    worker: str,
    lease_s: float,
    max_recoveries: int,
    locked: bool = False,
) -> list[Claim]:
    """Claim agents for several lanes at once; each lane belongs to a different run.

    An agent that has been recovered ``max_recoveries`` times is a suspect. A worker has only one
    suspect at a time.

    A claim may be repeated if the outcome of its commit is unknown. No heartbeat renews the leases
    of the agents that the first try may have claimed, so these leases end by themselves.

    Args:
        connection: Inside a transaction.
        requests: The requests of lanes.
        worker: The owner of the leases.
        lease_s: Seconds until a lease ends if the lease is not renewed.
        max_recoveries: Number of recoveries after which an agent is a suspect.
        locked: Whether the transaction has locked the runs already.
    """
    document = dumps([asdict(request) for request in requests])
    last_chance = max(max_recoveries, 1)
    if not locked:
        await fetch(connection, LOCK_RUNS, {"ids": sorted(q.run_id for q in requests)})
    rows = await fetch(
        connection,
        CLAIM,
        {
            "requests": document,
            "worker": worker,
            "lease_s": lease_s,
            "last_chance": last_chance,
        },
    )
    agents: dict[UUID, list[ClaimedAgent]] = {q.run_id: [] for q in requests}
    for row in rows:
        fields = row._asdict()
        fields["outputs"] = fields["outputs"] or {}
        agents[row.run_id].append(ClaimedAgent(**fields))
    if all(len(agents[q.run_id]) == q.pending for q in requests):
        return [_whole_level(agents[q.run_id]) for q in requests]
    left = {
        row.run_id: row
        for row in await fetch(
            connection, REMAINING, {"requests": document, "last_chance": last_chance}
        )
    }
    return [
        Claim(
            agents=tuple(agents[q.run_id]),
            more=left[q.run_id].more,
            other_provider=left[q.run_id].other_provider,
            open=left[q.run_id].open > 0,
            alone=left[q.run_id].open <= q.busy + len(agents[q.run_id]),
            room=left[q.run_id].room,
        )
        for q in requests
    ]


def _whole_level(agents: Sequence[ClaimedAgent]) -> Claim:
    """Return the claim of all agents of a level; a query would find nothing left."""
    return Claim(
        agents=tuple(agents), more=False, other_provider=None, open=True, alone=True, room=True
    )

"""The queue of holds that wait for budgets, and the search for holds that may be tried again."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.budgets import budget_label
from app.domain.money import Account, HoldAnswer, HoldOutcome, HoldRequest, decide_holds
from app.storage.fetch import Row
from app.storage.session import dumps
from app.storage.statements import CHANGE_QUEUE, READ_BUDGETS, READ_QUEUE


@dataclass(frozen=True, kw_only=True, slots=True)
class HoldQueue:
    """The requests that wait for some budgets.

    Attributes:
        waiting: The requests that still wait, in the order of their arrival.
        dead: Pairs (agent run, attempt) of the requests that no longer wait.
        own: The accounts of the agent runs' cost_limits, by agent run.
        places: The attempt with which each request waits in the queue, by agent run.
    """

    waiting: tuple[HoldRequest, ...] = ()
    dead: tuple[tuple[UUID, int], ...] = ()
    own: Mapping[UUID, Account]
    places: Mapping[UUID, int] = field(default_factory=dict)

    def with_requests(self, requests: Sequence[HoldRequest]) -> "HoldQueue":
        """Return the queue with these requests in the places that their agent runs have."""
        asking = {request.agent_run_id: request for request in requests}
        return replace(self, waiting=tuple(asking.get(w.agent_run_id, w) for w in self.waiting))


async def read_queue(connection: AsyncConnection, budget_ids: Collection[UUID]) -> HoldQueue:
    """Read the queue of budgets; a caller must lock these budgets before it changes the queue."""
    rows = (await connection.execute(READ_QUEUE, {"ids": list(budget_ids)})).all()
    live = [row for row in rows if row.live]
    return HoldQueue(
        waiting=tuple(
            HoldRequest(
                call_id=row.call_id,
                agent_run_id=row.agent_run_id,
                attempt=row.attempt,
                budget_ids=tuple(row.budget_ids),
                amount_usd=row.amount_usd,
                away=row.away,
            )
            for row in live
        ),
        places={row.agent_run_id: row.attempt for row in live},
        dead=tuple((row.agent_run_id, row.attempt) for row in rows if not row.live),
        own={row.agent_run_id: own_account(row.agent_run_id, row) for row in live},
    )


async def change_queue(
    connection: AsyncConnection,
    before: HoldQueue,
    accounts: Mapping[UUID, Account],
    asked: Sequence[tuple[HoldRequest, HoldAnswer]],
) -> None:
    """Add the requests that have to wait, and remove the other requests from the queue.

    Args:
        connection: Inside the transaction that has locked the budgets.
        before: The queue before the change.
        accounts: The accounts of budgets and agent runs, by id.
        asked: The requests with their answers.
    """
    queue = before.with_requests([request for request, _ in asked])
    waited = {waiter.call_id for waiter in queue.waiting}
    budgets_of = {waiter.call_id: waiter.budget_ids for waiter in before.waiting}
    waiting = [
        # No request waits for a soft budget.
        replace(request, budget_ids=tuple(i for i in request.budget_ids if not accounts[i].soft))
        for request, answer in asked
        if answer.outcome is HoldOutcome.WAIT
    ]
    entering = [each for each in waiting if budgets_of.get(each.call_id) != each.budget_ids]
    coming = {request.agent_run_id for request in entering}
    leaving = [
        (request.agent_run_id, queue.places[request.agent_run_id])
        for request, answer in asked
        if answer.outcome is not HoldOutcome.WAIT and request.call_id in waited
    ]
    leaving += [(id_, attempt) for id_, attempt in queue.dead if id_ not in coming]
    if not entering and not leaving:
        return
    answered = {request.call_id for request, _ in asked}
    staying = [waiter for waiter in queue.waiting if waiter.call_id not in answered]
    awaited = {id_ for request in (*waiting, *staying) for id_ in request.budget_ids}
    rows = [
        {
            "agent_run_id": request.agent_run_id,
            "call_id": request.call_id,
            "attempt": request.attempt,
            "budget_ids": request.budget_ids,
            "amount_usd": str(request.amount_usd),
        }
        for request in entering
    ]
    shared = {id_ for request, _ in asked for id_ in request.budget_ids}
    await connection.execute(
        CHANGE_QUEUE,
        {
            "entering": dumps(rows),
            "leaving": dumps([{"agent_run_id": id_, "attempt": number} for id_, number in leaving]),
            "budgets": dumps([{"id": id_, "awaited": id_ in awaited} for id_ in sorted(shared)]),
        },
    )


async def next_in_queue(
    connection: AsyncConnection, budget_ids: Collection[UUID]
) -> tuple[UUID, ...]:
    """Find the agent runs that wait for these budgets and should try again now.

    If the holds of these agent runs are placed in the order of the queue, each hold either fits or
    will never fit. This function only finds the agent runs to wake. When the agent runs try again,
    the holds are decided anew under locks.
    """
    queue = await read_queue(connection, budget_ids)
    if not queue.waiting:
        return ()
    wanted = {id_ for waiter in queue.waiting for id_ in waiter.budget_ids}
    rows = await connection.execute(READ_BUDGETS, {"ids": sorted(wanted)})
    accounts = {row.id: shared_account(row) for row in rows} | dict(queue.own)
    answers = decide_holds(queue.waiting, accounts)
    return tuple(
        waiter.agent_run_id
        for waiter, answer in zip(queue.waiting, answers, strict=True)
        if answer.outcome is not HoldOutcome.WAIT
    )


def own_account(agent_run_id: UUID, row: Row) -> Account:
    """Make the account of an agent's cost_limit from a row."""
    return Account(
        id=agent_run_id,
        label="cost_limit of the agent",
        limit_usd=row.limit_usd,
        spent_usd=row.spent_usd,
        held_usd=row.held_usd,
    )


def shared_account(row: Row) -> Account:
    """Make the account of a shared budget from a row of ``budgets``."""
    return Account(
        id=row.id,
        label=budget_label(row.scope, row.subject, row.period),
        limit_usd=row.limit_usd,
        spent_usd=row.spent_usd,
        held_usd=row.held_usd,
        soft=row.soft,
        closed=row.closed,
        paused=row.paused,
    )

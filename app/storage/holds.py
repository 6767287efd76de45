"""Places the holds of calls: locks accounts, decides with a pure function, applies the decision."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.money import Account, HoldAnswer, HoldOutcome, HoldRequest, decide_holds
from app.storage.budget_waiters import WakeWaiters, wake_none
from app.storage.fetch import fetch
from app.storage.hold_queue import (
    HoldQueue,
    change_queue,
    next_in_queue,
    own_account,
    read_queue,
    shared_account,
)
from app.storage.session import dumps
from app.storage.statements import (
    HOLDS_AND_STANDING_BUDGETS,
    LOCK_AGENT_RUNS,
    LOCK_BUDGETS,
    MAKE_ACCOUNTS,
    PLACE_HOLDS,
)

Subject = tuple[str, str]


async def place_holds(
    connection: AsyncConnection, requests: Sequence[HoldRequest], *, wake: WakeWaiters = wake_none
) -> list[HoldAnswer]:
    """Reserve the worst cases of calls; each hold is placed on all its accounts or on no account.

    If the outcome of an earlier commit is unknown, an earlier try may have placed a hold already.
    Such a hold is found by its call id and is not placed twice. A hold that has to wait gets a
    place in the queue and keeps this place until the hold is placed or refused.

    Args:
        connection: Inside a transaction.
        requests: The requested holds, each of a different agent run.
        wake: Called if a request has left the queue. ``wake`` gets the agent runs that wait behind
            this request and should try their holds again.
    """
    own, attempts = await _lock_agent_runs(connection, requests)
    subjects = {subject for request in requests for subject in request.subjects}
    call_ids = [request.call_id for request in requests]
    placed, standing = await read_standing(connection, subjects, call_ids)
    live = [
        _with_standing(request, standing) if standing else request
        for request in requests
        if attempts.get(request.agent_run_id) == request.attempt and request.call_id not in placed
    ]
    ids = sorted({id_ for request in live for id_ in request.budget_ids})
    budgets = await fetch(connection, LOCK_BUDGETS, {"ids": ids})
    accounts = own | {row.id: shared_account(row) for row in budgets}
    awaited = {row.id for row in budgets if row.awaited}
    queue = await read_queue(connection, awaited) if awaited else HoldQueue(own={})
    answered = decide_holds(live, accounts, queue.with_requests(live).waiting)
    decided = list(zip(live, answered, strict=True))
    granted = [request for request, answer in decided if answer.outcome is HoldOutcome.PLACED]
    if granted:
        await _apply(connection, granted)
    if awaited or any(answer.outcome is HoldOutcome.WAIT for _, answer in decided):
        await change_queue(connection, queue, accounts, decided)
        await _wake_next(connection, queue, decided, wake)
    answers = {request.call_id: answer for request, answer in decided}
    already = HoldAnswer(outcome=HoldOutcome.PLACED)
    fenced = HoldAnswer(outcome=HoldOutcome.FENCED)
    return [
        already if request.call_id in placed else answers.get(request.call_id, fenced)
        for request in requests
    ]


async def _lock_agent_runs(
    connection: AsyncConnection, requests: Sequence[HoldRequest]
) -> tuple[dict[UUID, Account], dict[UUID, int]]:
    """Lock the agent runs; return their accounts and their running attempts, by agent run."""
    ids = sorted({request.agent_run_id for request in requests})
    rows = await fetch(connection, LOCK_AGENT_RUNS, {"ids": ids})
    attempts = {row.id: row.attempt for row in rows if row.status == "running"}
    return {row.id: own_account(row.id, row) for row in rows}, attempts


async def read_standing(
    connection: AsyncConnection, subjects: Collection[Subject], call_ids: Sequence[UUID] = ()
) -> tuple[set[UUID], dict[Subject, list[UUID]]]:
    """Read the accounts of standing budgets, and make accounts that are missing in this period.

    Args:
        connection: Inside a transaction that has locked the agent runs, but no budget yet.
        subjects: Pairs (scope, subject) of the calls.
        call_ids: Calls that may have holds already.

    Returns:
        The calls that have holds, and the ids of the accounts by subject.
    """
    wanted = [{"scope": scope, "subject": subject} for scope, subject in sorted(subjects)]
    values = {"call_ids": list(call_ids), "subjects": dumps(wanted)}
    [row] = await fetch(connection, HOLDS_AND_STANDING_BUDGETS, values)
    if any(found["account"] is None for found in row.standing or ()):
        await connection.execute(MAKE_ACCOUNTS, {"subjects": values["subjects"]})
        [row] = await fetch(connection, HOLDS_AND_STANDING_BUDGETS, values)
    accounts: dict[Subject, list[UUID]] = defaultdict(list)
    for found in row.standing or ():
        # A standing budget may have no account, because the budget was set or removed at this
        # moment. A new budget applies from the next hold on.
        if found["account"] is not None:
            accounts[found["scope"], found["subject"]].append(UUID(found["account"]))
    return {UUID(call_id) for call_id in row.placed or ()}, accounts


def _with_standing(request: HoldRequest, standing: Mapping[Subject, list[UUID]]) -> HoldRequest:
    found = [id_ for subject in request.subjects for id_ in standing.get(subject, ())]
    return replace(request, budget_ids=(*request.budget_ids, *found))


async def _wake_next(
    connection: AsyncConnection,
    queue: HoldQueue,
    decided: Sequence[tuple[HoldRequest, HoldAnswer]],
    wake: WakeWaiters,
) -> None:
    """Wake the requests behind the requests that have left the queue without a hold."""
    left = {
        id_
        for request, answer in decided
        if request.agent_run_id in queue.places
        and answer.outcome in (HoldOutcome.EXCEEDED, HoldOutcome.CLOSED, HoldOutcome.PAUSED)
        for id_ in request.budget_ids
    }
    if left:
        wake(await next_in_queue(connection, left))


async def _apply(connection: AsyncConnection, granted: Sequence[HoldRequest]) -> None:
    totals: dict[UUID, Decimal] = defaultdict(Decimal)
    for request in granted:
        for budget_id in request.budget_ids:
            totals[budget_id] += request.amount_usd
    holds: list[dict[str, Any]] = [
        {
            "call_id": request.call_id,
            "agent_run_id": request.agent_run_id,
            "attempt": request.attempt,
            "budget_ids": request.budget_ids,
            "amount_usd": str(request.amount_usd),
            "provider": request.provider,
            "model": request.model,
        }
        for request in granted
    ]
    budgets = [{"id": id_, "amount_usd": str(amount)} for id_, amount in totals.items()]
    await fetch(connection, PLACE_HOLDS, {"holds": dumps(holds), "budgets": dumps(budgets)})

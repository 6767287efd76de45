"""Placing holds: the accounts are locked, the decision is pure, one statement applies it."""

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.money import Account, HoldAnswer, HoldOutcome, HoldRequest, decide_holds
from app.storage.session import dumps
from app.storage.statements import HOLDS_OF_CALLS, LOCK_AGENT_RUNS, LOCK_BUDGETS, PLACE_HOLDS


async def place_holds(
    connection: AsyncConnection, requests: Sequence[HoldRequest]
) -> list[HoldAnswer]:
    """Reserve the worst case of several calls, each on all of its accounts or on none.

    A hold that an earlier try has placed already (its commit's outcome was unknown) is found by
    its call id and not placed twice.
    """
    accounts, attempts = await _lock(connection, requests)
    call_ids = [request.call_id for request in requests]
    placed = set(await connection.scalars(HOLDS_OF_CALLS, {"call_ids": call_ids}))
    live = [
        request
        for request in requests
        if attempts.get(request.agent_run_id) == request.attempt and request.call_id not in placed
    ]
    answers = dict(
        zip((request.call_id for request in live), decide_holds(live, accounts), strict=True)
    )
    granted = [r for r in live if answers[r.call_id].outcome is HoldOutcome.PLACED]
    if granted:
        await _apply(connection, granted)
    already = HoldAnswer(outcome=HoldOutcome.PLACED)
    fenced = HoldAnswer(outcome=HoldOutcome.FENCED)
    return [already if call_id in placed else answers.get(call_id, fenced) for call_id in call_ids]


async def _lock(
    connection: AsyncConnection, requests: Sequence[HoldRequest]
) -> tuple[dict[UUID, Account], dict[UUID, int]]:
    """The accounts by id, and the running attempt of each agent run."""
    accounts, attempts = {}, {}
    agent_runs = sorted({request.agent_run_id for request in requests})
    for row in await connection.execute(LOCK_AGENT_RUNS, {"ids": agent_runs}):
        accounts[row.id] = Account(
            id=row.id,
            label="cost_limit of the agent",
            limit_usd=row.limit_usd,
            spent_usd=row.spent_usd,
            held_usd=row.held_usd,
        )
        if row.status == "running":
            attempts[row.id] = row.attempt
    budgets = sorted({id_ for request in requests for id_ in request.budget_ids})
    for row in await connection.execute(LOCK_BUDGETS, {"ids": budgets}):
        accounts[row.id] = Account(
            id=row.id,
            label=f"budget of {row.scope} {row.subject}",
            limit_usd=row.limit_usd,
            spent_usd=row.spent_usd,
            held_usd=row.held_usd,
            soft=row.soft,
            closed=row.closed,
        )
    return accounts, attempts


async def _apply(connection: AsyncConnection, granted: Sequence[HoldRequest]) -> None:
    totals: dict[UUID, Decimal] = defaultdict(Decimal)
    for request in granted:
        for budget_id in request.budget_ids:
            totals[budget_id] += request.amount_usd
    holds = [
        {
            "call_id": request.call_id,
            "agent_run_id": request.agent_run_id,
            "attempt": request.attempt,
            "budget_ids": request.budget_ids,
            "amount_usd": str(request.amount_usd),
        }
        for request in granted
    ]
    budgets = [{"id": id_, "amount_usd": str(amount)} for id_, amount in totals.items()]
    await connection.execute(PLACE_HOLDS, {"holds": dumps(holds), "budgets": dumps(budgets)})

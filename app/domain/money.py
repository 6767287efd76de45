"""The pure decision behind every hold: which calls may spend."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from enum import StrEnum
from uuid import UUID

#: The ledger's smallest unit, ten decimals of a dollar. Amounts are rounded to it before they are
#: booked anywhere, so that a budget and the entries on it agree to the last digit.
LEDGER_UNIT = Decimal("1E-10")


def round_to_ledger(amount_usd: Decimal) -> Decimal:
    """Round a cost as it is booked."""
    return amount_usd.quantize(LEDGER_UNIT, rounding=ROUND_HALF_UP)


def round_up(amount_usd: Decimal) -> Decimal:
    """Round a worst case as it is held: never below the cost it stands for."""
    return amount_usd.quantize(LEDGER_UNIT, rounding=ROUND_CEILING)


def dollars(amount_usd: Decimal) -> str:
    """Word an amount for a reader: no trailing zeros, at least cents."""
    short = abs(amount_usd).normalize()
    exponent = short.as_tuple().exponent
    assert isinstance(exponent, int), "an amount is a finite number"
    return f"{'-' if amount_usd < 0 else ''}${short:.{max(-exponent, 2)}f}"


@dataclass(kw_only=True, slots=True)
class Account:
    """A budget as it stands under its lock; placing a hold on it changes ``held_usd``."""

    id: UUID
    label: str
    limit_usd: Decimal
    spent_usd: Decimal
    held_usd: Decimal
    soft: bool = False
    closed: bool = False
    paused: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class HoldRequest:
    """The request to hold money for one call.

    Attributes:
        call_id: Id of the call.
        agent_run_id: The agent run that makes it; its cost_limit is an account of that id.
        attempt: Its fencing token.
        budget_ids: The shared budgets that apply.
        amount_usd: Worst case of the call.
        subjects: (scope, subject) of the standing budgets that apply, if there are any. Their
            accounts are found when the hold is placed.
        begun: Whether its attempt has made calls before: it keeps its place until it has ended.
        away: Whether the agent run that waits has given its place back meanwhile.
        provider: Provider of the call; None for the provider of the agent run.
        model: Model of the call, likewise.
    """

    call_id: UUID
    agent_run_id: UUID
    attempt: int
    budget_ids: tuple[UUID, ...]
    amount_usd: Decimal
    subjects: tuple[tuple[str, str], ...] = ()
    begun: bool = False
    away: bool = False
    provider: str | None = None
    model: str | None = None


class HoldOutcome(StrEnum):
    """Answer to a HoldRequest."""

    PLACED = "placed"
    WAIT = "wait"  # fits once running holds have settled for less
    EXCEEDED = "exceeded"  # cannot fit any more, whatever the running calls cost
    CLOSED = "closed"  # the run is being cancelled
    PAUSED = "paused"  # the run is paused
    FENCED = "fenced"  # the attempt is no longer this worker's


@dataclass(frozen=True, kw_only=True, slots=True)
class HoldAnswer:
    """Outcome of one request, and the account that decided it."""

    outcome: HoldOutcome
    account: Account | None = None


def decide_holds(
    requests: Sequence[HoldRequest],
    accounts: Mapping[UUID, Account],
    queue: Sequence[HoldRequest] = (),
) -> list[HoldAnswer]:
    """Grant what fits, all accounts or none, in order and without overtaking.

    The amount of a request that waits is set aside on every account of it, and a later request is
    granted only if it fits besides. So a large hold waits only for what was held before it came,
    and small ones go on wherever there is room for all. A request of an attempt that has begun
    does not wait for one that is away: that one may be waiting for the place of the former.

    Args:
        requests: The holds asked for, in order of arrival.
        accounts: The accounts they touch, locked; granted amounts are added to ``held_usd``.
        queue: The requests that wait already, in order; those asked for again keep their
            places, all others come behind.

    Returns:
        One answer per request.
    """
    asked_now = {request.call_id: request for request in requests}
    waiting = {waiter.call_id for waiter in queue}
    in_order = [asked_now.get(waiter.call_id, waiter) for waiter in queue]
    in_order.extend(request for request in requests if request.call_id not in waiting)
    set_aside: dict[UUID, Decimal] = defaultdict(Decimal)
    for_present: dict[UUID, Decimal] = defaultdict(Decimal)
    answers = {}
    for request in in_order:
        asked = request.call_id in asked_now
        ids = (request.agent_run_id, *request.budget_ids)
        # Of a request that only waits, the accounts that are asked for here are known.
        touched = [accounts[id_] for id_ in ids if asked or id_ in accounts]
        answer = answers[request.call_id] = _decide(
            request.amount_usd, touched, for_present if request.begun else set_aside
        )
        if answer.outcome is HoldOutcome.PLACED and asked:
            for account in touched:
                account.held_usd += request.amount_usd
        elif answer.outcome in (HoldOutcome.PLACED, HoldOutcome.WAIT):
            for account in touched:
                set_aside[account.id] += request.amount_usd
                for_present[account.id] += 0 if request.away else request.amount_usd
    return [answers[request.call_id] for request in requests]


def _decide(
    amount_usd: Decimal, touched: Sequence[Account], set_aside: Mapping[UUID, Decimal]
) -> HoldAnswer:
    for account in touched:
        if account.closed:
            return HoldAnswer(outcome=HoldOutcome.CLOSED, account=account)
        if account.paused:
            return HoldAnswer(outcome=HoldOutcome.PAUSED, account=account)
    hard = [account for account in touched if not account.soft]
    for account in hard:
        if account.spent_usd + amount_usd > account.limit_usd:
            return HoldAnswer(outcome=HoldOutcome.EXCEEDED, account=account)
    for account in hard:
        taken_usd = account.spent_usd + account.held_usd + set_aside[account.id]
        if taken_usd + amount_usd > account.limit_usd:
            return HoldAnswer(outcome=HoldOutcome.WAIT, account=account)
    return HoldAnswer(outcome=HoldOutcome.PLACED)

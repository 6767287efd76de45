"""Pure functions that decide whether a hold is placed; a call is made only with its hold."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from enum import StrEnum
from uuid import UUID

#: The ledger's smallest unit, ten decimals of a dollar. Amounts are rounded to this unit before
#: they are booked. So the spending of a budget is exactly the sum of the budget's entries.
LEDGER_UNIT = Decimal("1E-10")


def round_to_ledger(amount_usd: Decimal) -> Decimal:
    """Round a cost to the amount that is booked."""
    return amount_usd.quantize(LEDGER_UNIT, rounding=ROUND_HALF_UP)


def round_up(amount_usd: Decimal) -> Decimal:
    """Round up a worst case to the amount that is held, so that the hold covers the worst case."""
    return amount_usd.quantize(LEDGER_UNIT, rounding=ROUND_CEILING)


def readable(amount_usd: Decimal) -> Decimal:
    """Return an equal amount that prints as a plain number, so 0 and not 0E-10."""
    return amount_usd or Decimal(0)


def dollars(amount_usd: Decimal, *, most: int = 10) -> str:
    """Format an amount for a sentence, without trailing zeros but at least with cents.

    Args:
        amount_usd: US dollars.
        most: Most decimals; further decimals are rounded.
    """
    whole, _, decimals = f"{abs(amount_usd):,.{most}f}".partition(".")
    return f"{_sign(amount_usd)}${whole}.{decimals.rstrip('0'):0<2}"


def aligned_dollars(amount_usd: Decimal, *, places: int = 6, signed: bool = False) -> str:
    """Format an amount for a column: all amounts have the same number of decimals.

    An amount that is nearly zero is told as such, because zero would be wrong.

    Args:
        amount_usd: US dollars.
        places: Number of decimals to which the amount is rounded.
        signed: Whether zero and positive amounts get a plus sign.
    """
    least = Decimal(1).scaleb(-places)
    if amount_usd and abs(amount_usd) < least / 2:
        return f"{'<' if amount_usd > 0 else '>-'}${least:f}"
    return f"{_sign(amount_usd, signed=signed)}${abs(amount_usd):,.{places}f}"


def _sign(amount_usd: Decimal, *, signed: bool = False) -> str:
    return "-" if amount_usd < 0 else "+" if signed else ""


@dataclass(kw_only=True, slots=True)
class Account:
    """The state of a locked budget; if a hold is placed on the budget, ``held_usd`` changes."""

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
        agent_run_id: Id of the agent run that makes the call; the account for the cost_limit of the
            agent run has this id, too.
        attempt: Number of the attempt, which is the fencing token.
        budget_ids: Ids of the shared budgets that apply.
        amount_usd: Worst case of the call.
        subjects: (scope, subject) of each standing budget that applies. The accounts of these
            budgets are found when the hold is placed.
        begun: Whether the attempt has made calls before; an attempt with earlier calls keeps its
            place until the attempt ends.
        away: Whether the agent run has given its place back while it waits.
        provider: Provider of the call; None means the provider of the agent run.
        model: Model of the call; None means the model of the agent run.
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
    """The answer to a HoldRequest."""

    PLACED = "placed"
    WAIT = "wait"  # fits if the calls in flight cost less than their holds
    EXCEEDED = "exceeded"  # cannot fit, whatever the calls in flight cost
    CLOSED = "closed"  # the run is being cancelled
    PAUSED = "paused"  # the run is paused
    FENCED = "fenced"  # this worker no longer owns the attempt


@dataclass(frozen=True, kw_only=True, slots=True)
class HoldAnswer:
    """The outcome of one request, and the account that was the reason for the outcome."""

    outcome: HoldOutcome
    account: Account | None = None


def decide_holds(
    requests: Sequence[HoldRequest],
    accounts: Mapping[UUID, Account],
    queue: Sequence[HoldRequest] = (),
) -> list[HoldAnswer]:
    """Grant the holds that fit, in the order of their requests.

    A hold is placed on all accounts of its request, or on none. If a request waits, its amount is
    set aside on each of its accounts. A later request is granted only if the later request fits
    beside that amount. So a large hold waits only for holds that were placed before the large hold
    was requested. A small hold is granted if its accounts also have enough left for the waiting
    holds. An attempt that has begun does not wait for an agent run that is away, because this agent
    run may be waiting for the place of the attempt.

    Args:
        requests: The requests for holds, in order of arrival.
        accounts: The locked accounts of these requests; granted amounts are added to ``held_usd``.
        queue: The requests that already wait, in order. If a waiting request is made again, it
            keeps its place. All other requests come after the queue.

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
        # If a request only waits, ``accounts`` may lack some accounts of this request.
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

"""Who may spend: the pure decision behind every hold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from enum import StrEnum
from uuid import UUID

#: The ledger's smallest unit, ten decimals of a dollar. Amounts are rounded to it before they are
#: booked anywhere, so that a budget and the entries on it agree to the last digit.
LEDGER_UNIT = Decimal("1E-10")


def round_to_ledger(amount_usd: Decimal) -> Decimal:
    """A cost as it is booked."""
    return amount_usd.quantize(LEDGER_UNIT, rounding=ROUND_HALF_UP)


def round_up(amount_usd: Decimal) -> Decimal:
    """A worst case as it is held: never below the cost it stands for."""
    return amount_usd.quantize(LEDGER_UNIT, rounding=ROUND_CEILING)


def dollars(amount_usd: Decimal) -> str:
    """An amount as people read it: no trailing zeros, at least cents."""
    short = amount_usd.normalize()
    exponent = short.as_tuple().exponent
    assert isinstance(exponent, int), "an amount is a finite number"
    return f"${short:.{max(-exponent, 2)}f}"


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


@dataclass(frozen=True, kw_only=True, slots=True)
class HoldRequest:
    """The wish to make one call.

    Attributes:
        call_id: Id of the call.
        agent_run_id: Who wants to make it; its own cost_limit is an account of that id.
        attempt: Its fencing token.
        budget_ids: The shared budgets that apply.
        amount_usd: Worst case of the call.
    """

    call_id: UUID
    agent_run_id: UUID
    attempt: int
    budget_ids: tuple[UUID, ...]
    amount_usd: Decimal


class HoldOutcome(StrEnum):
    """Answer to a HoldRequest."""

    PLACED = "placed"
    WAIT = "wait"  # fits once running holds have settled for less
    EXCEEDED = "exceeded"  # cannot fit any more, whatever the running calls cost
    CLOSED = "closed"  # the run is being cancelled
    FENCED = "fenced"  # the attempt is no longer this worker's


@dataclass(frozen=True, kw_only=True, slots=True)
class HoldAnswer:
    """Outcome of one request, and the account that decided it."""

    outcome: HoldOutcome
    account: Account | None = None


def decide_holds(
    requests: Iterable[HoldRequest], accounts: Mapping[UUID, Account]
) -> list[HoldAnswer]:
    """Grant what fits, all accounts or none, in order and without overtaking.

    A request that has to wait makes every later one on the same account wait too; otherwise
    small calls could starve a large one for ever.

    Args:
        requests: The wishes, in order of arrival.
        accounts: The accounts they touch, locked; granted amounts are added to ``held_usd``.

    Returns:
        One answer per request.
    """
    blocked: set[UUID] = set()
    answers = []
    for request in requests:
        touched = [accounts[id_] for id_ in (request.agent_run_id, *request.budget_ids)]
        answer = _decide(request.amount_usd, touched, blocked)
        if answer.outcome is HoldOutcome.PLACED:
            for account in touched:
                account.held_usd += request.amount_usd
        elif answer.outcome is HoldOutcome.WAIT:
            blocked.update(account.id for account in touched if not account.soft)
        answers.append(answer)
    return answers


def _decide(amount_usd: Decimal, touched: list[Account], blocked: set[UUID]) -> HoldAnswer:
    for account in touched:
        if account.closed:
            return HoldAnswer(outcome=HoldOutcome.CLOSED, account=account)
    hard = [account for account in touched if not account.soft]
    for account in hard:
        if account.spent_usd + amount_usd > account.limit_usd:
            return HoldAnswer(outcome=HoldOutcome.EXCEEDED, account=account)
    for account in hard:
        full = account.spent_usd + account.held_usd + amount_usd > account.limit_usd
        if full or account.id in blocked:
            return HoldAnswer(outcome=HoldOutcome.WAIT, account=account)
    return HoldAnswer(outcome=HoldOutcome.PLACED)

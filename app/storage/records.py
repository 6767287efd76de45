"""Writes results, cost entries, settled holds and history, in one transaction per batch."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.status import AgentStatus
from app.domain.usage import Usage
from app.storage.booking import note_booked
from app.storage.budget_waiters import WakeWaiters, wake_none
from app.storage.fan_out import Items, expand
from app.storage.fetch import fetch
from app.storage.session import dumps
from app.storage.statements import (
    APPLY_RECORDS,
    ENTRIES_OF_CALLS,
    LOCK_AGENT_RUNS,
    LOCK_BUDGETS,
    TAKE_HOLDS,
)
from app.storage.turns import ToolCallRecord, TurnRecord, TurnWrites, write_turns

log = structlog.get_logger(__name__)

ZERO = Decimal(0)
TOKENS = tuple(column.name for column in fields(Usage))
#: The kinds of cost entries, and "void". A call that was never made is void: its hold is released
#: without an entry.
Kind = Literal["actual", "estimated", "unconfirmed", "correction", "cached", "void"]
#: The outcome of an attempt.
Outcome = Literal["running", "completed", "failed", "cancelled", "handed_back", "lost"]
#: The certainty of a call's cost, by the kind of the entry; a more certain entry takes back a less
#: certain entry.
KNOWLEDGE = {"unconfirmed": 1, "estimated": 2, "cached": 3, "actual": 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class CallRecord:
    """The known facts of one call to a provider, from which a line of the ledger is written.

    The call is booked on the budgets of its hold; ``budget_ids`` is used only if the call had no
    hold. ``saved_usd`` is the additional cost that the call would have had without any cache.
    ``seconds`` is the duration of the call, or None if no process saw the call's end. If the record
    is a correction that takes back a guess, ``corrects`` is the kind of that guess. ``served`` has
    those facts of the answer that change the price (see ``served_by``); None means that nobody has
    noted these facts. ``expected_tokens`` is the number of the prompt's tokens that was estimated
    before the call. ``bound_tokens`` is the upper bound of this number. ``finish_reason`` is the
    reason why the answer ended, or None if no answer came.
    """

    call_id: UUID
    run_id: UUID
    agent_run_id: UUID
    attempt: int
    workflow_id: UUID
    workflow: str
    agent: str
    module: str
    provider: str
    model: str
    budget_ids: tuple[UUID, ...]
    cost_usd: Decimal
    kind: Kind = "actual"
    outcome: str = "ok"
    model_answered: str | None = None
    request_id: str | None = None
    usage: Usage = field(default_factory=Usage)
    raw_usage: Mapping[str, Any] = field(default_factory=dict)
    served: Mapping[str, str] | None = None
    price_version: str | None = None
    version: int | None = None
    tenant: str | None = None
    saved_usd: Decimal = ZERO
    seconds: float | None = None
    corrects: Kind | None = None
    expected_tokens: int | None = None
    bound_tokens: int | None = None
    finish_reason: str | None = None

    def entry(self) -> dict[str, Any]:
        """Return the columns of the call's cost entry."""
        row = {name: getattr(self, name) for name in self.__slots__}
        return (
            row
            | asdict(row.pop("usage"))
            | {
                "usage": row.pop("raw_usage"),
                "cost_usd": str(self.cost_usd),
                "saved_usd": str(self.saved_usd),
            }
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """The end of an attempt, and the new state of the agent run.

    Attributes:
        run_id: The run.
        name: Name of the agent.
        status: New state of the agent run; PENDING makes the agent run ready for another attempt.
        outcome: Outcome of the attempt; if the agent run is WAITING, the attempt goes on.
        event: Type of the event that the history gets.
        output: Output of a completed agent as a JSON value.
        error: Message of the error.
        error_class: Name of the error's class in ``app.errors``; a name that is not in
            ``app.errors`` means a defect.
        ready_in_s: Seconds until a pending agent run may be claimed again.
        waits_for: The limit, circuit or budget for which the agent run was given back.
        retry: Whether the next attempt counts as a retry.
        recovery: Whether the next attempt counts as a recovery.
        items: The list of an agent that now waits for the items of this list, or whose list is
            empty now although it had items before; None for other agents.
        seen: The hash of the values from which the output was made.
        kept: Whether the output is the output before a retry, because these values are the same.
        first_token_s: Seconds until the attempt's first streamed answer had its first token.
        finish_reason: The way in which the model's last answer ended, or None if the attempt ended
            without an answer.
        waited_s: Seconds that the attempt has waited, by cause; short waits are left out.
    """

    run_id: UUID
    name: str
    status: AgentStatus
    outcome: Outcome
    event: str
    output: Any = None
    error: str | None = None
    error_class: str | None = None
    ready_in_s: float = 0.0
    waits_for: str | None = None
    retry: bool = False
    recovery: bool = False
    items: Items | None = None
    seen: str | None = None
    kept: bool = False
    first_token_s: float | None = None
    finish_reason: str | None = None
    waited_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """All data that an agent run writes in one step: calls to settle, and perhaps its ending.

    ``turn`` is an answer that asks for tools or was paused. ``tools`` are states of tool calls.
    Only the attempt that owns the agent run may write turns and tool calls.
    """

    agent_run_id: UUID
    attempt: int
    calls: tuple[CallRecord, ...] = ()
    ending: Ending | None = None
    turn: TurnRecord | None = None
    tools: tuple[ToolCallRecord, ...] = ()


async def apply_records(
    connection: AsyncConnection, records: Sequence[Record], *, wake: WakeWaiters = wake_none
) -> list[bool]:
    """Write a batch of records, each of a different agent run.

    The money is always booked, even the money of late and fenced attempts. An ending is accepted
    only if its attempt still owns the agent run. A repeated batch changes nothing.

    Args:
        connection: Inside a transaction.
        records: The records to write.
        wake: Called with the agent runs whose holds may fit because this batch releases money.

    Returns:
        For a record with an ending, whether the ending was accepted. For a record that starts
        tools, whether these tools may run. For any other record, True.
    """
    ids = sorted({record.agent_run_id for record in records})
    owners = {
        row.id: row.attempt
        for row in await fetch(connection, LOCK_AGENT_RUNS, {"ids": ids})
        if row.status == "running"
    }
    accepted = [owners.get(record.agent_run_id) == record.attempt for record in records]
    settlement = await _settle(connection, [call for record in records for call in record.calls])
    agents = [
        _agent_row(record, settlement, is_owner)
        for record, is_owner in zip(records, accepted, strict=True)
    ]
    if len(settlement.budgets) > 1:
        await fetch(connection, LOCK_BUDGETS, {"ids": sorted(settlement.budgets)})
    documents = {
        "agents": dumps(agents),
        "entries": dumps(settlement.entries),
        "budgets": dumps(settlement.budget_rows()),
    }
    booked = await fetch(connection, APPLY_RECORDS, documents)
    if booked:
        await note_booked(connection, booked, settlement.entries, wake=wake)
    writes = [
        TurnWrites(
            agent_run_id=record.agent_run_id,
            attempt=record.attempt,
            turn=record.turn,
            tools=record.tools,
        )
        for record, is_owner in zip(records, accepted, strict=True)
        if is_owner and (record.tools or record.turn)
    ]
    going = await write_turns(connection, writes) if writes else set()
    for record, is_owner in zip(records, accepted, strict=True):
        if is_owner and record.ending is not None and record.ending.items is not None:
            await expand(connection, record.agent_run_id, record.ending.items)
    return [
        _is_accepted(record, is_owner=is_owner, is_going=record.agent_run_id in going)
        for is_owner, record in zip(accepted, records, strict=True)
    ]


def _is_accepted(record: Record, *, is_owner: bool, is_going: bool) -> bool:
    if record.ending is not None:
        return is_owner
    if record.tools:
        return is_going
    # The cost of calls is written for every attempt, but turns are written only for the owner.
    return is_owner or record.turn is None


Amounts = dict[UUID, tuple[Decimal, Decimal]]


def _none() -> Amounts:
    return defaultdict(lambda: (ZERO, ZERO))


@dataclass(kw_only=True, slots=True)
class _Settlement:
    """The changes of a batch: entries, and (held, spent) amounts by agent run and by budget."""

    agents: Amounts = field(default_factory=_none)
    budgets: Amounts = field(default_factory=_none)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def book(self, call: CallRecord, held: Decimal, spent: Decimal) -> None:
        """Release the hold of a call and add the call's cost, on all accounts of the call."""
        before = self.agents[call.agent_run_id]
        self.agents[call.agent_run_id] = (before[0] + held, before[1] + spent)
        for budget_id in call.budget_ids:
            before = self.budgets[budget_id]
            self.budgets[budget_id] = (before[0] + held, before[1] + spent)
        if call.kind != "void":
            self.entries.append(call.entry())

    def budget_rows(self) -> list[dict[str, Any]]:
        """Return the sums that are booked on each budget."""
        return [
            {"id": id_, "held": str(held), "spent": str(spent)}
            for id_, (held, spent) in self.budgets.items()
        ]


async def _settle(connection: AsyncConnection, calls: Sequence[CallRecord]) -> _Settlement:
    settlement = _Settlement()
    if not calls:
        return settlement
    call_ids = [call.call_id for call in calls]
    taken = await fetch(connection, TAKE_HOLDS, {"call_ids": call_ids})
    held = {row.call_id: row for row in taken}
    known = await _known_entries(connection, [id_ for id_ in call_ids if id_ not in held])
    for given in calls:
        hold, booked = held.get(given.call_id), known.get(given.call_id)
        if given.kind == "correction":
            settlement.book(given, ZERO, given.cost_usd)
            continue
        if booked and not _knows_better(given, booked):
            continue  # the call is settled already, because the batch is being repeated
        # The call is booked on the budgets of its hold, or else on the budgets of its first entry.
        on = hold or booked
        call = replace(given, budget_ids=tuple(on.budget_ids)) if on else given
        settlement.book(call, hold.amount_usd if hold else ZERO, call.cost_usd)
        if hold and call.cost_usd > hold.amount_usd:
            log.error(
                "call_above_its_hold",
                call_id=str(call.call_id),
                model=call.model,
                held_usd=str(hold.amount_usd),
                cost_usd=str(call.cost_usd),
            )
        if booked:
            # The cost is known now, so the guess is taken back.
            settlement.book(_taking_back(call, booked), ZERO, -booked.cost_usd)
    return settlement


@dataclass(kw_only=True, slots=True)
class _Booked:
    """The sum of all entries of a call."""

    kind: Kind
    outcome: str
    budget_ids: Sequence[UUID]
    cost_usd: Decimal = ZERO
    saved_usd: Decimal = ZERO
    usage: Usage = field(default_factory=Usage)


async def _known_entries(
    connection: AsyncConnection, call_ids: Sequence[UUID]
) -> dict[UUID, _Booked]:
    known: dict[UUID, _Booked] = {}
    if not call_ids:
        return known
    for row in await fetch(connection, ENTRIES_OF_CALLS, {"call_ids": list(call_ids)}):
        first = _Booked(kind=row.kind, outcome=row.outcome, budget_ids=row.budget_ids)
        booked = known.setdefault(row.call_id, first)
        if KNOWLEDGE.get(row.kind, 0) > KNOWLEDGE.get(booked.kind, 0):
            booked.kind, booked.outcome = row.kind, row.outcome
        booked.cost_usd += row.cost_usd
        booked.saved_usd += row.saved_usd
        booked.usage += Usage(**{name: getattr(row, name) for name in TOKENS})
    return known


def _knows_better(call: CallRecord, booked: _Booked) -> bool:
    return KNOWLEDGE.get(call.kind, 0) > KNOWLEDGE.get(booked.kind, 0)


def _taking_back(call: CallRecord, guess: _Booked) -> CallRecord:
    return replace(
        call,
        kind="correction",
        corrects=guess.kind,
        outcome=guess.outcome,
        usage=Usage(**{name: -getattr(guess.usage, name) for name in TOKENS}),
        raw_usage={},
        expected_tokens=None,
        bound_tokens=None,
        finish_reason=None,
        cost_usd=-guess.cost_usd,
        saved_usd=-guess.saved_usd,
    )


def _agent_row(record: Record, settlement: _Settlement, is_owner: bool) -> dict[str, Any]:
    held, spent = settlement.agents.get(record.agent_run_id, (ZERO, ZERO))
    row: dict[str, Any] = {
        "id": record.agent_run_id,
        "attempt": record.attempt,
        "held": str(held),
        "spent": str(spent),
        "ended": False,
        "retry": 0,
        "recovery": 0,
    }
    ending = record.ending
    if ending is None or not is_owner:
        return row
    return row | {
        "ended": True,
        "run_id": ending.run_id,
        "status": ending.status,
        "outcome": ending.outcome,
        "output": ending.output,
        "error": ending.error,
        "error_class": ending.error_class,
        "ready_in_s": ending.ready_in_s,
        "waits_for": ending.waits_for,
        "retry": int(ending.retry),
        "recovery": int(ending.recovery),
        "first_token_s": ending.first_token_s,
        "finish_reason": ending.finish_reason,
        "event": ending.event,
        "data": _event_data(ending),
        "seen": ending.seen,
    }


def _event_data(ending: Ending) -> dict[str, Any]:
    data: dict[str, Any] = {"agent": ending.name}
    if ending.items is not None:
        data["items"] = len(ending.items.values)
    if ending.kept:
        data["kept"] = True
    if ending.error is not None:
        data |= {"error": ending.error, "error_class": ending.error_class}
    if ending.ready_in_s:
        data["ready_in_s"] = round(ending.ready_in_s, 3)
    if ending.waits_for is not None:
        data["waits_for"] = ending.waits_for
    if ending.first_token_s is not None:
        data["first_token_s"] = round(ending.first_token_s, 3)
    if ending.finish_reason is not None:
        data["finish_reason"] = ending.finish_reason
    if ending.waited_s:
        data["waited"] = {what: round(spent, 3) for what, spent in ending.waited_s.items()}
    return data

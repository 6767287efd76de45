"""Prices booked calls again after a change of prices, and books the differences as corrections.

The new cost of a call is calculated from the call's stored usage, and from the price that today's
tables give for the time of the entry. The price also depends on the service tier, speed and region
in which the call was served. A correction brings the sum of the call's entries to the new cost, so
a second repricing books nothing. If the usage of a call is not known, the booked worst case of the
call stays.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.costs.pricing import Pricing
from app.domain.agent import merged_config
from app.domain.money import round_to_ledger
from app.domain.usage import Usage
from app.errors import UnknownModel
from app.storage.records import KNOWLEDGE, TOKENS, CallRecord, Record, apply_records
from app.storage.statements import LOCK_AGENT_RUNS

#: Number of runs that are priced in one transaction.
BATCH = 20
# A repricing holds this lock, because a pruned run has no row left that could be locked.
LOCK: TextClause = text("SELECT pg_advisory_xact_lock(7465003)")
RUNS_SINCE: TextClause = text("""
    SELECT DISTINCT run_id FROM cost_entries
    WHERE created_at >= :since AND kind IN ('actual', 'estimated') ORDER BY run_id
""")
ENTRIES: TextClause = text("""
    SELECT e.*, budgets_of_entry(e) AS all_budget_ids FROM cost_entries e
    WHERE run_id = ANY(CAST(:run_ids AS uuid[])) ORDER BY id
""")
PARAMETERS: TextClause = text("""
    SELECT w.id, a.agent ->> 'name' AS agent, a.agent -> 'llm_config' AS llm_config,
        a.agent -> 'fallbacks' AS fallbacks
    FROM workflows w CROSS JOIN LATERAL jsonb_array_elements(w.definition -> 'agents') AS a(agent)
    WHERE w.id = ANY(CAST(:ids AS uuid[]))
""")
_PRICED = ("actual", "estimated")


@dataclass(kw_only=True, slots=True)
class Repriced:
    """The change that a repricing makes for one model in one run.

    Attributes:
        run_id: Id of the run.
        provider: Provider name.
        model: Model name.
        price_version: Source of the new price.
        calls: Number of calls whose cost changes.
        booked_usd: Dollars that were booked for these calls before.
        difference_usd: Dollars that are booked in addition; negative if the calls became cheaper.
    """

    run_id: UUID
    provider: str
    model: str
    price_version: str
    calls: int = 0
    booked_usd: Decimal = Decimal(0)
    difference_usd: Decimal = Decimal(0)


@dataclass(kw_only=True, slots=True)
class Repricing:
    """The outcome of a batch.

    Attributes:
        unpriced: Number of calls that stay as they are, for one of three reasons: the model of the
            call has no price any more, the price has no fee for the containers of programs, or the
            workflow with the parameters of the call was deleted.
    """

    changes: list[Repriced] = field(default_factory=list)
    unpriced: int = 0


async def runs_since(connection: AsyncConnection, since: datetime) -> list[UUID]:
    """Read the ids of the runs with calls that were booked at or after a time."""
    return list(await connection.scalars(RUNS_SINCE, {"since": since}))


async def reprice(
    connection: AsyncConnection,
    run_ids: Sequence[UUID],
    pricing: Pricing,
    *,
    since: datetime | None = None,
    dry_run: bool = False,
) -> Repricing:
    """Price the calls of some runs again, and book the differences.

    The corrections are booked on the budgets of the calls, even if a correction overdraws a budget,
    because a price is a fact and facts are never refused.

    Args:
        connection: Connection inside a transaction; this transaction contains the whole batch.
        run_ids: Ids of the runs.
        pricing: The present prices.
        since: Time before which no call is priced again; None means that all calls are priced
            again.
        dry_run: Whether to return the changes without booking them.
    """
    await connection.execute(LOCK)
    found = await _corrections(connection, run_ids, pricing, since)
    if dry_run or not found.records:
        return found.repricing
    # The usage of a call may arrive late. Therefore, find the corrections again under the lock of
    # the agent runs.
    ids = sorted(record.agent_run_id for record in found.records)
    await connection.execute(LOCK_AGENT_RUNS, {"ids": ids})
    found = await _corrections(connection, run_ids, pricing, since)
    await apply_records(connection, [r for r in found.records if r.agent_run_id in set(ids)])
    return found.repricing


@dataclass(kw_only=True, slots=True)
class _Found:
    repricing: Repricing
    records: list[Record]


async def _corrections(
    connection: AsyncConnection,
    run_ids: Sequence[UUID],
    pricing: Pricing,
    since: datetime | None,
) -> _Found:
    rows = (await connection.execute(ENTRIES, {"run_ids": list(run_ids)})).mappings().all()
    by_call: dict[UUID, list[RowMapping]] = defaultdict(list)
    for row in rows:
        by_call[row["call_id"]].append(row)
    parameters = await _parameters(connection, {row["workflow_id"] for row in rows})
    repricing = Repricing()
    changes: dict[tuple[UUID, str, str, str], Repriced] = {}
    corrections: dict[UUID, list[CallRecord]] = defaultdict(list)
    for entries in by_call.values():
        base = max(entries, key=lambda entry: KNOWLEDGE.get(entry["kind"], 0))
        if base["kind"] not in _PRICED or (since is not None and base["created_at"] < since):
            continue
        try:
            correction = _correction(base, entries, pricing, parameters)
        except UnknownModel:
            repricing.unpriced += 1
            continue
        if correction is not None:
            corrections[correction.agent_run_id].append(correction)
            _note(changes, correction, entries)
    repricing.changes = list(changes.values())
    records = [
        Record(agent_run_id=id_, attempt=calls[-1].attempt, calls=tuple(calls))
        for id_, calls in corrections.items()
    ]
    return _Found(repricing=repricing, records=records)


_Parameters = Mapping[tuple[UUID, str], Sequence[Mapping[str, Any]]]


async def _parameters(connection: AsyncConnection, workflow_ids: Iterable[UUID]) -> _Parameters:
    """Read the parameters of every agent's model, and of every agent's fallbacks.

    A service tier, a speed and a region have prices of their own.
    """
    rows = await connection.execute(PARAMETERS, {"ids": sorted(workflow_ids)})
    return {
        (row.id, row.agent): [
            row.llm_config,
            *(merged_config(row.llm_config, fallback) for fallback in row.fallbacks or ()),
        ]
        for row in rows
    }


def _correction(
    base: RowMapping,
    entries: Sequence[RowMapping],
    pricing: Pricing,
    parameters: _Parameters,
) -> CallRecord | None:
    """Return the correction of a call, or None if the call's entries are right."""
    usage = Usage(**{name: base[name] for name in TOKENS})
    if not usage.total_tokens:
        return None
    options = parameters.get((base["workflow_id"], base["agent"]))
    if options is None:
        raise UnknownModel(f"nothing says what agent {base['agent']!r} asked for")
    asked = next((one for one in options if one.get("model") == base["model"]), options[0])
    quote = pricing.quote_answered(
        base["provider"], base["model"], asked, base["model_answered"], at=base["created_at"]
    )
    # Older versions did not note the way in which a call was served. These versions booked the
    # price of the requested way.
    served = base["served"]
    price = quote.usual if served is None else quote.settle(usage, served).price
    if usage.container_seconds and price.container_hour is None:
        raise UnknownModel(f"the price of model {base['model']!r} has no fee for containers")
    difference = round_to_ledger(price.cost(usage)) - _sum(entries, "cost_usd")
    if not difference or (difference < 0 and not quote.understood):
        # A model that is not understood was booked at its hold, which is not known any more.
        return None
    names = CallRecord.__slots__
    columns = {name: value for name, value in base.items() if name in names and name != "usage"}
    return CallRecord(
        **columns
        | {
            "kind": "correction",
            "finish_reason": None,
            "budget_ids": tuple(base["all_budget_ids"]),
            "price_version": price.version,
            "cost_usd": difference,
            "saved_usd": round_to_ledger(price.saving(usage)) - _sum(entries, "saved_usd"),
        }
    )


def _note(
    changes: dict[tuple[UUID, str, str, str], Repriced],
    correction: CallRecord,
    entries: Sequence[RowMapping],
) -> None:
    version = correction.price_version or ""
    key = (correction.run_id, correction.provider, correction.model, version)
    change = changes.setdefault(
        key,
        Repriced(
            run_id=correction.run_id,
            provider=correction.provider,
            model=correction.model,
            price_version=version,
        ),
    )
    change.calls += 1
    change.booked_usd += _sum(entries, "cost_usd")
    change.difference_usd += correction.cost_usd


def _sum(entries: Sequence[RowMapping], column: str) -> Decimal:
    return sum((entry[column] for entry in entries), Decimal(0))

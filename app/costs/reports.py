"""Reports from the ledger: what was spent on what, and how much of it for nothing."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

#: What a report can be grouped by, and the expression that is one group.
DIMENSIONS = {
    "agent": "agent",
    "module": "module",
    "model": "provider || '/' || model",
    "provider": "provider",
    "workflow": "workflow",
    "run": "run_id::text",
    "day": "to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}
# A call that was unconfirmed first and became known later has several entries, and is one call.
_SUMS = """
        count(DISTINCT call_id) AS calls,
        coalesce(sum(input_tokens + cached_tokens + cache_write_tokens + cache_write_1h_tokens),
            0)::bigint AS input_tokens,
        coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
        coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
        coalesce(sum(cost_usd), 0) AS cost_usd,
        coalesce(sum(cost_usd) FILTER (WHERE outcome <> 'ok'), 0) AS wasted_usd,
        coalesce(sum(cost_usd) FILTER (WHERE kind = 'unconfirmed'), 0) AS unconfirmed_usd
    FROM cost_entries
    WHERE (CAST(:run_id AS uuid) IS NULL OR run_id = :run_id)
        AND (CAST(:since AS timestamptz) IS NULL OR created_at >= :since)
"""


def _grouped(expression: str) -> TextClause:
    return text(f"SELECT {expression} AS key, {_SUMS} GROUP BY 1 ORDER BY cost_usd DESC, 1")


REPORTS = {by: _grouped(expression) for by, expression in DIMENSIONS.items()}
TOTAL: TextClause = text(f"SELECT 'total' AS key, {_SUMS}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CostLine:
    """One line of a report.

    Attributes:
        key: What it is about: the agent, the module, ...
        calls: Calls that reached a provider, failed ones included.
        input_tokens: Tokens of all prompts, cached ones included.
        cached_tokens: The part of them that was read from a provider's cache.
        output_tokens: Generated tokens.
        cost_usd: Dollars.
        wasted_usd: The part of them that went into calls without a result.
        unconfirmed_usd: The part of them that nobody knows for sure: worst cases of lost calls.
    """

    key: str
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: Decimal
    wasted_usd: Decimal
    unconfirmed_usd: Decimal


async def costs_by(
    connection: AsyncConnection,
    by: str,
    *,
    run_id: UUID | None = None,
    since: datetime | None = None,
) -> list[CostLine]:
    """What was spent, by one of ``DIMENSIONS``, dearest first.

    Args:
        connection: Inside a transaction.
        by: A key of ``DIMENSIONS``.
        run_id: Only this run, or None for all.
        since: Only entries from this time on, or None for all.
    """
    rows = await connection.execute(REPORTS[by], {"run_id": run_id, "since": since})
    return [CostLine(**row) for row in rows.mappings()]


async def total_costs(
    connection: AsyncConnection, *, run_id: UUID | None = None, since: datetime | None = None
) -> CostLine:
    """The sum over everything that ``costs_by`` would list."""
    row = (await connection.execute(TOTAL, {"run_id": run_id, "since": since})).mappings().one()
    return CostLine(**row)

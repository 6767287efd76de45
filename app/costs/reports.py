"""Reports from the ledger's views: the costs by subject, and the wasted part of the costs."""

# ruff: noqa: S608 - every part of these statements is a constant of this file

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.run_tree import run_tree_ids

#: The groupings of a report: the columns of a group, and the expression for the group's name.
DIMENSIONS = {
    "agent": ("agent", "agent"),
    "module": ("module", "module"),
    "model": ("provider, model", "provider || '/' || model"),
    "provider": ("provider", "provider"),
    "workflow": ("workflow", "workflow"),
    "outer-workflow": ("outer_workflow", "outer_workflow"),
    "version": ("workflow, version", "workflow || ' v' || coalesce(version::text, '?')"),
    "tenant": ("tenant", "coalesce(tenant, '-')"),
    "kind": ("kind", "kind"),
    "run": ("outer_run_id", "outer_run_id::text"),
    "day": ("day", "to_char(day, 'YYYY-MM-DD')"),
}
#: The groupings by a whole run, which contains the runs of its sub-workflows.
_WHOLE = ("run", "outer-workflow")
# The daily totals lack these columns, so these reports read the single lines. A report about only
# one run also reads the single lines.
_ONLY_IN_LINES = ("agent", *_WHOLE)
_MEASURES = """calls, prompt_tokens, cached_tokens, output_tokens, cost_usd, wasted_usd,
    unconfirmed_usd, saved_usd"""
_SUMS = """
    coalesce(sum(calls), 0)::bigint AS calls,
    coalesce(sum(prompt_tokens), 0)::bigint AS input_tokens,
    coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
    coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
    coalesce(sum(cost_usd), 0) AS cost_usd,
    coalesce(sum(wasted_usd), 0) AS wasted_usd,
    coalesce(sum(unconfirmed_usd), 0) AS unconfirmed_usd,
    coalesce(sum(saved_usd), 0) AS saved_usd"""
_LINES = f"""
    SELECT {{columns}}, {_MEASURES} FROM {{lines}}
    WHERE (CAST(:run_ids AS uuid[]) IS NULL OR run_id = ANY(CAST(:run_ids AS uuid[])))
        AND (CAST(:since AS timestamptz) IS NULL OR created_at >= :since)
"""
# Whole days are read from the daily totals. The part of the first day is read from the single
# lines.
_DAYS = f"""
    SELECT {{columns}}, {_MEASURES} FROM costs_daily
    WHERE CAST(:first_day AS date) IS NULL OR day >= :first_day
    UNION ALL
    SELECT {{columns}}, {_MEASURES} FROM cost_lines
    WHERE created_at >= CAST(:since AS timestamptz) AND created_at < CAST(:until AS timestamptz)
"""


def _grouped(source: str, columns: str, key: str, lines: str = "cost_lines") -> TextClause:
    # The lines are grouped by columns. Only groups get names, because names for all lines would
    # take twice as long.
    lines = source.format(columns=columns, lines=lines)
    return text(
        f"SELECT {key} AS key, {_SUMS} FROM ({lines}) lines GROUP BY {columns}"
        " ORDER BY cost_usd DESC, 1"
    )


FROM_LINES = {
    by: _grouped(_LINES, *dimension, "cost_lines_whole" if by in _WHOLE else "cost_lines")
    for by, dimension in DIMENSIONS.items()
}
#: The report about one run, by the run itself and by each run inside it.
RUNS_INSIDE: TextClause = _grouped(_LINES, "run_id", "run_id::text")
FROM_DAYS = {
    by: _grouped(_DAYS, *dimension)
    for by, dimension in DIMENSIONS.items()
    if by not in _ONLY_IN_LINES
}
_ALL_LINES = _LINES.format(columns="day", lines="cost_lines")
TOTAL_OF_LINES: TextClause = text(f"SELECT 'total' AS key, {_SUMS} FROM ({_ALL_LINES}) lines")
TOTAL_OF_DAYS: TextClause = text(
    f"SELECT 'total' AS key, {_SUMS} FROM ({_DAYS.format(columns='day')}) lines"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CostLine:
    """One line of a report.

    Attributes:
        key: Name of the line's subject, such as an agent or a module.
        calls: Calls that reached a provider, including failed calls.
        input_tokens: Tokens of all prompts, including cached tokens.
        cached_tokens: The part of ``input_tokens`` that was read from a provider's cache.
        output_tokens: Generated tokens.
        cost_usd: Cost in dollars.
        wasted_usd: The part of the cost that was spent on calls without a result.
        unconfirmed_usd: The part of the cost that is not certain, because it consists of the worst
            cases of lost calls.
        saved_usd: Dollars that caches saved; the saved dollars are not part of the cost.
    """

    key: str
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: Decimal
    wasted_usd: Decimal
    unconfirmed_usd: Decimal
    saved_usd: Decimal


async def costs_by(
    connection: AsyncConnection,
    by: str,
    *,
    run_id: UUID | None = None,
    since: datetime | None = None,
) -> list[CostLine]:
    """Read the costs by one of ``DIMENSIONS``, the highest cost first.

    Args:
        connection: Connection inside a transaction.
        by: A key of ``DIMENSIONS``. With ``run``, a line has the cost of a run and of all runs
            inside it; if the report is about only one run, each run inside has a line of its own.
        run_id: Id of the only run in the report, together with the runs of its sub-workflows; None
            for all runs.
        since: Time before which no entry is reported; None means that all entries are reported.
    """
    from_days = by not in _ONLY_IN_LINES and _has_whole_days(run_id, since)
    statement = FROM_DAYS[by] if from_days else FROM_LINES[by]
    if by == "run" and run_id is not None:
        statement = RUNS_INSIDE
    rows = await connection.execute(statement, await _range(connection, run_id, since))
    return [CostLine(**row) for row in rows.mappings()]


async def total_costs(
    connection: AsyncConnection, *, run_id: UUID | None = None, since: datetime | None = None
) -> CostLine:
    """Read the sum of all lines that ``costs_by`` returns for the same arguments."""
    statement = TOTAL_OF_DAYS if _has_whole_days(run_id, since) else TOTAL_OF_LINES
    values = await _range(connection, run_id, since)
    row = (await connection.execute(statement, values)).mappings().one()
    return CostLine(**row)


def _has_whole_days(run_id: UUID | None, since: datetime | None) -> bool:
    """Return whether the report contains whole days, so that it should use the daily totals.

    Otherwise the report reads only the single lines; Postgres can read these on several cores.
    """
    return run_id is None and (since is None or _next_midnight(since) <= datetime.now(UTC))


async def _range(
    connection: AsyncConnection, run_id: UUID | None, since: datetime | None
) -> dict[str, object]:
    """Return the parameters of a report: lines until ``until``, and days from ``first_day`` on.

    A report about a run includes the lines of its sub-workflows.
    """
    run_ids = None if run_id is None else await run_tree_ids(connection, run_id)
    if since is None:
        return {"run_ids": run_ids, "since": None, "until": None, "first_day": None}
    until = _next_midnight(since)
    return {"run_ids": run_ids, "since": since, "until": until, "first_day": until.date()}


def _next_midnight(at: datetime) -> datetime:
    """Return the first midnight (UTC) that is not before a time."""
    at = at.astimezone(UTC)
    midnight = datetime.combine(at.date(), time(), UTC)
    return midnight if midnight == at else midnight + timedelta(days=1)

"""Standing budgets: their state, and their spending over time."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.budgets import Period, StandingScope

#: The spending of a day is shown by the hour, and the spending of a longer period by the day.
STEPS = {Period.DAY: "hour", Period.MONTH: "day", Period.NONE: "day"}

READ_STANDING: TextClause = text("""
    SELECT b.id, s.scope, s.subject, s.period, s.soft, s.thresholds, s.limit_usd,
        coalesce(b.spent_usd, 0) AS spent_usd, coalesce(b.held_usd, 0) AS held_usd,
        coalesce(b.overdrawn_usd, 0) AS overdrawn_usd,
        budget_period_start(s.period, s.start_hour, s.start_day, now()) AS period_start,
        (SELECT count(*) FROM hold_queue q WHERE b.id = ANY(q.budget_ids)) AS waiting
    FROM standing_budgets s LEFT JOIN budgets b
        ON b.scope = s.scope AND b.subject = s.subject AND b.period = s.period
        AND b.period_start IS NOT DISTINCT FROM
            budget_period_start(s.period, s.start_hour, s.start_day, now())
    WHERE CAST(:scope AS text) IS NULL OR (s.scope = :scope AND s.subject = :subject)
    ORDER BY array_position(ARRAY['all', 'tenant', 'module', 'workflow'], s.scope), s.subject,
        array_position(ARRAY['none', 'month', 'day'], s.period)
""")
READ_PAST: TextClause = text("""
    SELECT id, scope, subject, period, soft, thresholds, limit_usd, spent_usd, held_usd,
        overdrawn_usd, period_start, 0 AS waiting
    FROM budgets b
    WHERE scope = :scope AND subject = :subject AND NOT (id = ANY(CAST(:current AS uuid[])))
    ORDER BY period, period_start DESC NULLS FIRST LIMIT :limit
""")
# The condition on created_at only lets the search use the index of that column. An entry counts if
# the budget's id is in the entry's budget_ids, or if the budget has counted the entry when it was
# set.
READ_SPENDING: TextClause = text("""
    SELECT date_trunc(:step, e.created_at, 'UTC') AS at, sum(e.cost_usd) AS spent_usd
    FROM cost_entries e, budgets b
    WHERE b.id = :id AND e.created_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
        AND (b.id = ANY(e.budget_ids) OR b.counted_to IS NOT NULL AND e.id <= b.counted_to
            AND CASE b.scope WHEN 'all' THEN true WHEN 'workflow' THEN e.workflow = b.subject
                WHEN 'module' THEN e.module = b.subject WHEN 'tenant' THEN e.tenant = b.subject END)
    GROUP BY 1 ORDER BY 1
""")
READ_FORECASTS: TextClause = text("""
    SELECT scope, subject, period, period_start, period_end, limit_usd, spent_usd, held_usd,
        left_usd, last_hour_usd, last_day_usd, exhausted_at_by_hour, period_usd_by_hour,
        exhausted_at_by_day, period_usd_by_day
    FROM budget_forecast
    ORDER BY array_position(ARRAY['all', 'tenant', 'module', 'workflow'], scope), subject,
        array_position(ARRAY['none', 'month', 'day'], period)
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetAccount:
    """A budget in one of its periods.

    Attributes:
        id: Id of the budget's account in this period, or None before the first hold of the period.
        scope: Kind of the subject: ``all``, ``tenant``, ``module`` or ``workflow``.
        subject: Name of the workflow, module or tenant.
        period: Length of a period; the budget begins again after each period.
        period_start: Start of this period, or None for a budget without periods.
        soft: Whether the budget only warns.
        thresholds: Percentages of the limit at which an event is reported.
        limit_usd: Limit in dollars.
        spent_usd: Dollars booked on the budget.
        held_usd: Dollars that running calls may cost.
        overdrawn_usd: Dollars by which the budget is beyond its limit.
        waiting: Number of calls that wait for the budget.
    """

    id: UUID | None
    scope: str
    subject: str
    period: Period
    period_start: datetime | None
    soft: bool
    thresholds: tuple[int, ...]
    limit_usd: Decimal
    spent_usd: Decimal
    held_usd: Decimal
    overdrawn_usd: Decimal
    waiting: int

    @property
    def left_usd(self) -> Decimal:
        """Dollars that are neither spent nor held; below zero if the budget is overdrawn."""
        return self.limit_usd - self.spent_usd - self.held_usd

    @property
    def share(self) -> float | None:
        """The part of the limit that is spent; None if the limit is zero."""
        return float(self.spent_usd / self.limit_usd) if self.limit_usd else None


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetForecast:
    """The spending of a budget, projected with two rates: of the last hour and of the last day.

    Attributes:
        scope: Kind of the subject: ``all``, ``tenant``, ``module`` or ``workflow``.
        subject: Name of the workflow, module or tenant.
        period: Length of a period.
        period_start: Start of the current period, or None for a budget without periods.
        period_end: End of the current period, or None for a budget without periods.
        limit_usd: Limit in dollars.
        spent_usd: Dollars booked on the budget.
        held_usd: Dollars that running calls may cost.
        left_usd: Dollars that are neither spent nor held.
        last_hour_usd: Dollars that the subject's calls cost in the last hour.
        last_day_usd: Dollars that the subject's calls cost in the last 24 hours.
        exhausted_at_by_hour: Time at which the limit is spent, with the rate of the last hour; the
            present time if the limit is spent already; None if that is not within ten years.
        period_usd_by_hour: Dollars spent at the end of the period, with the rate of the last hour;
            None for a budget without periods.
        exhausted_at_by_day: As ``exhausted_at_by_hour``, with the rate of the last 24 hours.
        period_usd_by_day: As ``period_usd_by_hour``, with the rate of the last 24 hours.
    """

    scope: str
    subject: str
    period: Period
    period_start: datetime | None
    period_end: datetime | None
    limit_usd: Decimal
    spent_usd: Decimal
    held_usd: Decimal
    left_usd: Decimal
    last_hour_usd: Decimal
    last_day_usd: Decimal
    exhausted_at_by_hour: datetime | None
    period_usd_by_hour: Decimal | None
    exhausted_at_by_day: datetime | None
    period_usd_by_day: Decimal | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BurnDown:
    """One step of a period: the dollars spent in the step, and the dollars left after the step."""

    at: datetime
    spent_usd: Decimal
    left_usd: Decimal


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetHistory:
    """The budgets of one subject: the current periods with their burn-down, and past periods."""

    current: tuple[BudgetAccount, ...]
    burn_down: dict[Period, tuple[BurnDown, ...]]
    past: tuple[BudgetAccount, ...]


async def standing_budgets(
    connection: AsyncConnection, scope: StandingScope | None = None, subject: str = ""
) -> list[BudgetAccount]:
    """Read the standing budgets of one subject or of all subjects, each in its current period."""
    values = {"scope": scope, "subject": subject}
    rows = (await connection.execute(READ_STANDING, values)).mappings()
    return [_account(row) for row in rows]


async def budget_forecasts(connection: AsyncConnection) -> list[BudgetForecast]:
    """Project the spending of all standing budgets."""
    rows = (await connection.execute(READ_FORECASTS)).mappings()
    return [BudgetForecast(**{**row, "period": Period(row["period"])}) for row in rows]


async def budget_history(
    connection: AsyncConnection, scope: StandingScope, subject: str, *, limit: int
) -> BudgetHistory:
    """Read the budgets of one subject, and the burn-down of each budget's current period.

    Args:
        connection: Connection inside a transaction.
        scope: Scope of the budgets.
        subject: Subject of the budgets.
        limit: Largest number of past periods to read; the newest periods are read first.
    """
    current = await standing_budgets(connection, scope, subject)
    ids = [account.id for account in current if account.id is not None]
    values = {"scope": scope, "subject": subject, "current": ids, "limit": limit}
    past = (await connection.execute(READ_PAST, values)).mappings()
    return BudgetHistory(
        current=tuple(current),
        burn_down={account.period: await _burn_down(connection, account) for account in current},
        past=tuple(_account(row) for row in past),
    )


async def _burn_down(connection: AsyncConnection, account: BudgetAccount) -> tuple[BurnDown, ...]:
    values = {"step": STEPS[account.period], "since": account.period_start, "id": account.id}
    left_usd, steps = account.limit_usd, []
    for row in await connection.execute(READ_SPENDING, values):
        left_usd -= row.spent_usd
        steps.append(BurnDown(at=row.at, spent_usd=row.spent_usd, left_usd=left_usd))
    return tuple(steps)


def _account(row: RowMapping) -> BudgetAccount:
    known = {"period": Period(row["period"]), "thresholds": tuple(row["thresholds"])}
    return BudgetAccount(**{**row, **known})

"""Sets and removes standing budgets; a change of a budget also changes the current account."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.budgets import BudgetTerms, Period, StandingScope
from app.storage.hold_queue import next_in_queue, read_queue

SET_TERMS: TextClause = text("""
    INSERT INTO standing_budgets AS s (scope, subject, period, limit_usd, soft, thresholds,
        start_hour, start_day)
    VALUES (:scope, :subject, :period, :limit_usd, :soft, CAST(:thresholds AS int[]),
        :start_hour, :start_day)
    ON CONFLICT (scope, subject, period) DO UPDATE SET limit_usd = excluded.limit_usd,
        soft = excluded.soft, thresholds = excluded.thresholds, start_hour = excluded.start_hour,
        start_day = excluded.start_day, changed_at = now()
""")
# A limit below the sum of spent and held dollars is not refused. The excess is noted as overdrawn,
# and while the excess lasts, no hold fits.
CHANGE_ACCOUNT: TextClause = text("""
    UPDATE budgets b SET limit_usd = s.limit_usd, soft = s.soft, thresholds = s.thresholds,
        overdrawn_usd = CASE WHEN s.soft THEN 0
            ELSE greatest(0, b.spent_usd + b.held_usd - s.limit_usd) END
    FROM standing_budgets s
    WHERE s.scope = :scope AND s.subject = :subject AND s.period = :period
        AND b.scope = s.scope AND b.subject = s.subject AND b.period = s.period
        AND b.period_start IS NOT DISTINCT FROM
            budget_period_start(s.period, s.start_hour, s.start_day, now())
    RETURNING b.id
""")
REMOVE_TERMS: TextClause = text("""
    DELETE FROM standing_budgets WHERE scope = :scope AND subject = :subject
        AND (CAST(:period AS text) IS NULL OR period = :period)
    RETURNING period
""")
AWAITED_ACCOUNTS: TextClause = text("""
    SELECT id FROM budgets
    WHERE scope = :scope AND subject = :subject AND period = ANY(:periods) AND awaited
""")


async def set_budget(connection: AsyncConnection, terms: BudgetTerms) -> tuple[UUID, ...]:
    """Set or change a standing budget; the new terms apply from the next hold on.

    A new limit applies to the whole current period, so the money that was already spent in this
    period still counts. The accounts of earlier periods keep their limits.

    Returns:
        The agent runs that wait for the budget and should try again. The caller wakes these agent
        runs after the commit.
    """
    where = {"scope": terms.scope, "subject": terms.subject, "period": terms.period}
    values = {
        "limit_usd": terms.limit_usd,
        "soft": terms.soft,
        "thresholds": list(terms.thresholds),
        "start_hour": terms.start_hour,
        "start_day": terms.start_day,
    }
    await connection.execute(SET_TERMS, where | values)
    # The account is changed after the terms, because setting the terms waits for a transaction that
    # is making the account.
    changed = list(await connection.scalars(CHANGE_ACCOUNT, where))
    return await next_in_queue(connection, changed) if changed else ()


async def remove_budget(
    connection: AsyncConnection, scope: StandingScope, subject: str, period: Period | None
) -> tuple[Sequence[Period], tuple[UUID, ...]]:
    """Remove standing budgets; the accounts of the budgets stay, with the money that was spent.

    Args:
        connection: Inside a transaction.
        scope: Scope of the budgets.
        subject: Subject of the budgets.
        period: Period of the budget to remove; None removes the budgets of all periods.

    Returns:
        The periods whose budgets were removed, and the agent runs that waited for these budgets.
        The caller wakes the agent runs after the commit.
    """
    where = {"scope": scope, "subject": subject}
    removed = list(await connection.scalars(REMOVE_TERMS, where | {"period": period}))
    accounts = list(await connection.scalars(AWAITED_ACCOUNTS, where | {"periods": removed}))
    waiting = (await read_queue(connection, accounts)).waiting if accounts else ()
    return [Period(name) for name in removed], tuple(w.agent_run_id for w in waiting)

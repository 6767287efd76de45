"""Sets and removes standing budgets; a change of a budget also changes the current account."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.budgets import BudgetTerms, Period, StandingScope
from app.errors import ServiceUnavailable
from app.storage.hold_queue import next_in_queue, read_queue

#: Seconds that the setting of a budget waits for transactions that lock agent runs.
GATE_WAIT_S = 5
LOCK_NOT_AVAILABLE = "55P03"

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
    RETURNING b.id, b.period_start
""")
# While this transaction lasts, no other transaction places holds or writes entries of the ledger,
# because these transactions first lock agent runs. Without the shorter timeout, they would wait
# behind this lock for as long as this lock waits for a long transaction.
LIMIT_WAIT: TextClause = text(f"SET LOCAL lock_timeout = '{GATE_WAIT_S}s'")
CLOSE_GATE: TextClause = text("LOCK TABLE agent_runs IN EXCLUSIVE MODE")
MAKE_ACCOUNT: TextClause = text("""
    INSERT INTO budgets (id, scope, subject, period, period_start, limit_usd, soft, thresholds)
    SELECT gen_random_uuid(), scope, subject, period,
        budget_period_start(period, start_hour, start_day, now()), limit_usd, soft, thresholds
    FROM standing_budgets
    WHERE scope = :scope AND subject = :subject AND period = :period
    ON CONFLICT (scope, subject, period, period_start) DO NOTHING
""")
# The holds in flight that the budget does not count yet. Their calls are booked on the budgets of
# the holds.
JOIN_HOLDS: TextClause = text("""
    UPDATE holds h SET budget_ids = h.budget_ids || b.id
    FROM agent_runs a JOIN runs r ON r.id = a.run_id JOIN workflows w ON w.id = r.workflow_id
        CROSS JOIN budgets b
    WHERE a.id = h.agent_run_id AND b.id = :id AND NOT b.id = ANY(h.budget_ids)
        AND CASE b.scope WHEN 'all' THEN true WHEN 'workflow' THEN w.name = b.subject
            WHEN 'module' THEN a.module = b.subject WHEN 'tenant' THEN r.tenant = b.subject END
""")
# A correction of a call that an earlier period has counted belongs to that period.
SPENT_SINCE: TextClause = text("""
    SELECT coalesce(sum(e.cost_usd), 0) FROM cost_entries e
    WHERE e.created_at >= :since AND CASE CAST(:scope AS text) WHEN 'all' THEN true
            WHEN 'workflow' THEN e.workflow = :subject WHEN 'module' THEN e.module = :subject
            WHEN 'tenant' THEN e.tenant = :subject END
        AND NOT (e.kind = 'correction' AND EXISTS (
            SELECT FROM cost_entries first WHERE first.call_id = e.call_id
                AND first.kind <> 'correction' AND first.created_at < :since))
""")
SPENT_EVER: TextClause = text("""
    SELECT coalesce(sum(t.cost_usd), 0) FROM cost_totals t
    WHERE CASE CAST(:scope AS text) WHEN 'all' THEN true
        WHEN 'workflow' THEN t.workflow = :subject WHEN 'module' THEN t.module = :subject
        WHEN 'tenant' THEN t.tenant = :subject END
""")
COUNT_FROM_START: TextClause = text("""
    UPDATE budgets b SET spent_usd = :spent_usd, held_usd = held.held_usd,
        counted_to = coalesce((SELECT max(id) FROM cost_entries), 0),
        overdrawn_usd = CASE WHEN b.soft THEN 0
            ELSE greatest(0, :spent_usd + held.held_usd - b.limit_usd) END
    FROM (
        SELECT coalesce(sum(amount_usd), 0) AS held_usd FROM holds
        WHERE CAST(:id AS uuid) = ANY(budget_ids)
    ) held
    WHERE b.id = :id
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


async def set_budget(
    connection: AsyncConnection, terms: BudgetTerms, *, from_start: bool = False
) -> tuple[UUID, ...]:
    """Set or change a standing budget; the new terms apply from the next hold on.

    A new limit applies to the whole current period, so the money that the budget has counted in
    this period still counts. The accounts of earlier periods keep their limits.

    Args:
        connection: Inside a transaction.
        terms: The terms.
        from_start: Whether the budget counts all calls from the start of its current period, or
            from the first call if the budget has no periods. The spent money is then the sum of
            the ledger, and the holds of the calls in flight are counted, too. For the time of this
            transaction, no agent can start, hold money or end.

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
    if from_start:
        await _close_gate(connection)
    await connection.execute(SET_TERMS, where | values)
    # The account is changed after the terms, because setting the terms waits for a transaction that
    # is making the account.
    if from_start:
        await connection.execute(MAKE_ACCOUNT, where)
    changed = (await connection.execute(CHANGE_ACCOUNT, where)).all()
    if from_start:
        await _count_from_start(connection, changed[0], terms)
    return await next_in_queue(connection, [row.id for row in changed]) if changed else ()


async def spent_since(
    connection: AsyncConnection, scope: str, subject: str, since: datetime | None
) -> Decimal:
    """Read the sum of the ledger's entries that a budget of this scope and subject counts.

    Args:
        connection: Connection inside a transaction.
        scope: Scope of the budget.
        subject: Subject of the budget.
        since: Start of the budget's period; None reads the sum of all entries.
    """
    given = {"scope": scope, "subject": subject}
    if since is None:
        return Decimal(await connection.scalar(SPENT_EVER, given) or 0)
    return Decimal(await connection.scalar(SPENT_SINCE, given | {"since": since}) or 0)


async def _close_gate(connection: AsyncConnection) -> None:
    await connection.execute(LIMIT_WAIT)
    try:
        await connection.execute(CLOSE_GATE)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise ServiceUnavailable(
            f"other transactions did not end within {GATE_WAIT_S} s, so the budget is not changed: "
            "try again, and look for a long prune or a forgotten session of psql"
        ) from error


async def _count_from_start(
    connection: AsyncConnection, account: Row[Any], terms: BudgetTerms
) -> None:
    await connection.execute(JOIN_HOLDS, {"id": account.id})
    spent_usd = await spent_since(connection, terms.scope, terms.subject, account.period_start)
    await connection.execute(COUNT_FROM_START, {"id": account.id, "spent_usd": spent_usd})


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

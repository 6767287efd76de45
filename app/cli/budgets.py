"""`agentchord budgets`: the standing budgets, their use, and changes to them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Group

from app.cli.cluster import ask, transaction
from app.cli.output import answer, console, moment, print_json
from app.cli.parameters import AsJson, Wide
from app.cli.tables import Table, fixed, note, number, table, words
from app.costs.budgets import (
    BudgetAccount,
    BudgetForecast,
    BudgetHistory,
    budget_forecasts,
    budget_history,
    standing_budgets,
)
from app.domain.budgets import BudgetTerms, Period, StandingScope, budget_label, check_subject
from app.domain.counts import counted
from app.domain.money import aligned_dollars, dollars
from app.errors import UnknownBudget
from app.storage.standing import remove_budget, set_budget, spent_since

Scope = Annotated[
    StandingScope, typer.Argument(metavar="SCOPE", help="workflow, module, tenant or all.")
]
Subject = Annotated[
    str,
    typer.Argument(
        metavar="[SUBJECT]", help="Name of the workflow, module or tenant; no name for scope all."
    ),
]
AMOUNTS = (
    number("limit", drop=1, align="point"),
    number("spent", drop=2),
    number("held", drop=4),
    number("left"),
    number("share", drop=3),
    note("remark"),
)
COLUMNS = (fixed("scope"), words("subject", 10), fixed("period", drop=5), *AMOUNTS)
PAST_COLUMNS = (fixed("period"), fixed("since (UTC)"), *AMOUNTS)
BURN_DOWN = (fixed("from (UTC)"), number("spent"), number("left after"))
FORECAST_COLUMNS = (
    fixed("scope"),
    words("subject", 10),
    fixed("period", drop=5),
    number("left"),
    number("last hour", drop=3),
    fixed("spent up (UTC)"),
    number("at period's end", drop=4),
    number("last 24 h", drop=6),
    fixed("at that rate spent up (UTC)", drop=7),
    number("at that rate at period's end", drop=8),
)
PER_CENT = 100

group = typer.Typer(rich_markup_mode=None, add_completion=False)


@group.callback(invoke_without_command=True)
def budgets(
    context: typer.Context,
    forecast: Annotated[
        bool,
        typer.Option(
            "--forecast", help="Project the spending with the rate of the last hour and day."
        ),
    ] = False,
    wide: Wide = False,
    json: AsJson = False,
) -> None:
    """List the standing budgets, or change them."""
    if context.invoked_subcommand is not None:
        return
    if forecast:
        _show_forecasts(json=json, wide=wide)
        return

    found = transaction(standing_budgets)
    answer([_facts(each) for each in found], budgets_table(found), json=json, wide=wide)


def budgets_table(found: Sequence[BudgetAccount]) -> Table:
    """Return budgets in their current periods as a table."""
    rows = [(account.scope, account.subject, account.period, *_cells(account)) for account in found]
    return table(COLUMNS, rows)


@group.command("set")
def set_(  # noqa: PLR0913  one parameter per term
    scope: Scope,
    subject: Subject = "",
    *,
    limit: Annotated[str, typer.Option(metavar="USD", help="Dollars per period.")],
    period: Annotated[
        Period, typer.Option(help="Period after which the spending starts again from zero.")
    ] = Period.NONE,
    soft: Annotated[bool, typer.Option("--soft", help="Only warn; refuse no call.")] = False,
    thresholds: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Percentages of the limit; each is reported when the spending reaches it.",
        ),
    ] = "50,80,100",
    start_hour: Annotated[int, typer.Option(help="Hour at which days begin, in UTC.")] = 0,
    start_day: Annotated[int, typer.Option(help="Day on which months begin, 1 to 28.")] = 1,
    from_start: Annotated[
        bool,
        typer.Option(
            "--from-start",
            help="Also count what was spent since the start of the current period, or ever.",
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Set a budget, or change it.

    The budget applies from the next call on. A new budget counts the calls from now on, or with
    --from-start all calls of its current period. A budget that is changed keeps its spending so
    far.
    """
    terms = BudgetTerms(
        scope=scope,
        subject=subject,
        period=period,
        limit_usd=_amount(limit),
        soft=soft,
        thresholds=_percentages(thresholds),
        start_hour=start_hour,
        start_day=start_day,
    )
    _wake(transaction(partial(set_budget, terms=terms, from_start=from_start)))
    found = transaction(partial(standing_budgets, scope=scope, subject=subject))
    (account,) = [each for each in found if each.period is period]
    ledger_usd = transaction(
        partial(spent_since, scope=scope, subject=subject, since=account.period_start)
    )
    uncounted_usd = max(ledger_usd - account.spent_usd, Decimal(0))
    lines = (
        f"{terms.label}: {dollars(account.limit_usd)}, {dollars(account.left_usd)} left",
        _counted_from(account, uncounted_usd, from_start=from_start),
    )
    answer(_facts(account) | {"uncounted_usd": uncounted_usd}, "\n".join(lines), json=json)


def _counted_from(account: BudgetAccount, uncounted_usd: Decimal, *, from_start: bool) -> str:
    """Say which calls a budget counts that was just set."""
    start = f"since {moment(account.period_start)} UTC" if account.period_start else "ever"
    if from_start:
        return f"It counts all calls {start}, {dollars(account.spent_usd)} so far."
    if account.spent_usd:
        counted = f"It keeps the {dollars(account.spent_usd)} that it has counted so far"
    else:
        counted = "It counts the calls from now on"
    if not uncounted_usd:
        return f"{counted}; nothing else was spent {start}."
    return (
        f"{counted}; the other {dollars(uncounted_usd)} that were spent {start} are not counted "
        "(--from-start counts them)."
    )


@group.command()
def show(
    scope: Scope,
    subject: Subject = "",
    limit: Annotated[
        int, typer.Option(min=0, max=10_000, help="Number of past periods to show, newest first.")
    ] = 12,
    wide: Wide = False,
    json: AsJson = False,
) -> None:
    """Show the use of one subject's budgets, and their past periods."""
    check_subject(scope, subject)
    history = transaction(partial(budget_history, scope=scope, subject=subject, limit=limit))
    if not history.current and not history.past:
        raise UnknownBudget(_none_such(scope, subject, None))
    if json:
        print_json(
            {
                "current": [_facts(account) for account in history.current],
                "burn_down": history.burn_down,
                "past": [_facts(account) for account in history.past],
            }
        )
    else:
        console(wide=wide).print(history_page(history))


@group.command()
def remove(
    scope: Scope,
    subject: Subject = "",
    period: Annotated[
        Period | None,
        typer.Option(help="Remove only the budget of this period; by default, remove all budgets."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Remove the budgets of one subject.

    Calls that wait for these budgets go on. The spending of the budgets stays on record.
    """
    check_subject(scope, subject)
    removed, waiting = transaction(
        partial(remove_budget, scope=scope, subject=subject, period=period)
    )
    _wake(waiting)
    if not removed:
        raise UnknownBudget(_none_such(scope, subject, period))
    answer(
        {"scope": scope, "subject": subject, "removed": removed},
        "\n".join(f"removed: {budget_label(scope, subject, each)}" for each in removed),
        json=json,
    )


def _show_forecasts(*, json: bool, wide: bool) -> None:
    found = transaction(budget_forecasts)
    answer(found, forecast_table(found), json=json, wide=wide)


def forecast_table(found: Sequence[BudgetForecast]) -> Table:
    """Return what is spent if budgets are used as in the last hour, and as in the last day."""
    rows = [
        (
            *(each.scope, each.subject, each.period, aligned_dollars(each.left_usd)),
            *_forecast(each.last_hour_usd, each.exhausted_at_by_hour, each.period_usd_by_hour),
            *_forecast(each.last_day_usd, each.exhausted_at_by_day, each.period_usd_by_day),
        )
        for each in found
    ]
    return table(FORECAST_COLUMNS, rows)


def _forecast(
    rate_usd: Decimal, exhausted_at: datetime | None, period_usd: Decimal | None
) -> tuple[str, str, str]:
    at_end = "" if period_usd is None else aligned_dollars(period_usd)
    return aligned_dollars(rate_usd), moment(exhausted_at), at_end


def _wake(agent_run_ids: tuple[UUID, ...]) -> None:
    ask(lambda client: client.control.wake(agent_run_ids))


def _amount(text: str) -> Decimal:
    with suppress(InvalidOperation):
        amount = Decimal(text.removeprefix("$"))
        if amount.is_finite():
            return amount
    raise typer.BadParameter(f"--limit {text!r} is not an amount: give dollars, such as 50")


def _percentages(text: str) -> tuple[int, ...]:
    try:
        return tuple(
            int(part.strip().removesuffix("%")) for part in text.split(",") if part.strip()
        )
    except ValueError as error:
        raise typer.BadParameter(
            f"--thresholds {text!r} are not percentages: give whole numbers, such as 50,80,100"
        ) from error


def _none_such(scope: str, subject: str, period: Period | None) -> str:
    return (
        f"there is no {budget_label(scope, subject, period or Period.NONE)}: "
        "see `agentchord budgets`"
    )


def _facts(account: BudgetAccount) -> dict[str, Any]:
    return asdict(account) | {"left_usd": account.left_usd, "share": account.share}


def _cells(account: BudgetAccount) -> tuple[str, ...]:
    return (
        dollars(account.limit_usd),
        aligned_dollars(account.spent_usd),
        aligned_dollars(account.held_usd),
        aligned_dollars(account.left_usd),
        "" if account.share is None else f"{PER_CENT * account.share:.1f}%",
        _remark(account),
    )


def _remark(account: BudgetAccount) -> str:
    """Return what is special about a budget: that it only warns, and the calls that wait."""
    waiting = counted(account.waiting, "call")
    waits = f"{waiting} {'waits' if account.waiting == 1 else 'wait'}" if account.waiting else ""
    return ", ".join(filter(None, ("soft" if account.soft else "", waits)))


def history_page(history: BudgetHistory) -> Group:
    """Return the tables of a subject's budgets: the current periods, their use, the past."""
    parts = []
    for account in history.current:
        label = budget_label(account.scope, account.subject, account.period)
        since = f" since {moment(account.period_start)} UTC" if account.period_start else ""
        parts.append(table(AMOUNTS, [_cells(account)], title=f"{label}{since}"))
        steps = [
            (moment(step.at), aligned_dollars(step.spent_usd), aligned_dollars(step.left_usd))
            for step in history.burn_down[account.period]
        ]
        if steps:
            parts.append(table(BURN_DOWN, steps))
    if history.past:
        rows = [(a.period, moment(a.period_start), *_cells(a)) for a in history.past]
        parts.append(table(PAST_COLUMNS, rows, title="past periods"))
    spaced = [each for part in parts for each in ("", part)]
    return Group(*spaced[1:])

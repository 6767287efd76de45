"""Budgets that count from the start of their period: the counter is the sum of the ledger."""

import asyncio
import random
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from app.costs.budgets import budget_forecasts, budget_history
from app.domain.budgets import Period, StandingScope
from app.domain.money import HoldOutcome
from app.errors import ServiceUnavailable
from app.storage import standing
from app.storage.claims import ClaimedAgent
from app.storage.records import CallRecord, Record
from tests.support.database_cluster import Cluster, agent, call, hold_request

pytestmark = pytest.mark.anyio

ALL = ("all", "")
SUBJECTS = (ALL, ("module", "Finance"), ("tenant", "acme"), ("workflow", "test"))
NAMES = {"module": "Finance", "tenant": "acme", "workflow": "test"}
AGENTS = 24
CALLS = 4


def made(who: ClaimedAgent, hold: Any, cost: str, **fields: Any) -> CallRecord:
    return call(who, hold, cost, **NAMES | fields)


async def start(cluster: Cluster, count: int) -> list[ClaimedAgent]:
    agents = [agent(f"a{n}", module="Finance", cost_limit=1000.0) for n in range(count)]
    run_id = await cluster.start(
        *agents, tenant="acme", max_parallel_agents=count, cost_budget=100_000.0
    )
    return list((await cluster.claim(run_id)).agents)


async def spend(cluster: Cluster, who: ClaimedAgent, cost: str, **fields: Any) -> Any:
    """Make one call of an agent, which goes on."""
    hold = hold_request(who, "1", *SUBJECTS)
    await cluster.hold(hold)
    await settle(cluster, who, hold, cost, **fields)
    return hold


async def settle(cluster: Cluster, who: ClaimedAgent, hold: Any, cost: str, **fields: Any) -> None:
    calls = (made(who, hold, cost, **fields),)
    await cluster.record(Record(agent_run_id=who.id, attempt=who.attempt, calls=calls))


async def account(cluster: Cluster, scope: str) -> Any:
    (row,) = await cluster.rows("SELECT * FROM budgets WHERE scope = :scope", scope=scope)
    return row


async def ledger(cluster: Cluster) -> Decimal:
    ((total,),) = await cluster.rows("SELECT sum(cost_usd) FROM cost_entries")
    return Decimal(total)


@pytest.mark.parametrize("period", [Period.NONE, Period.DAY])
@pytest.mark.parametrize("seed_number", [1, 2, 3])
async def test_the_counter_is_the_sum_of_the_ledger_although_calls_are_recorded_meanwhile(
    cluster: Cluster, seed_number: int, period: Period
) -> None:
    chance = random.Random(seed_number)
    agents = await start(cluster, AGENTS)

    async def work(who: ClaimedAgent) -> None:
        for _ in range(CALLS):
            hold = hold_request(who, "1", *SUBJECTS)
            (answer,) = await cluster.hold(hold)
            assert answer.outcome is HoldOutcome.PLACED
            await asyncio.sleep(0)
            await settle(cluster, who, hold, f"0.{chance.randrange(1, 100):02}")

    async def set_budgets() -> None:
        for scope, subject in chance.sample(SUBJECTS, len(SUBJECTS)):
            await cluster.set_budget(scope, subject, "10000", period=period, from_start=True)

    await asyncio.gather(*(work(who) for who in agents[: AGENTS // 2]))
    await asyncio.gather(set_budgets(), *(work(who) for who in agents))

    total = await ledger(cluster)
    for scope, _ in SUBJECTS:
        found = await account(cluster, scope)
        assert (found.spent_usd, found.held_usd) == (total, 0), scope


async def test_the_holds_of_calls_in_flight_are_counted(cluster: Cluster) -> None:
    first, second = await start(cluster, 2)
    await spend(cluster, first, "0.25")
    hold = hold_request(second, "0.5", *SUBJECTS)
    await cluster.hold(hold)

    await cluster.set_budget(*ALL, "0.8", from_start=True)
    before = await account(cluster, "all")
    (waits,) = await cluster.hold(hold_request(first, "0.1", *SUBJECTS))
    await settle(cluster, second, hold, "0.25")
    after = await account(cluster, "all")

    assert (before.spent_usd, before.held_usd) == (Decimal("0.25"), Decimal("0.5"))
    assert waits.outcome is HoldOutcome.WAIT
    assert (after.spent_usd, after.held_usd) == (Decimal("0.5"), 0)


async def test_without_the_option_only_later_calls_count(cluster: Cluster) -> None:
    (who,) = await start(cluster, 1)
    await spend(cluster, who, "0.25")
    await cluster.set_budget(*ALL, "5")

    await spend(cluster, who, "0.5")

    assert (await account(cluster, "all")).spent_usd == Decimal("0.5")


async def test_a_budget_may_count_from_the_start_later_and_again(cluster: Cluster) -> None:
    (who,) = await start(cluster, 1)
    await spend(cluster, who, "0.25")
    await cluster.set_budget(*ALL, "5", period=Period.MONTH)
    await spend(cluster, who, "0.5")

    for _ in range(2):
        await cluster.set_budget(*ALL, "5", period=Period.MONTH, from_start=True)
        assert (await account(cluster, "all")).spent_usd == Decimal("0.75")


async def test_a_budget_that_is_spent_already_is_frozen(cluster: Cluster) -> None:
    (who,) = await start(cluster, 1)
    await spend(cluster, who, "0.75")

    await cluster.set_budget(*ALL, "0.5", from_start=True)
    (refused,) = await cluster.hold(hold_request(who, "0.1", *SUBJECTS))

    found = await account(cluster, "all")
    assert (found.spent_usd, found.overdrawn_usd) == (Decimal("0.75"), Decimal("0.25"))
    assert refused.outcome is HoldOutcome.EXCEEDED


async def test_what_becomes_known_late_about_a_counted_call_changes_the_counter(
    cluster: Cluster,
) -> None:
    (who,) = await start(cluster, 1)
    hold = await spend(cluster, who, "1", kind="unconfirmed")
    await cluster.set_budget(*ALL, "5", from_start=True)

    await settle(cluster, who, hold, "0.25")

    assert (await account(cluster, "all")).spent_usd == await ledger(cluster) == Decimal("0.25")


async def test_a_correction_of_a_call_of_an_earlier_period_does_not_count(
    cluster: Cluster,
) -> None:
    (who,) = await start(cluster, 1)
    hold = await spend(cluster, who, "1", kind="unconfirmed")
    async with cluster.engine.begin() as connection:  # the ledger refuses changes, even in tests
        await connection.execute(text("ALTER TABLE cost_entries DISABLE TRIGGER USER"))
        await connection.execute(
            text("UPDATE cost_entries SET created_at = created_at - interval '1 day'")
        )
        await connection.execute(text("ALTER TABLE cost_entries ENABLE TRIGGER USER"))
    await settle(cluster, who, hold, "0.25")

    await cluster.set_budget(*ALL, "5", period=Period.DAY, from_start=True)

    assert (await account(cluster, "all")).spent_usd == Decimal("0.25")


async def test_other_subjects_do_not_count(cluster: Cluster) -> None:
    (who,) = await start(cluster, 1)
    await spend(cluster, who, "0.25")
    names = (("module", "HR"), ("tenant", "blue"), ("workflow", "other"))

    for scope, subject in names:
        await cluster.set_budget(scope, subject, "5", from_start=True)

    assert [(await account(cluster, scope)).spent_usd for scope, _ in names] == [0, 0, 0]


async def test_the_burn_down_has_what_was_spent_before(cluster: Cluster) -> None:
    (who,) = await start(cluster, 1)
    await spend(cluster, who, "0.25")
    await cluster.set_budget(*ALL, "5", period=Period.DAY, from_start=True)
    await spend(cluster, who, "0.5")

    history = await cluster.commit(lambda c: budget_history(c, StandingScope.ALL, "", limit=1))
    view = await cluster.rows("SELECT * FROM budget_burndown WHERE scope = 'all' ORDER BY hour")

    assert history.burn_down[Period.DAY][-1].left_usd == Decimal("4.25")
    assert (view[-1].spent_usd, view[-1].left_usd) == (Decimal("0.75"), Decimal("4.25"))


async def test_a_long_transaction_delays_neither_the_budget_nor_the_agents_for_long(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (who,) = await start(cluster, 1)
    monkeypatch.setattr(standing, "LIMIT_WAIT", text("SET LOCAL lock_timeout = '100ms'"))
    async with cluster.engine.begin() as connection:
        await connection.execute(text("SELECT FROM agent_runs FOR UPDATE"))

        with pytest.raises(ServiceUnavailable, match="the budget is not changed: try again"):
            await cluster.set_budget(*ALL, "5", from_start=True)

    assert await cluster.rows("SELECT FROM standing_budgets") == []
    await spend(cluster, who, "0.25")


async def test_a_forecast_says_when_a_budget_is_spent(cluster: Cluster) -> None:
    (who,) = await start(cluster, 1)
    for scope, subject in SUBJECTS:
        await cluster.set_budget(scope, subject, "100", period=Period.DAY)
    await cluster.set_budget("module", "HR", "1")
    await spend(cluster, who, "0.75")
    await cluster.set_budget(*ALL, "0.25", from_start=True)
    # The spending of an earlier hour counts only in the rate of the day.
    async with cluster.engine.begin() as connection:
        await connection.execute(
            text("""
                INSERT INTO cost_entries (call_id, run_id, agent_run_id, attempt, tenant,
                    workflow_id, workflow, agent, module, provider, model, kind, outcome,
                    budget_ids, cost_usd, created_at)
                SELECT gen_random_uuid(), run_id, agent_run_id, attempt, tenant, workflow_id,
                    workflow, agent, module, provider, model, kind, outcome, '{}', 2.25,
                    now() - interval '2 hours'
                FROM cost_entries
            """)
        )

    found = await cluster.commit(budget_forecasts)
    ((now,),) = await cluster.rows("SELECT now()")

    ever, *days, idle = sorted(
        found, key=lambda each: (each.subject == "HR", each.period != "none")
    )
    assert (ever.period_end, ever.period_usd_by_hour, ever.left_usd) == (
        None,
        None,
        Decimal("-0.5"),
    )
    assert abs((ever.exhausted_at_by_hour - now).total_seconds()) < 60
    assert idle.last_day_usd == 0
    assert idle.exhausted_at_by_hour is idle.exhausted_at_by_day is None
    assert len(days) == len(SUBJECTS)
    for each in days:
        assert (each.last_hour_usd, each.last_day_usd) == (Decimal("0.75"), Decimal(3))
        assert each.spent_usd == Decimal("0.75")
        check_forecast(each, now)


def check_forecast(each: Any, now: Any) -> None:
    """Compute the rest of a budget and the rest of its period in another way."""
    rest_h = (each.period_end - now).total_seconds() / 3600
    for name, rate in (("by_hour", 0.75), ("by_day", 3 / 24)):
        until = (getattr(each, f"exhausted_at_{name}") - now).total_seconds() / 3600
        assert until == pytest.approx((100 - 0.75) / rate, abs=0.1)
        at_end = float(getattr(each, f"period_usd_{name}"))
        assert at_end == pytest.approx(0.75 + rate * rest_h, abs=0.1)

"""Corrections after a change of prices: once, on the same budgets, and never refused."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from app.costs.pricing import Pricing
from app.costs.reprice import Repricing, reprice, runs_since
from app.domain.agent import Agent
from app.domain.policies import CostConfig
from app.domain.usage import Usage
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request
from tests.support.ledgers import DIFFERENT_TOTALS

pytestmark = pytest.mark.anyio

USAGE = Usage(input_tokens=1000, cached_tokens=2000, output_tokens=500)
# By gpt-4o-mini's published price: 1000 * 0.15 + 2000 * 0.075 + 500 * 0.60 dollars per million.
PUBLISHED = Decimal("0.0006")
#: Ten times that price; the cache saves ten times as much.
DEARER = {"input": 1.5, "cached_input": 0.75, "output": 6.0}
TOMORROW = datetime.now(UTC) + timedelta(days=1)


def pricing(**prices: float | str) -> Pricing:
    return Pricing(CostConfig(model_prices={"gpt-4o-mini": [prices]} if prices else {}))


@dataclass
class Booked:
    """A run with one call at the published price."""

    cluster: Cluster
    run_id: UUID

    async def reprice(self, prices: Pricing, *, dry_run: bool = False) -> Repricing:
        return await self.cluster.commit(
            lambda c: reprice(c, [self.run_id], prices, dry_run=dry_run)
        )

    async def corrections(self) -> list[Decimal]:
        rows = await self.cluster.rows(
            "SELECT cost_usd FROM cost_entries WHERE kind = 'correction' ORDER BY id"
        )
        return [row.cost_usd for row in rows]

    async def accounts(self) -> list[tuple[Decimal, Decimal]]:
        """(spent, overdrawn) of the run's budget and its agent, which must equal the ledger."""
        rows = await self.cluster.rows("""
            SELECT spent_usd, overdrawn_usd FROM budgets UNION ALL
            SELECT spent_usd, overdrawn_usd FROM agent_runs
        """)
        ((ledger,),) = await self.cluster.rows("SELECT sum(cost_usd) FROM cost_entries")
        assert {row.spent_usd for row in rows} == {ledger}
        assert await self.cluster.rows(DIFFERENT_TOTALS) == []
        return [tuple(row) for row in rows]


async def book(cluster: Cluster, *entries: dict[str, Any], **fields: Any) -> Booked:
    given: Agent = agent("a", **fields)
    run_id = await cluster.start(given, cost_budget=0.004)
    (a,) = (await cluster.claim(run_id)).agents
    ((workflow_id,),) = await cluster.rows("SELECT workflow_id FROM runs WHERE id = :id", id=run_id)
    hold = hold_request(a, "0.003")
    await cluster.hold(hold)
    for entry in entries or ({},):
        made = call(a, hold, str(PUBLISHED), usage=USAGE, saved_usd=Decimal("0.00015"))
        changed = replace(made, **{"workflow_id": workflow_id, **entry})
        await cluster.record(ending(a, calls=[changed]))
    return Booked(cluster, run_id)


async def test_a_change_of_prices_is_booked_once_and_on_the_same_budgets(cluster: Cluster) -> None:
    booked = await book(cluster)

    done = await booked.reprice(pricing(input=0.3, cached_input=0.15, output=1.2))
    again = await booked.reprice(pricing(input=0.3, cached_input=0.15, output=1.2))

    (change,) = done.changes
    assert (change.calls, change.booked_usd, change.difference_usd) == (1, PUBLISHED, PUBLISHED)
    assert change.price_version == "operator"
    assert again.changes == []
    assert await booked.corrections() == [PUBLISHED]
    assert await booked.accounts() == [(2 * PUBLISHED, Decimal(0))] * 2
    assert await cluster.rows("SELECT sum(calls), sum(saved_usd) FROM costs_daily") == [
        (1, Decimal("0.0003"))
    ]


async def test_the_same_prices_book_nothing(cluster: Cluster) -> None:
    booked = await book(cluster)

    done = await booked.reprice(pricing())

    assert done == Repricing()
    assert await booked.corrections() == []


async def test_a_dry_run_tells_what_would_be_booked_and_books_nothing(cluster: Cluster) -> None:
    booked = await book(cluster)

    told = await booked.reprice(pricing(**DEARER), dry_run=True)
    before = await booked.corrections()
    done = await booked.reprice(pricing(**DEARER))

    assert before == []
    assert told == done
    assert await booked.corrections() == [9 * PUBLISHED]


async def test_a_price_above_the_budget_overdraws_it_and_a_fall_is_given_back(
    cluster: Cluster,
) -> None:
    booked = await book(cluster, cost_limit=0.005)

    await booked.reprice(pricing(**DEARER))
    overdrawn = await booked.accounts()
    await booked.reprice(pricing())

    assert overdrawn == [(10 * PUBLISHED, Decimal("0.002")), (10 * PUBLISHED, Decimal("0.001"))]
    assert await booked.corrections() == [9 * PUBLISHED, -9 * PUBLISHED]
    assert {spent for spent, _ in await booked.accounts()} == {PUBLISHED}


async def test_a_price_holds_for_calls_from_its_date_on(cluster: Cluster) -> None:
    booked = await book(cluster)

    await booked.reprice(pricing(**DEARER, **{"from": TOMORROW.isoformat()}))

    assert await booked.corrections() == []


async def test_what_was_corrected_once_is_priced_as_what_it_is_now(cluster: Cluster) -> None:
    guess = {"kind": "unconfirmed", "usage": Usage(), "outcome": "unknown", "cost_usd": Decimal(1)}
    estimate = {"kind": "estimated", "cost_usd": Decimal("0.002")}
    booked = await book(cluster, guess, estimate, {})

    await booked.reprice(pricing(**DEARER))

    assert await booked.corrections() == [-1, Decimal("-0.002"), 9 * PUBLISHED]
    assert {spent for spent, _ in await booked.accounts()} == {10 * PUBLISHED}
    assert await cluster.rows("SELECT sum(calls) FROM costs_daily") == [(1,)]


async def test_usage_that_arrives_after_a_repricing_replaces_all_that_was_booked(
    cluster: Cluster,
) -> None:
    booked = await book(cluster, {"kind": "estimated"})
    await booked.reprice(pricing(**DEARER))
    (row,) = await cluster.rows("SELECT * FROM cost_entries WHERE kind = 'estimated'")
    (a,) = await cluster.rows("SELECT id, name, run_id, attempt FROM agent_runs")

    late = call(a, hold_request(a), "0.5", usage=USAGE, call_id=row.call_id)
    await cluster.record(ending(a, calls=[late]))

    assert {spent for spent, _ in await booked.accounts()} == {Decimal("0.5")}


async def test_worst_cases_and_calls_of_unknown_price_stay_as_they_are(cluster: Cluster) -> None:
    guess = {"kind": "unconfirmed", "usage": Usage(), "outcome": "unknown"}
    booked = await book(cluster, guess)
    other = await book(cluster, {"model": "gpt-99"})

    kept = await booked.reprice(pricing(**DEARER))
    unknown = await other.reprice(pricing(**DEARER))

    assert kept == Repricing()
    assert unknown == Repricing(unpriced=1)
    assert await other.corrections() == []


async def test_a_service_tier_keeps_its_own_price(cluster: Cluster) -> None:
    tier = {"model": "gpt-5", "service_tier": "priority"}
    run_id = await cluster.start(Agent(name="a", prompt_template="go", llm_config=tier))
    (a,) = (await cluster.claim(run_id)).agents
    ((workflow_id,),) = await cluster.rows("SELECT workflow_id FROM runs")
    hold = hold_request(a)
    await cluster.hold(hold)
    cost = Pricing().price_of("openai", "gpt-5", tier).cost(USAGE)
    made = call(a, hold, str(cost), usage=USAGE, model="gpt-5", workflow_id=workflow_id)
    await cluster.record(ending(a, calls=[made]))

    done = await cluster.commit(lambda c: reprice(c, [run_id], Pricing()))

    assert done == Repricing()


async def test_a_call_of_a_fallback_is_priced_by_what_the_fallback_asked(cluster: Cluster) -> None:
    config = {"model": "gpt-5", "service_tier": "priority"}
    fallback = {"model": "claude-haiku-4-5", "service_tier": None}
    given = Agent(name="a", prompt_template="go", llm_config=config, fallbacks=[fallback])
    run_id = await cluster.start(given)
    (a,) = (await cluster.claim(run_id)).agents
    ((workflow_id,),) = await cluster.rows("SELECT workflow_id FROM runs")
    hold = hold_request(a)
    await cluster.hold(hold)
    cost = Pricing().price_of("anthropic", "claude-haiku-4-5").cost(USAGE)
    made = call(a, hold, str(cost), usage=USAGE, model="claude-haiku-4-5", provider="anthropic")
    await cluster.record(ending(a, calls=[replace(made, workflow_id=workflow_id)]))

    done = await cluster.commit(lambda c: reprice(c, [run_id], Pricing()))

    assert done == Repricing()


async def test_only_calls_from_a_time_on_are_priced_again(cluster: Cluster) -> None:
    booked = await book(cluster)

    runs = await cluster.commit(lambda c: runs_since(c, TOMORROW))
    done = await cluster.commit(
        lambda c: reprice(c, [booked.run_id], pricing(**DEARER), since=TOMORROW)
    )

    assert runs == []
    assert done == Repricing()
    assert await cluster.commit(lambda c: runs_since(c, datetime(2020, 1, 1, tzinfo=UTC))) == [
        booked.run_id
    ]


async def test_the_fee_of_a_container_changes_with_its_price_and_never_disappears_unsaid(
    cluster: Cluster,
) -> None:
    hour_usd = Decimal("0.09")  # of the published price
    usage = replace(USAGE, container_seconds=1260)
    fee_usd = hour_usd * 1260 / 3600
    booked = await book(
        cluster,
        {"usage": usage, "kind": "estimated", "cost_usd": PUBLISHED + fee_usd},
        cost_limit=1.0,
    )
    own = {"input": 0.15, "cached_input": 0.075, "output": 0.6}

    same = await booked.reprice(pricing())
    without_fee = await booked.reprice(pricing(**own))
    free = await booked.reprice(pricing(**own, container_hours=0))

    assert same == Repricing()
    assert (without_fee.changes, without_fee.unpriced) == ([], 1)
    assert [change.difference_usd for change in free.changes] == [-fee_usd]
    assert await booked.corrections() == [-fee_usd]

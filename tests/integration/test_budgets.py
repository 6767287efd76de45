"""Standing budgets and the queue of holds, step by step, on a real database."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from app.domain.budgets import Period, StandingScope
from app.domain.money import HoldAnswer, HoldOutcome, HoldRequest
from app.domain.status import AgentStatus
from app.storage import deferred, holds, records, standing
from app.storage.claims import ClaimedAgent
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request

pytestmark = pytest.mark.anyio

ALL = ("all", "")
FINANCE = ("module", "Finance")
ACME = ("tenant", "acme")


async def claimed(cluster: Cluster, count: int, **rules: Any) -> Sequence[ClaimedAgent]:
    """The running agents of one run."""
    agents = [agent(f"a{index}", cost_limit=100.0) for index in range(count)]
    run_id = await cluster.start(*agents, max_parallel_agents=count, **rules)
    return (await cluster.claim(run_id)).agents


async def accounts(cluster: Cluster) -> list[tuple[Any, ...]]:
    """(scope, spent, held) of the standing budgets' accounts, the newest first."""
    rows = await cluster.rows(
        "SELECT scope, spent_usd, held_usd FROM budgets WHERE scope <> 'run'"
        " ORDER BY period_start DESC"
    )
    return [tuple(row) for row in rows]


def outcomes(answers: Sequence[HoldAnswer]) -> list[str]:
    return [str(answer.outcome) for answer in answers]


async def settle(cluster: Cluster, who: ClaimedAgent, hold: HoldRequest, cost: str) -> list[UUID]:
    """Record a call like a worker, and return the agents that are woken."""
    woken: list[UUID] = []
    record = ending(who, calls=[call(who, hold, cost)])
    await cluster.commit(lambda c: records.apply_records(c, [record], wake=woken.extend))
    return woken


async def test_a_hold_is_placed_on_every_standing_budget_that_counts_the_call(
    cluster: Cluster,
) -> None:
    (a,) = await claimed(cluster, 1)
    for scope, subject in (ALL, FINANCE, ACME, ("workflow", "test"), ("module", "HR")):
        await cluster.set_budget(scope, subject, "1")

    await cluster.hold(hold_request(a, "0.5", ALL, FINANCE, ACME, ("workflow", "test")))

    held = await cluster.rows("SELECT scope, held_usd FROM budgets ORDER BY scope")
    assert held == [
        (scope, Decimal("0.5")) for scope in ("all", "module", "run", "tenant", "workflow")
    ]


async def test_standing_budgets_cost_a_hold_no_further_trip_to_the_database(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = await claimed(cluster, 3)
    execute = psycopg.AsyncCursor.execute
    statements = 0

    async def counted(*args: Any, **options: Any) -> Any:
        nonlocal statements
        statements += 1
        return await execute(*args, **options)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", counted)

    async def trips(who: ClaimedAgent) -> int:
        before = statements
        await cluster.hold(hold_request(who, "0.01", ALL, FINANCE))
        return statements - before

    without = await trips(a)
    await cluster.set_budget(*ALL, "1", period=Period.DAY)
    await cluster.set_budget(*FINANCE, "1")
    first = await trips(b)
    later = await trips(c)

    assert (without, first, later) == (4, 6, 4)


async def test_the_accounts_of_a_period_are_made_once_however_many_need_them(
    cluster: Cluster,
) -> None:
    agents = await claimed(cluster, 5)
    await cluster.set_budget(*ALL, "2", period=Period.DAY)
    await cluster.set_budget(*ALL, "3", period=Period.MONTH)

    answers = await asyncio.gather(
        *(cluster.hold(hold_request(each, "0.5", ALL)) for each in agents)
    )

    assert sorted(str(answer.outcome) for (answer,) in answers) == ["placed"] * 4 + ["wait"]
    assert await accounts(cluster) == [("all", 0, Decimal(2)), ("all", 0, Decimal(2))]


async def test_a_call_is_settled_on_the_day_on_which_it_was_held(cluster: Cluster) -> None:
    a, b = await claimed(cluster, 2)
    await cluster.set_budget(*ALL, "1", period=Period.DAY)
    yesterday, today = hold_request(a, "1", ALL), hold_request(b, "1", ALL)
    await cluster.hold(yesterday)
    await cluster.next_day()

    (answer,) = await cluster.hold(today)
    await settle(cluster, a, yesterday, "0.25")

    assert answer.outcome is HoldOutcome.PLACED
    assert await accounts(cluster) == [("all", 0, 1), ("all", Decimal("0.25"), 0)]
    (entry,) = await cluster.rows("SELECT budget_ids FROM cost_entries")
    (old,) = await cluster.rows(
        "SELECT id FROM budgets WHERE scope = 'all' ORDER BY period_start LIMIT 1"
    )
    assert entry.budget_ids == [a.run_id, old.id]


async def test_what_becomes_known_late_is_corrected_on_the_day_of_its_hold(
    cluster: Cluster,
) -> None:
    (a,) = await claimed(cluster, 1)
    await cluster.set_budget(*ALL, "1", period=Period.DAY)
    hold = hold_request(a, "1", ALL)
    await cluster.hold(hold)
    await cluster.rows(
        "UPDATE agent_runs SET lease_expires_at = now() - interval '1 s' RETURNING id"
    )
    await cluster.recover()
    await cluster.next_day()

    await settle(cluster, a, hold, "0.25")

    assert await accounts(cluster) == [("all", Decimal("0.25"), 0)]


async def test_a_budget_set_while_calls_run_applies_from_the_next_hold_on(
    cluster: Cluster,
) -> None:
    a, b = await claimed(cluster, 2)
    first = hold_request(a, "5", FINANCE)
    await cluster.hold(first)

    await cluster.set_budget(*FINANCE, "1")
    answers = await cluster.hold(hold_request(b, "2", FINANCE))
    await settle(cluster, a, first, "5")

    assert outcomes(answers) == ["exceeded"]
    assert "budget of module Finance" in str(answers[0].account)
    assert await accounts(cluster) == [("module", 0, 0)]


async def test_a_lowered_limit_freezes_the_budget_and_a_raised_one_sets_it_free(
    cluster: Cluster,
) -> None:
    a, b, c = await claimed(cluster, 3)
    await cluster.set_budget(*ALL, "10", period=Period.MONTH)
    first, second, third = (
        hold_request(a, "4", ALL),
        hold_request(b, "4", ALL),
        hold_request(c, "1", ALL),
    )
    await cluster.hold(first, second)
    await settle(cluster, a, first, "3")

    await cluster.set_budget(*ALL, "5", period=Period.MONTH)
    frozen = outcomes(await cluster.hold(third))
    woken = await cluster.set_budget(*ALL, "8", period=Period.MONTH)
    free = outcomes(await cluster.hold(third))

    assert (frozen, woken, free) == (["wait"], (c.id,), ["placed"])
    ((overdrawn,),) = await cluster.rows("SELECT overdrawn_usd FROM budgets WHERE scope = 'all'")
    assert overdrawn == 0


async def test_a_limit_below_what_is_spent_refuses_every_call(cluster: Cluster) -> None:
    a, b = await claimed(cluster, 2)
    await cluster.set_budget(*ALL, "10")
    first = hold_request(a, "4", ALL)
    await cluster.hold(first)
    await settle(cluster, a, first, "3")

    await cluster.set_budget(*ALL, "2")
    answers = await cluster.hold(hold_request(b, "0.0001", ALL))

    assert outcomes(answers) == ["exceeded"]
    ((overdrawn,),) = await cluster.rows("SELECT overdrawn_usd FROM budgets WHERE scope = 'all'")
    assert overdrawn == 1


async def test_a_soft_budget_counts_and_refuses_nothing(cluster: Cluster) -> None:
    (a,) = await claimed(cluster, 1)
    await cluster.set_budget(*ALL, "1", soft=True)
    hold = hold_request(a, "4", ALL)

    answers = await cluster.hold(hold)
    await settle(cluster, a, hold, "3")

    assert outcomes(answers) == ["placed"]
    assert await accounts(cluster) == [("all", 3, 0)]
    told = await cluster.rows("SELECT data -> 'share' FROM events WHERE type = 'budget_threshold'")
    assert [share for (share,) in told] == [0.5, 0.8, 1]


async def test_passing_a_threshold_is_told_once_to_the_run_that_passed_it(
    cluster: Cluster,
) -> None:
    a, b = await claimed(cluster, 2, name="one")
    (c,) = await claimed(cluster, 1, name="other")
    await cluster.set_budget(*ALL, "10", thresholds=(40, 90))
    requests = [hold_request(each, "3", ALL) for each in (a, b, c)]
    await cluster.hold(*requests)
    settled = [
        ending(who, calls=[call(who, hold, "2.5")])
        for who, hold in zip((a, b, c), requests, strict=True)
    ]

    await cluster.record(settled[0], settled[2])
    await cluster.record(settled[1])
    await cluster.record(settled[1])

    told = await cluster.rows(
        "SELECT run_id, agent_run_id, data ->> 'scope', data -> 'share' FROM events"
        " WHERE type = 'budget_threshold' ORDER BY id"
    )
    assert told == [(c.run_id, c.id, "all", 0.4)]


async def test_a_large_hold_that_waits_is_not_overtaken_by_small_ones(cluster: Cluster) -> None:
    a, large, small = await claimed(cluster, 3, cost_budget=10.0)
    running = hold_request(a, "5")
    await cluster.hold(running)
    await cluster.hold(big := hold_request(large, "8"))

    overtaking = outcomes(await cluster.hold(little := hold_request(small, "1")))
    early = outcomes(await cluster.hold(little))
    woken = await settle(cluster, a, running, "1")
    still_behind = outcomes(await cluster.hold(little))
    in_turn = outcomes(await cluster.hold(big))

    # 1 is spent: the large one may have 8, and the small one the rest.
    assert (overtaking, early, woken) == (["wait"], ["wait"], [large.id, small.id])
    assert (still_behind, in_turn) == (["placed"], ["placed"])


async def test_who_waits_for_one_budget_stops_nobody_where_there_is_room_for_all(
    cluster: Cluster,
) -> None:
    a, b, c = await claimed(cluster, 3, cost_budget=100.0)
    await cluster.set_budget(*FINANCE, "5")
    await cluster.hold(hold_request(a, "4", FINANCE))
    await cluster.hold(hold_request(b, "4", FINANCE))

    answers = await cluster.hold(hold_request(c, "50"))

    assert outcomes(answers) == ["placed"]


async def test_who_leaves_the_queue_without_a_hold_wakes_those_behind(cluster: Cluster) -> None:
    a, large, small = await claimed(cluster, 3, cost_budget=10.0)
    running = hold_request(a, "5")
    await cluster.hold(running)
    await cluster.hold(big := hold_request(large, "8"))
    await cluster.hold(hold_request(small, "4.5"))
    first_woken = await settle(cluster, a, running, "4")
    then_woken: list[UUID] = []

    refused = await cluster.commit(lambda c: holds.place_holds(c, [big], wake=then_woken.extend))

    assert (first_woken, then_woken) == ([large.id, small.id], [small.id])
    assert outcomes(refused) == ["exceeded"]


async def test_the_place_of_an_attempt_that_is_over_is_free(cluster: Cluster) -> None:
    a, gone, c = await claimed(cluster, 3, cost_budget=10.0)
    await cluster.hold(hold_request(a, "5"))
    await cluster.hold(hold_request(gone, "8"))
    await cluster.record(ending(gone))

    answers = await cluster.hold(hold_request(c, "1"))

    assert outcomes(answers) == ["placed"]
    assert await cluster.rows("SELECT agent_run_id FROM hold_queue") == []


async def test_who_gives_its_place_back_while_it_waits_keeps_its_turn(cluster: Cluster) -> None:
    a, b, c, talker = await claimed(cluster, 4, cost_budget=10.0)
    running, small = hold_request(a, "5"), hold_request(c, "4")
    await cluster.hold(running)
    await cluster.hold(hold_request(b, "8"))
    await cluster.record(
        ending(b, AgentStatus.PENDING, outcome="handed_back", ready_in_s=30.0, waits_for="money")
    )

    conversation = hold_request(talker, "4")
    begun = await cluster.hold(replace(conversation, begun=True))
    await settle(cluster, talker, conversation, "0")
    behind = await cluster.hold(small)
    woken = await settle(cluster, a, running, "1")
    called_back = await cluster.commit(
        lambda connection: deferred.wake_deferred(connection, [woken, [small.agent_run_id]])
    )
    (again,) = (await cluster.claim(b.run_id)).agents
    still_behind = await cluster.hold(small)
    placed = await cluster.hold(hold_request(again, "8"))

    assert outcomes([*behind, *begun]) == ["wait", "placed"]
    assert (woken, called_back) == ([b.id], [True, False])
    assert (again.id, again.attempt) == (b.id, 2)
    assert outcomes([*still_behind, *placed]) == ["wait", "placed"]
    assert await cluster.rows("SELECT agent_run_id FROM hold_queue") == [(c.id,)]


async def test_removing_a_budget_wakes_who_waits_for_it(cluster: Cluster) -> None:
    a, b = await claimed(cluster, 2)
    await cluster.set_budget(*FINANCE, "5", period=Period.DAY)
    await cluster.hold(hold_request(a, "4", FINANCE))
    waiting = hold_request(b, "4", FINANCE)
    await cluster.hold(waiting)

    removed, woken = await cluster.commit(
        lambda c: standing.remove_budget(c, StandingScope.MODULE, "Finance", None)
    )
    answers = await cluster.hold(waiting)

    assert (removed, woken) == ([Period.DAY], (b.id,))
    assert outcomes(answers) == ["placed"]


@pytest.mark.parametrize(
    ("period", "hour", "day", "at", "start"),
    [
        ("none", 0, 1, "2026-03-01T12:00Z", None),
        ("day", 0, 1, "2026-03-01T00:00Z", "2026-03-01T00:00Z"),
        ("day", 6, 1, "2026-03-01T05:59:59Z", "2026-02-28T06:00Z"),
        ("day", 6, 1, "2026-03-01T06:00Z", "2026-03-01T06:00Z"),
        ("day", 0, 1, "2026-03-01T00:30+01:00", "2026-02-28T00:00Z"),
        ("month", 0, 1, "2026-02-28T23:59:59Z", "2026-02-01T00:00Z"),
        ("month", 0, 15, "2026-03-14T23:59:59Z", "2026-02-15T00:00Z"),
        ("month", 8, 15, "2026-03-15T07:59Z", "2026-02-15T08:00Z"),
        ("month", 8, 15, "2026-03-15T08:00Z", "2026-03-15T08:00Z"),
        ("month", 0, 28, "2026-01-01T00:00Z", "2025-12-28T00:00Z"),
    ],
)
async def test_periods_begin_at_the_configured_hour_and_day(
    cluster: Cluster, period: str, hour: int, day: int, at: str, start: str | None
) -> None:
    ((found,),) = await cluster.rows(
        "SELECT budget_period_start(:period, :hour, :day, :at)",
        period=period,
        hour=hour,
        day=day,
        at=datetime.fromisoformat(at),
    )

    assert found == (None if start is None else datetime.fromisoformat(start))

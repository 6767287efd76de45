from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy.exc import DBAPIError

from app.domain.money import HoldOutcome
from app.domain.status import AgentStatus
from app.domain.usage import Usage
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request
from tests.support.ledgers import DIFFERENT_TOTALS

pytestmark = pytest.mark.anyio


async def money(cluster: Cluster) -> tuple[Decimal, Decimal, Decimal]:
    """(spent, held, overdrawn) of the only run, which must agree with its agents and the ledger."""
    ((spent, held, overdrawn),) = await cluster.rows(
        "SELECT spent_usd, held_usd, overdrawn_usd FROM budgets"
    )
    ((of_agents, held_for_agents, ledger, holds),) = await cluster.rows("""
        SELECT (SELECT sum(spent_usd) FROM agent_runs), (SELECT sum(held_usd) FROM agent_runs),
            (SELECT coalesce(sum(cost_usd), 0) FROM cost_entries),
            (SELECT coalesce(sum(amount_usd), 0) FROM holds)
    """)
    assert spent == of_agents == ledger
    assert await cluster.rows(DIFFERENT_TOTALS) == []
    assert held == held_for_agents == holds
    return spent, held, overdrawn


async def test_settling_replaces_the_hold_by_the_cost(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    (a,) = (await cluster.claim(run_id)).agents
    hold = hold_request(a, "0.5")
    await cluster.hold(hold)
    before = await money(cluster)

    accepted = await cluster.record(ending(a, calls=[call(a, hold, "0.125")]))

    assert accepted == [True]
    assert before == (Decimal(0), Decimal("0.5"), Decimal(0))
    assert await money(cluster) == (Decimal("0.125"), Decimal(0), Decimal(0))


async def test_writing_a_batch_again_changes_nothing(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    (a,) = (await cluster.claim(run_id)).agents
    hold = hold_request(a)
    await cluster.hold(hold)
    record = ending(a, calls=[call(a, hold, "0.1")])
    await cluster.record(record)
    before = await cluster.rows("SELECT * FROM cost_entries"), await cluster.rows("TABLE events")

    await cluster.record(record)

    after = await cluster.rows("SELECT * FROM cost_entries"), await cluster.rows("TABLE events")
    assert after == before
    assert (await money(cluster))[0] == Decimal("0.1")


async def test_placing_a_hold_again_holds_it_once(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    (a,) = (await cluster.claim(run_id)).agents
    hold = hold_request(a, "0.5")

    answers = [*await cluster.hold(hold), *await cluster.hold(hold)]

    assert [answer.outcome for answer in answers] == [HoldOutcome.PLACED] * 2
    assert (await money(cluster))[1] == Decimal("0.5")


async def test_a_fenced_attempt_changes_nothing_but_the_ledger(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    (lost,) = (await cluster.claim(run_id, lease_s=-1.0)).agents
    hold = hold_request(lost, "0.5")
    await cluster.hold(hold)
    await cluster.recover()
    (current,) = (await cluster.claim(run_id)).agents

    late = await cluster.record(ending(lost, calls=[call(lost, hold, "0.1")], output="too late"))
    on_time = await cluster.record(ending(current, output="in time"))

    assert (late, on_time) == ([False], [True])
    assert await cluster.rows("SELECT status, output FROM agent_runs") == [("completed", "in time")]
    assert (await money(cluster))[:2] == (Decimal("0.1"), Decimal(0))


async def test_a_worker_that_died_with_a_call_out_leaves_one_unconfirmed_entry(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"))
    (lost,) = (await cluster.claim(run_id, lease_s=-1.0)).agents
    await cluster.hold(hold_request(lost, "0.5"))

    recovered = await cluster.recover()
    again = await cluster.recover()

    entries = await cluster.rows("SELECT kind, outcome, cost_usd FROM cost_entries")
    assert [lost.name for lost in recovered] == ["a"]
    assert again == []
    assert entries == [("unconfirmed", "unknown", Decimal("0.5"))]
    assert await money(cluster) == (Decimal("0.5"), Decimal(0), Decimal(0))


async def test_what_was_unconfirmed_and_turns_out_known_is_corrected_once(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"))
    (lost,) = (await cluster.claim(run_id, lease_s=-1.0)).agents
    hold = hold_request(lost, "0.5")
    await cluster.hold(hold)
    await cluster.recover()
    late = ending(lost, calls=[call(lost, hold, "0.2", usage=Usage(input_tokens=7))])

    await cluster.record(late)
    await cluster.record(late)

    entries = await cluster.rows("SELECT kind, cost_usd FROM cost_entries ORDER BY id")
    assert entries == [
        ("unconfirmed", Decimal("0.5")),
        ("actual", Decimal("0.2")),
        ("correction", Decimal("-0.5")),
    ]
    assert (await money(cluster))[0] == Decimal("0.2")


async def test_the_providers_own_usage_wins_over_an_estimate_however_late(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"))
    (a,) = (await cluster.claim(run_id)).agents
    hold = hold_request(a, "0.5")
    await cluster.hold(hold)
    guess = call(a, hold, "0.3", kind="estimated", usage=Usage(input_tokens=90, output_tokens=9))
    truth = call(a, hold, "0.1", usage=Usage(input_tokens=70, output_tokens=5))
    await cluster.record(ending(a, calls=[guess]))

    for late in (truth, truth, guess, replace(guess, kind="unconfirmed")):
        await cluster.record(ending(a, calls=[late]))

    entries = await cluster.rows("SELECT kind, corrects, cost_usd FROM cost_entries ORDER BY id")
    lines = await cluster.rows("""
        SELECT sum(calls), sum(prompt_tokens), sum(output_tokens), sum(cost_usd) FROM costs_daily
    """)
    assert entries == [
        ("estimated", None, Decimal("0.3")),
        ("actual", None, Decimal("0.1")),
        ("correction", "estimated", Decimal("-0.3")),
    ]
    assert lines == [(1, 70, 5, Decimal("0.1"))]
    assert (await money(cluster))[0] == Decimal("0.1")


async def test_a_call_never_made_releases_its_hold_without_an_entry(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    (a,) = (await cluster.claim(run_id)).agents
    hold = hold_request(a)
    await cluster.hold(hold)

    await cluster.record(ending(a, calls=[call(a, hold, "0", kind="void")]))

    assert await cluster.rows("SELECT id FROM cost_entries") == []
    assert await money(cluster) == (Decimal(0), Decimal(0), Decimal(0))


async def test_usage_above_the_hold_is_booked_in_full_and_freezes_the_budget(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"), agent("b"), cost_budget=1.0)
    a, b = (await cluster.claim(run_id)).agents
    hold = hold_request(a, "0.5")
    await cluster.hold(hold)

    await cluster.record(ending(a, calls=[call(a, hold, "1.25")]))
    (answer,) = await cluster.hold(hold_request(b, "0.0001"))

    assert await money(cluster) == (Decimal("1.25"), Decimal(0), Decimal("0.25"))
    assert answer.outcome is HoldOutcome.EXCEEDED


async def test_a_turn_of_a_tool_loop_is_settled_while_the_agent_goes_on(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    (a,) = (await cluster.claim(run_id)).agents
    first, second = hold_request(a), hold_request(a)
    await cluster.hold(first)
    turn = ending(a, calls=[call(a, first, "0.1")])

    await cluster.record(type(turn)(agent_run_id=a.id, attempt=a.attempt, calls=turn.calls))
    running = await cluster.statuses(run_id)
    await cluster.hold(second)
    await cluster.record(ending(a, calls=[call(a, second, "0.2")]))

    assert running == {"a": "running"}
    assert (await money(cluster))[:2] == (Decimal("0.3"), Decimal(0))


async def test_an_agent_recovered_too_often_fails(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    for _ in range(3):
        await cluster.claim(run_id, lease_s=-1.0)
        await cluster.recover(max_recoveries=2)

    assert await cluster.rows("SELECT status, error_class, recoveries FROM agent_runs") == [
        (AgentStatus.FAILED, "RecoveriesExhausted", 3)
    ]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE cost_entries SET cost_usd = 0",
        "DELETE FROM cost_entries",
        "TRUNCATE cost_entries",
    ],
)
async def test_the_ledger_is_append_only(cluster: Cluster, change: str) -> None:
    run_id = await cluster.start(agent("a"))
    (a,) = (await cluster.claim(run_id)).agents
    hold = hold_request(a)
    await cluster.hold(hold)
    await cluster.record(ending(a, calls=[call(a, hold, "0.1")]))

    with pytest.raises(DBAPIError, match="append-only"):
        await cluster.rows(change)


async def test_no_statement_can_commit_an_overspend(cluster: Cluster) -> None:
    await cluster.start(agent("a"), cost_budget=1.0)

    for table in ("budgets", "agent_runs"):
        with pytest.raises(DBAPIError, match="within_limit"):
            await cluster.rows(f"UPDATE {table} SET held_usd = 1.01 RETURNING id")

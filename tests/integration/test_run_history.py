"""A run read as a whole, with its current activity."""

from decimal import Decimal
from functools import partial

import pytest

from app.domain.status import AgentStatus
from app.monitoring.explain import Live, explain_waits
from app.monitoring.findings import Reason
from app.monitoring.run_history import RunHistory, read_history
from app.monitoring.timeline import timeline_of
from app.storage.records import Record
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request

pytestmark = pytest.mark.anyio


async def read(cluster: Cluster, run_id: object) -> RunHistory:
    return await cluster.commit(partial(read_history, run_id=run_id))  # type: ignore[arg-type]


async def test_attempts_and_calls_become_the_time_of_their_agent(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b", "a"))
    (claimed,) = (await cluster.claim(run_id)).agents
    hold = hold_request(claimed)
    await cluster.hold(hold)
    paid = call(claimed, hold, "0.01", seconds=0.001)
    await cluster.record(ending(claimed, calls=[paid]))

    history = await read(cluster, run_id)

    assert [(one.agent, one.number, one.outcome) for one in history.attempts] == [
        ("a", 1, "completed")
    ]
    assert [(one.agent, one.cost_usd) for one in history.calls] == [("a", Decimal("0.01"))]
    assert history.dependencies == {"a": (), "b": ("a",)}
    timeline = timeline_of(history).of("a")
    assert timeline is not None
    assert 0 < timeline.calling_s <= 0.0011


async def test_a_hold_shows_a_call_under_way(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    (claimed,) = (await cluster.claim(run_id)).agents
    await cluster.hold(hold_request(claimed))

    history = await read(cluster, run_id)

    (finding,) = explain_waits(history, Live())
    assert (finding.reason, finding.agents) == (Reason.CALLING, ("a",))


async def test_a_hold_that_waits_shows_the_budget_it_waits_for(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b"), cost_budget=0.8)
    first, second = (await cluster.claim(run_id)).agents
    await cluster.hold(hold_request(first, "0.5"))
    await cluster.hold(hold_request(second, "0.5"))

    history = await read(cluster, run_id)

    (standing,) = [one for one in history.standing if one.money_since is not None]
    assert standing.agent == "b"
    assert standing.money_usd == Decimal("0.5")
    (budget,) = standing.budgets
    assert (budget.scope, budget.held_usd) == ("run", Decimal("0.5"))


async def test_a_guess_that_was_taken_back_is_no_call(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    (claimed,) = (await cluster.claim(run_id)).agents
    hold = hold_request(claimed)
    await cluster.hold(hold)
    guess = call(claimed, hold, "0.05", kind="unconfirmed")
    known = call(claimed, hold, "0.01", seconds=0.2)
    for entry in (guess, known):
        await cluster.record(
            Record(agent_run_id=claimed.id, attempt=claimed.attempt, calls=(entry,))
        )

    history = await read(cluster, run_id)

    assert [(one.kind, one.cost_usd) for one in history.calls] == [("actual", Decimal("0.01"))]


async def test_what_is_usual_is_known_after_three_runs(cluster: Cluster) -> None:
    for number in range(4):
        run_id = await cluster.start(agent("a"))
        (claimed,) = (await cluster.claim(run_id)).agents
        hold = hold_request(claimed)
        await cluster.hold(hold)
        await cluster.record(ending(claimed, calls=[call(claimed, hold, f"0.0{number + 1}")]))
        await cluster.advance(run_id, 0)

        usual = (await read(cluster, run_id)).usual_usd
        assert usual == ({"a": Decimal("0.02")} if number == 3 else {})


async def test_what_was_waited_for_is_known_by_name_long_waits_included(cluster: Cluster) -> None:
    limit, day = "openai/gpt-4o requests_per_minute", "openai/gpt-4o requests_per_day"
    run_id = await cluster.start(agent("a"), agent("b"))
    first, other = (await cluster.claim(run_id)).agents
    away = ending(
        first,
        AgentStatus.PENDING,
        event="agent_waiting",
        outcome="handed_back",
        waits_for=day,
        ready_in_s=0.001,
    )
    await cluster.record(away)
    (again,) = (await cluster.claim(run_id)).agents
    await cluster.record(ending(again, waited_s={limit: 2.5}))
    await cluster.record(ending(other, waited_s={limit: 1.25}))

    waits = {(wait.agent, wait.waits_for): wait for wait in (await read(cluster, run_id)).waits}

    assert {key: wait.seconds for key, wait in waits.items() if key[1] == limit} == {
        ("a", limit): 2.5,
        ("b", limit): 1.25,
    }
    assert 0 < waits["a", day].seconds <= 0.001

"""Runs that have ended: failed agents run again, or a new run starts from one agent."""

import asyncio
from decimal import Decimal
from uuid import UUID

import pytest

from app.domain.money import HoldOutcome
from app.domain.status import AgentStatus, WorkflowStatus
from app.errors import RunConflict, UnknownRun, WorkflowError
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request
from tests.support.run_control import (
    admit,
    end_level,
    events,
    pause,
    read,
    rerun,
    retry,
    stop,
)

pytestmark = pytest.mark.anyio


async def half_failed(cluster: Cluster) -> UUID:
    """A run of two chains of two, of which one has failed at its first agent."""
    run_id = await cluster.start(
        agent("good"), agent("bad"), agent("after_good", "good"), agent("after_bad", "bad")
    )
    await end_level(cluster, run_id, 0, bad=AgentStatus.FAILED)
    assert (await end_level(cluster, run_id, 1)).finished
    return run_id


async def test_only_failed_and_cancelled_agents_run_again(cluster: Cluster) -> None:
    run_id = await half_failed(cluster)
    before = (await read(cluster, run_id)).status

    retried = await retry(cluster, run_id)
    (plan,) = await admit(cluster)
    first = await cluster.claim(run_id, level=0)
    await cluster.record(*(ending(one) for one in first.agents))
    await cluster.advance(run_id, 0)
    second = await cluster.claim(run_id, level=1)
    await cluster.record(*(ending(one) for one in second.agents))
    ended = await cluster.advance(run_id, 1)

    assert before is WorkflowStatus.PARTIALLY_COMPLETED
    assert retried
    assert (plan.level, plan.agents) == (0, {"openai": 1})
    assert [(one.name, one.attempt) for one in first.agents] == [("bad", 2)]
    assert [(one.name, one.attempt) for one in second.agents] == [("after_bad", 1)]
    assert ended.finished
    assert (await read(cluster, run_id)).status is WorkflowStatus.COMPLETED
    done = await cluster.rows("""
        SELECT agent_run_id FROM attempts WHERE outcome = 'completed' GROUP BY 1
        HAVING count(*) = 1
    """)
    assert len(done) == 4


async def test_levels_that_have_nothing_left_are_passed_over(cluster: Cluster) -> None:
    run_id = await cluster.start(
        *(agent("a"), agent("x"), agent("b", "a"), agent("c", "b"), agent("y", "c", "x")),
    )
    await end_level(cluster, run_id, 0, x=AgentStatus.FAILED)
    await end_level(cluster, run_id, 1)
    assert (await end_level(cluster, run_id, 2)).finished

    await retry(cluster, run_id)
    await admit(cluster)
    moved = await end_level(cluster, run_id, 0)

    assert moved.plan is not None
    assert moved.plan.level == 3
    assert (await end_level(cluster, run_id, 3)).finished
    assert (await read(cluster, run_id)).status is WorkflowStatus.COMPLETED


async def test_retries_and_recoveries_begin_anew_and_money_does_not(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a", cost_limit=0.5))
    (a,) = (await cluster.claim(run_id)).agents
    held = hold_request(a)
    await cluster.hold(held)
    await cluster.record(
        ending(a, AgentStatus.FAILED, [call(a, held, "0.4")], retry=True, recovery=True)
    )
    await cluster.advance(run_id, 0)

    await retry(cluster, run_id)
    await admit(cluster)
    (again,) = (await cluster.claim(run_id)).agents
    (answer,) = await cluster.hold(hold_request(again, "0.2"))

    assert (again.attempt, again.retries, again.spent_usd) == (2, 0, Decimal("0.4"))
    assert await cluster.rows("SELECT recoveries FROM agent_runs") == [(0,)]
    assert answer.outcome is HoldOutcome.EXCEEDED


async def test_a_retry_may_raise_the_budget_and_never_lowers_it(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), cost_budget=0.5)
    (a,) = (await cluster.claim(run_id)).agents
    held = hold_request(a)
    await cluster.hold(held)
    await cluster.record(ending(a, AgentStatus.FAILED, [call(a, held, "0.4")]))
    await cluster.advance(run_id, 0)

    with pytest.raises(RunConflict, match="cost_budget"):
        await retry(cluster, run_id, "0.1")
    retried = await retry(cluster, run_id, "0.8")
    await admit(cluster)
    (again,) = (await cluster.claim(run_id)).agents
    (answer,) = await cluster.hold(hold_request(again, "0.4"))

    assert retried
    assert answer.outcome is HoldOutcome.PLACED
    (budget,) = await cluster.rows("SELECT limit_usd, spent_usd, reached FROM budgets")
    assert budget == (Decimal("0.8"), Decimal("0.4"), 50)


async def test_a_cancelled_run_can_be_retried(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b", "a"))
    await end_level(cluster, run_id, 0)
    await stop(cluster, run_id)

    retried = await retry(cluster, run_id)
    (plan,) = await admit(cluster)
    ended = await end_level(cluster, run_id, 1)

    assert retried
    assert plan.level == 1
    assert ended.finished
    record = await read(cluster, run_id)
    assert (record.status, record.error) == (WorkflowStatus.COMPLETED, None)


async def test_retrying_twice_or_what_goes_or_what_completed_changes_nothing(
    cluster: Cluster,
) -> None:
    run_id = await half_failed(cluster)

    retried = await asyncio.gather(*(retry(cluster, run_id) for _ in range(4)))
    await admit(cluster)
    going = await retry(cluster, run_id)
    await end_level(cluster, run_id, 0)
    await end_level(cluster, run_id, 1)
    completed = await retry(cluster, run_id)

    assert sorted(retried) == [False, False, False, True]
    assert (going, completed) == (False, False)
    assert (await events(cluster, run_id)).count("run_retried") == 1


async def test_the_late_word_of_an_old_attempt_changes_nothing_but_the_ledger(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"))
    (old,) = (await cluster.claim(run_id, lease_s=0)).agents
    held = hold_request(old)
    await cluster.hold(held)
    await cluster.recover(max_recoveries=0)
    await cluster.advance(run_id, 0)
    await retry(cluster, run_id)
    await admit(cluster)

    late = await cluster.record(ending(old, calls=[call(old, held, "0.1")]))
    (new,) = (await cluster.claim(run_id)).agents
    later = await cluster.record(ending(old))

    assert (late, later) == ([False], [False])
    assert new.attempt == 2
    assert (await read(cluster, run_id)).spent_usd == Decimal("0.1")


async def test_controls_of_no_run_are_refused(cluster: Cluster) -> None:
    nobody = UUID(int=0)

    assert not await pause(cluster, nobody)
    with pytest.raises(UnknownRun):
        await retry(cluster, nobody)
    with pytest.raises(UnknownRun):
        await rerun(cluster, nobody, "a")


async def test_a_rerun_takes_over_what_does_not_depend_on_the_agent(cluster: Cluster) -> None:
    run_id = await cluster.start(
        *(agent("a"), agent("b"), agent("after_a", "a", prompt_template="{a}"), agent("last", "b")),
        tenant="acme",
    )
    await end_level(cluster, run_id, 0)
    await end_level(cluster, run_id, 1)

    made = await rerun(cluster, run_id, "after_a")
    (plan,) = await admit(cluster)
    (again,) = (await cluster.claim(made, level=1)).agents
    await cluster.record(ending(again))
    ended = await cluster.advance(made, 1)

    assert made != run_id
    assert (plan.run_id, plan.level, plan.agents) == (made, 1, {"openai": 1})
    assert (again.name, again.attempt, again.outputs) == ("after_a", 1, {"a": "output of a"})
    assert ended.finished
    record = await read(cluster, made)
    assert (record.rerun_of, record.rerun_from) == (run_id, "after_a")
    assert record.status is WorkflowStatus.COMPLETED
    assert record.spent_usd == 0
    assert (await cluster.rows("SELECT DISTINCT tenant FROM runs")) == [("acme",)]
    assert (await read(cluster, run_id)).status is WorkflowStatus.COMPLETED
    assert (await events(cluster, run_id))[-1] == "run_rerun"


async def test_a_rerun_also_runs_what_has_no_result_to_take_over(cluster: Cluster) -> None:
    run_id = await half_failed(cluster)

    made = await rerun(cluster, run_id, "after_good")

    assert await cluster.statuses(made) == {
        "good": "completed",
        "bad": "pending",
        "after_good": "pending",
        "after_bad": "pending",
    }


async def test_a_rerun_asked_for_twice_is_one_run_until_it_has_ended(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    await end_level(cluster, run_id, 0)

    made = await asyncio.gather(*(rerun(cluster, run_id, "a") for _ in range(4)))
    await admit(cluster)
    await end_level(cluster, made[0], 0)
    another = await rerun(cluster, run_id, "a")

    assert len(set(made)) == 1
    assert another not in (run_id, *made)


async def test_a_rerun_of_what_goes_on_or_of_no_agent_is_refused(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("writer"))

    with pytest.raises(RunConflict, match="running"):
        await rerun(cluster, run_id, "writer")
    await end_level(cluster, run_id, 0)
    with pytest.raises(WorkflowError, match="did you mean 'writer'"):
        await rerun(cluster, run_id, "writr")

"""Pause, resume, retry and rerun, step by step on a real database."""

import asyncio
from decimal import Decimal
from functools import partial
from uuid import UUID

import pytest

from app.domain.money import HoldOutcome
from app.domain.status import AgentStatus, WorkflowStatus
from app.errors import RunConflict, UnknownRun, WorkflowError
from app.storage import control, progress, runs
from app.storage.runs import RunRecord
from tests.integration.cluster import Cluster, agent, call, ending, wish

pytestmark = pytest.mark.anyio


async def pause(cluster: Cluster, run_id: UUID) -> bool:
    return await cluster.commit(partial(control.pause, run_id=run_id))


async def resume(cluster: Cluster, run_id: UUID) -> bool:
    return await cluster.commit(partial(control.resume, run_id=run_id))


async def retry(cluster: Cluster, run_id: UUID, cost_budget: str | None = None) -> bool:
    limit = None if cost_budget is None else Decimal(cost_budget)
    return await cluster.commit(partial(control.retry_failed, run_id=run_id, cost_budget=limit))


async def stop(cluster: Cluster, run_id: UUID) -> bool:
    step = partial(progress.stop, run_id=run_id, as_=WorkflowStatus.CANCELLED, reason="enough")
    return await cluster.commit(step)


async def rerun(cluster: Cluster, run_id: UUID, name: str) -> control.Rerun:
    return await cluster.commit(partial(control.rerun, run_id=run_id, agent=name))


async def admit(cluster: Cluster) -> list[progress.LevelPlan]:
    return await cluster.commit(lambda c: progress.admit(c, max_running=1000))


async def read(cluster: Cluster, run_id: UUID) -> RunRecord:
    (record,) = await cluster.commit(lambda c: runs.read_runs(c, [run_id]))
    return record


async def events(cluster: Cluster, run_id: UUID) -> list[str]:
    rows = await cluster.rows("SELECT type FROM events WHERE run_id = :id ORDER BY id", id=run_id)
    return [row.type for row in rows if row.type.startswith("run_")]


async def end_level(
    cluster: Cluster, run_id: UUID, level: int, **status_of: AgentStatus
) -> progress.Progress:
    claim = await cluster.claim(run_id, level=level)
    await cluster.record(
        *(ending(one, status_of.get(one.name, AgentStatus.COMPLETED)) for one in claim.agents)
    )
    return await cluster.advance(run_id, level)


# ---- pause and resume --------------------------------------------------------------------------


async def test_a_paused_run_claims_nothing_and_holds_nothing(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b"), max_parallel_agents=1)
    (a,) = (await cluster.claim(run_id)).agents

    paused = await pause(cluster, run_id)
    (answer,) = await cluster.hold(wish(a))
    claim = await cluster.claim(run_id)

    assert paused
    assert answer.outcome is HoldOutcome.PAUSED
    assert claim.agents == ()
    assert (claim.more, claim.other_provider) == (False, None)
    assert (await read(cluster, run_id)).status is WorkflowStatus.PAUSED


async def test_a_call_held_before_the_pause_ends_and_is_booked(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b", "a"))
    (a,) = (await cluster.claim(run_id)).agents
    held = wish(a)
    await cluster.hold(held)

    await pause(cluster, run_id)
    (accepted,) = await cluster.record(ending(a, calls=[call(a, held, "0.25")]))
    moved = await cluster.advance(run_id, 0)

    assert accepted
    assert moved == progress.Progress()
    assert await cluster.statuses(run_id) == {"a": "completed", "b": "pending"}
    record = await read(cluster, run_id)
    assert (record.spent_usd, record.held_usd) == (Decimal("0.25"), Decimal(0))


async def test_a_resumed_run_is_admitted_again_where_it_stood(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b", "a"), agent("c", "a"))
    await end_level(cluster, run_id, 0)
    await pause(cluster, run_id)

    resumed = await resume(cluster, run_id)
    waiting = (await read(cluster, run_id)).status
    (plan,) = await admit(cluster)

    assert resumed
    assert waiting is WorkflowStatus.PENDING
    assert (plan.run_id, plan.level, plan.agents) == (run_id, 1, {"openai": 2})
    assert (await end_level(cluster, run_id, 1)).finished
    assert await events(cluster, run_id) == [
        *("run_created", "run_started", "run_paused", "run_resumed", "run_continued"),
        "run_completed",
    ]


async def test_a_level_that_ended_during_the_pause_is_left_when_the_run_goes_on(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"), agent("b", "a"))
    (a,) = (await cluster.claim(run_id)).agents
    await pause(cluster, run_id)
    await cluster.record(ending(a))

    await resume(cluster, run_id)
    (plan,) = await admit(cluster)
    moved = await cluster.advance(plan.run_id, plan.level)

    assert (plan.level, plan.agents) == (0, {})
    assert moved.plan is not None
    assert (moved.plan.level, moved.plan.agents) == (1, {"openai": 1})


async def test_a_paused_run_gives_its_place_to_another(cluster: Cluster) -> None:
    first = await cluster.start(agent("a"))
    await cluster.start(agent("a"))
    await cluster.rows(
        "UPDATE runs SET status = 'pending', started_at = NULL WHERE id <> :id RETURNING 1",
        id=first,
    )
    full = await cluster.commit(lambda c: progress.admit(c, max_running=1))
    await pause(cluster, first)

    (freed,) = await cluster.commit(lambda c: progress.admit(c, max_running=1))
    await resume(cluster, first)
    again = await cluster.commit(lambda c: progress.admit(c, max_running=1))

    assert full == again == []
    assert freed.run_id != first


async def test_a_pause_stops_the_clock_of_the_run(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), timeout=100)
    await cluster.rows(
        "UPDATE runs SET deadline_at = clock_timestamp() + interval '40 s' RETURNING 1"
    )

    await pause(cluster, run_id)
    (paused,) = await cluster.rows("SELECT deadline_at, time_left_s FROM runs")
    await resume(cluster, run_id)
    await pause(cluster, run_id)
    await resume(cluster, run_id)
    await admit(cluster)
    (going,) = await cluster.rows("""
        SELECT time_left_s, extract(epoch FROM deadline_at - clock_timestamp()) AS left FROM runs
    """)

    assert paused.deadline_at is None
    assert 35 < paused.time_left_s <= 40
    assert going.time_left_s is None
    assert 30 < going.left <= 40


async def test_a_run_can_be_paused_before_it_has_started(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    await cluster.rows("""
        UPDATE runs SET status = 'pending', started_at = NULL, deadline_at = NULL RETURNING 1
    """)

    paused = await pause(cluster, run_id)
    admitted = await admit(cluster)
    await resume(cluster, run_id)
    (plan,) = await admit(cluster)

    assert paused
    assert admitted == []
    assert plan.run_id == run_id
    assert (await events(cluster, run_id))[-1] == "run_started"


async def test_pausing_and_resuming_twice_is_harmless(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))

    done = [await pause(cluster, run_id) for _ in range(2)]
    done += [await resume(cluster, run_id) for _ in range(2)]

    assert done == [True, False, True, False]
    assert (await events(cluster, run_id)).count("run_paused") == 1


async def test_what_has_ended_is_neither_paused_nor_resumed(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    await end_level(cluster, run_id, 0)

    assert not await pause(cluster, run_id)
    assert not await resume(cluster, run_id)
    assert (await read(cluster, run_id)).status is WorkflowStatus.COMPLETED


async def test_a_paused_run_can_be_cancelled(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b"), max_parallel_agents=1)
    (a,) = (await cluster.claim(run_id)).agents
    await pause(cluster, run_id)

    stopped = await stop(cluster, run_id)
    (answer,) = await cluster.hold(wish(a))
    refused = (await pause(cluster, run_id), await resume(cluster, run_id))
    await cluster.record(ending(a, AgentStatus.PENDING, outcome="handed_back"))
    ended = await cluster.advance(run_id, 0)

    assert stopped
    assert answer.outcome is HoldOutcome.CLOSED
    assert refused == (False, False)
    assert ended.finished
    assert await cluster.statuses(run_id) == {"a": "cancelled", "b": "cancelled"}


async def test_what_is_given_back_while_a_run_is_stopped_does_not_keep_it_going(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"))
    (a,) = (await cluster.claim(run_id)).agents
    await stop(cluster, run_id)

    await cluster.record(ending(a, AgentStatus.PENDING, retry=True))
    left = await cluster.claim(run_id)
    ended = await cluster.advance(run_id, 0)

    assert not left.open
    assert ended.finished
    assert await cluster.statuses(run_id) == {"a": "cancelled"}


async def test_controls_that_come_at_once_leave_a_run_that_can_go_on(cluster: Cluster) -> None:
    run_id = await cluster.start(*(agent(name) for name in "abcdef"), max_parallel_agents=3)

    for _ in range(5):
        await asyncio.gather(
            *(pause(cluster, run_id) for _ in range(3)),
            *(resume(cluster, run_id) for _ in range(3)),
            *(admit(cluster) for _ in range(2)),
            cluster.claim(run_id, width=1),
        )
    await pause(cluster, run_id)
    (paused,) = await cluster.rows(
        "SELECT r.status, b.paused FROM runs r JOIN budgets b USING (id)"
    )
    await resume(cluster, run_id)
    await admit(cluster)
    (going,) = await cluster.rows("SELECT r.status, b.paused FROM runs r JOIN budgets b USING (id)")

    assert paused == ("paused", True)
    assert going == ("running", False)


# ---- retry_failed ------------------------------------------------------------------------------


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
    held = wish(a)
    await cluster.hold(held)
    await cluster.record(
        ending(a, AgentStatus.FAILED, [call(a, held, "0.4")], retry=True, recovery=True)
    )
    await cluster.advance(run_id, 0)

    await retry(cluster, run_id)
    await admit(cluster)
    (again,) = (await cluster.claim(run_id)).agents
    (answer,) = await cluster.hold(wish(again, "0.2"))

    assert (again.attempt, again.retries, again.spent_usd) == (2, 0, Decimal("0.4"))
    assert await cluster.rows("SELECT recoveries FROM agent_runs") == [(0,)]
    assert answer.outcome is HoldOutcome.EXCEEDED


async def test_a_retry_may_raise_the_budget_and_never_lowers_it(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), cost_budget=0.5)
    (a,) = (await cluster.claim(run_id)).agents
    held = wish(a)
    await cluster.hold(held)
    await cluster.record(ending(a, AgentStatus.FAILED, [call(a, held, "0.4")]))
    await cluster.advance(run_id, 0)

    with pytest.raises(RunConflict, match="cost_budget"):
        await retry(cluster, run_id, "0.1")
    retried = await retry(cluster, run_id, "0.8")
    await admit(cluster)
    (again,) = (await cluster.claim(run_id)).agents
    (answer,) = await cluster.hold(wish(again, "0.4"))

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
    held = wish(old)
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


# ---- rerun -------------------------------------------------------------------------------------


async def test_a_rerun_takes_over_what_does_not_depend_on_the_agent(cluster: Cluster) -> None:
    run_id = await cluster.start(
        *(agent("a"), agent("b"), agent("after_a", "a", prompt_template="{a}"), agent("last", "b")),
        tenant="acme",
    )
    await end_level(cluster, run_id, 0)
    await end_level(cluster, run_id, 1)

    made = await rerun(cluster, run_id, "after_a")
    (plan,) = await admit(cluster)
    (again,) = (await cluster.claim(made.run_id, level=1)).agents
    await cluster.record(ending(again))
    ended = await cluster.advance(made.run_id, 1)

    assert made.made
    assert (plan.run_id, plan.level, plan.agents) == (made.run_id, 1, {"openai": 1})
    assert (again.name, again.attempt, again.outputs) == ("after_a", 1, {"a": "output of a"})
    assert ended.finished
    record = await read(cluster, made.run_id)
    assert (record.rerun_of, record.rerun_from) == (run_id, "after_a")
    assert record.status is WorkflowStatus.COMPLETED
    assert record.spent_usd == 0
    assert (await cluster.rows("SELECT DISTINCT tenant FROM runs")) == [("acme",)]
    assert (await read(cluster, run_id)).status is WorkflowStatus.COMPLETED
    assert (await events(cluster, run_id))[-1] == "run_rerun"


async def test_a_rerun_also_runs_what_has_no_result_to_take_over(cluster: Cluster) -> None:
    run_id = await half_failed(cluster)

    made = await rerun(cluster, run_id, "after_good")

    assert await cluster.statuses(made.run_id) == {
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
    await end_level(cluster, made[0].run_id, 0)
    another = await rerun(cluster, run_id, "a")

    assert sum(one.made for one in made) == 1
    assert len({one.run_id for one in made}) == 1
    assert another.made


async def test_a_rerun_of_what_goes_on_or_of_no_agent_is_refused(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("writer"))

    with pytest.raises(RunConflict, match="running"):
        await rerun(cluster, run_id, "writer")
    await end_level(cluster, run_id, 0)
    with pytest.raises(WorkflowError, match="did you mean 'writer'"):
        await rerun(cluster, run_id, "writr")

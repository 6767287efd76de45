"""Pause, resume and cancel, step by step on a real database."""

import asyncio
from decimal import Decimal

import pytest

from app.domain.money import HoldOutcome
from app.domain.status import AgentStatus, WorkflowStatus
from app.storage import admission, progress
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request
from tests.support.run_control import admit, end_level, events, pause, read, resume, stop

pytestmark = pytest.mark.anyio


async def test_a_paused_run_claims_nothing_and_holds_nothing(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b"), max_parallel_agents=1)
    (a,) = (await cluster.claim(run_id)).agents

    paused = await pause(cluster, run_id)
    (answer,) = await cluster.hold(hold_request(a))
    claim = await cluster.claim(run_id)

    assert paused
    assert answer.outcome is HoldOutcome.PAUSED
    assert claim.agents == ()
    assert (claim.more, claim.other_provider) == (False, None)
    assert (await read(cluster, run_id)).status is WorkflowStatus.PAUSED


async def test_a_call_held_before_the_pause_ends_and_is_booked(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b", "a"))
    (a,) = (await cluster.claim(run_id)).agents
    held = hold_request(a)
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
    full = await cluster.commit(lambda c: admission.admit(c, max_running=1))
    await pause(cluster, first)

    (freed,) = await cluster.commit(lambda c: admission.admit(c, max_running=1))
    await resume(cluster, first)
    again = await cluster.commit(lambda c: admission.admit(c, max_running=1))

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
    (answer,) = await cluster.hold(hold_request(a))
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

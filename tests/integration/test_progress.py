import asyncio
from uuid import UUID

import pytest

from app.domain.money import HoldOutcome
from app.domain.run_options import RunOptions
from app.domain.status import AgentStatus, WorkflowStatus
from app.storage import admission, new_runs, progress, runs, stopping
from tests.support.database_cluster import Cluster, agent, ending, hold_request

pytestmark = pytest.mark.anyio


async def finish_level(
    cluster: Cluster, run_id: UUID, level: int, **status_of: AgentStatus
) -> progress.Progress:
    claim = await cluster.claim(run_id, level=level)
    await cluster.record(
        *(
            ending(claimed, status_of.get(claimed.name, AgentStatus.COMPLETED))
            for claimed in claim.agents
        )
    )
    return await cluster.advance(run_id, level)


async def run_status(cluster: Cluster, run_id: UUID) -> tuple[str, str | None]:
    (record,) = await cluster.commit(lambda c: runs.read_runs(c, [run_id]))
    return record.status, record.error


async def test_a_run_goes_through_its_levels_to_its_end(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b", "a"))

    first = await finish_level(cluster, run_id, 0)
    second = await finish_level(cluster, run_id, 1)

    assert first.plan is not None
    assert (first.plan.level, first.plan.agents) == (1, {"openai": 1})
    assert second.finished
    assert await run_status(cluster, run_id) == ("completed", None)


async def test_advancing_early_late_or_twice_changes_nothing(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b"), agent("c", "a"))
    a, b = (await cluster.claim(run_id)).agents
    await cluster.record(ending(a))

    early = await cluster.advance(run_id, 0)
    await cluster.record(ending(b))
    moves = await asyncio.gather(*(cluster.advance(run_id, 0) for _ in range(5)))
    late = await cluster.advance(run_id, 0)

    assert early == progress.Progress(open=True)
    assert late == progress.Progress()
    assert sum(move.plan is not None for move in moves) == 1


async def test_dependents_of_a_failed_agent_are_cancelled_with_the_reason(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(
        agent("a"),
        agent("b"),
        agent("b2"),
        agent("after_a", "a"),
        agent("after_after_a", "after_a"),
        agent("tolerant", "a", accept_missing_inputs=True),
        agent("after_b", "b"),
    )

    await finish_level(cluster, run_id, 0, a=AgentStatus.FAILED)
    last = await finish_level(cluster, run_id, 1)

    assert last.finished
    assert await cluster.statuses(run_id) == {
        "a": "failed",
        "b": "completed",
        "b2": "completed",
        "after_a": "cancelled",
        "after_after_a": "cancelled",
        "tolerant": "completed",
        "after_b": "completed",
    }
    assert await cluster.rows("SELECT error FROM agent_runs WHERE name = 'after_after_a'") == [
        ("upstream failed: after_a",)
    ]
    assert await run_status(cluster, run_id) == ("partially_completed", None)


async def test_a_critical_failure_ends_the_run_at_once(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a", priority=8), agent("b"), agent("c"), agent("d", "b"))

    ended = await finish_level(cluster, run_id, 0, a=AgentStatus.RATE_LIMITED)

    assert ended.finished
    status, error = await run_status(cluster, run_id)
    assert status == "failed"
    assert error is not None
    assert "critical" in error
    assert (await cluster.statuses(run_id))["d"] == "cancelled"


async def test_only_so_many_runs_are_admitted_by_priority_and_then_age(cluster: Cluster) -> None:
    async def create(name: str, priority: int) -> UUID:
        async def step(connection):  # type: ignore[no-untyped-def]
            from app.domain.workflow import Workflow

            workflow = Workflow(name=name, agents=[agent("a")], priority=priority)
            workflow_id = await runs.store_workflow(connection, workflow)
            return await new_runs.create_run(connection, workflow, workflow_id, {}, RunOptions())

        return await cluster.commit(step)

    old, urgent, young = await create("old", 5), await create("urgent", 9), await create("young", 5)

    first = await cluster.commit(lambda c: admission.admit(c, max_running=2))
    second = await cluster.commit(lambda c: admission.admit(c, max_running=2))
    third = await cluster.commit(lambda c: admission.admit(c, max_running=3))

    assert {plan.run_id for plan in first} == {urgent, old}
    assert second == []
    assert [plan.run_id for plan in third] == [young]


async def test_concurrent_admissions_never_admit_too_many(cluster: Cluster) -> None:
    for _ in range(10):
        await cluster.start(agent("a"))
    await cluster.rows("UPDATE runs SET status = 'pending', started_at = NULL RETURNING id")

    plans = await asyncio.gather(
        *(cluster.commit(lambda c: admission.admit(c, max_running=4)) for _ in range(5))
    )

    assert sum(len(each) for each in plans) == 4


async def test_stopping_a_run_lets_no_call_start_any_more(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b"), max_parallel_agents=1)
    (a,) = (await cluster.claim(run_id)).agents

    stopped = await cluster.commit(
        lambda c: stopping.stop(c, run_id, as_=WorkflowStatus.CANCELLED, reason="enough")
    )
    (answer,) = await cluster.hold(hold_request(a))
    claim = await cluster.claim(run_id)
    await cluster.record(ending(a, AgentStatus.CANCELLED))
    ended = await cluster.advance(run_id, 0)

    assert stopped
    assert answer.outcome is HoldOutcome.CLOSED
    assert claim.agents == ()
    assert ended.finished
    assert await cluster.statuses(run_id) == {"a": "cancelled", "b": "cancelled"}
    assert await run_status(cluster, run_id) == ("cancelled", "enough")


async def test_stopping_twice_or_after_the_end_is_harmless(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))

    results = [
        await cluster.commit(
            lambda c: stopping.stop(c, run_id, as_=WorkflowStatus.CANCELLED, reason="enough")
        )
        for _ in range(2)
    ]

    assert results == [True, False]
    assert await run_status(cluster, run_id) == ("cancelled", "enough")

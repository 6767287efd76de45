import asyncio
from dataclasses import replace

import pytest

from app.domain.agent import Agent
from app.domain.money import HoldOutcome
from app.domain.status import AgentStatus, WorkflowStatus
from app.domain.workflow import Workflow
from app.errors import RunConflict
from app.storage import stopping
from app.storage.fail_early import fail_early
from tests.support.database_cluster import Cluster, agent, ending, hold_request
from tests.support.nesting import (
    CHECK,
    check,
    claim_check,
    inner_of,
    nested,
    start,
    sub_run,
)
from tests.support.run_control import admit, end_level, pause, read, resume, retry, stop

pytestmark = pytest.mark.anyio


async def test_cancelling_the_outer_run_cancels_the_inner_one_in_the_same_transaction(
    cluster: Cluster,
) -> None:
    outer, inner = await nested(cluster)

    assert await stop(cluster, outer)

    assert [(await read(cluster, id_)).status for id_ in (outer, inner)] == ["cancelled"] * 2
    assert (await check(cluster, outer)).status == "cancelled"


async def test_the_outer_run_ends_after_the_calls_of_the_inner_one(cluster: Cluster) -> None:
    outer, inner = await nested(cluster)
    (x,) = (await cluster.claim(inner)).agents
    hold = replace(hold_request(x), budget_ids=(inner, outer))

    await stop(cluster, outer)
    open_ = [(await read(cluster, id_)).status for id_ in (outer, inner)]
    (refused,) = await cluster.hold(hold)
    await cluster.record(ending(x, AgentStatus.CANCELLED, output=None, outcome="cancelled"))
    ended = await cluster.advance(inner, 0)
    assert ended.parent is not None
    last = await cluster.advance(ended.parent.run_id, ended.parent.level)

    assert open_ == ["running"] * 2
    assert refused.outcome is HoldOutcome.CLOSED
    assert last.finished
    assert [(await read(cluster, id_)).status for id_ in (outer, inner)] == ["cancelled"] * 2


async def test_a_cancel_and_a_start_at_once_leave_no_inner_run_behind(cluster: Cluster) -> None:
    for _ in range(5):
        outer = await cluster.start(CHECK)
        wished = sub_run(await claim_check(cluster, outer))

        answer, stopped = await asyncio.gather(start(cluster, wished), stop(cluster, outer))

        assert stopped
        assert answer in ("waiting", "stopped")
        left = await cluster.rows(
            "SELECT id FROM runs WHERE ancestors <> '{}' AND finished_at IS NULL"
        )
        assert left == []


async def test_pausing_the_outer_run_pauses_the_inner_one_and_resuming_goes_on(
    cluster: Cluster,
) -> None:
    outer, inner = await nested(cluster)

    assert await pause(cluster, outer)
    states = [(await read(cluster, id_)).status for id_ in (outer, inner)]
    alone = await resume(cluster, inner)
    assert await resume(cluster, outer)
    await admit(cluster)

    assert states == ["paused"] * 2
    assert not alone
    assert [(await read(cluster, id_)).status for id_ in (outer, inner)] == ["running"] * 2


async def test_nothing_inner_starts_while_the_outer_run_is_paused(cluster: Cluster) -> None:
    outer = await cluster.start(CHECK)
    claimed = await claim_check(cluster, outer)
    await pause(cluster, outer)

    assert await start(cluster, sub_run(claimed)) == "paused"


async def test_a_run_bound_to_fail_stops_what_is_inside(cluster: Cluster) -> None:
    outer, inner = await nested(cluster, agent("critical", priority=9))
    (critical,) = (await cluster.claim(outer)).agents
    await cluster.record(ending(critical, AgentStatus.FAILED, output=None, error="no"))

    await cluster.commit(lambda c: fail_early(c, [outer]))
    await cluster.advance(outer, 0)

    assert [(await read(cluster, id_)).status for id_ in (outer, inner)] == ["failed", "cancelled"]


async def test_a_retry_tries_again_what_failed_of_the_same_inner_run(cluster: Cluster) -> None:
    outer, inner = await nested(cluster)
    await end_level(cluster, inner, 0)
    await cluster.commit(
        lambda c: stopping.stop(c, inner, as_=WorkflowStatus.FAILED, reason="too late")
    )
    await cluster.advance(outer, 0)
    assert (await check(cluster, outer)).error.endswith("failed: too late")

    assert await retry(cluster, outer)
    await admit(cluster)
    answer = await start(cluster, sub_run(await claim_check(cluster, outer)))
    (plan,) = await admit(cluster)
    ended = await end_level(cluster, inner, 1)
    await cluster.advance(outer, 0)

    assert answer == "waiting"
    assert (plan.run_id, plan.level) == (inner, 1)
    assert ended.finished
    assert (await check(cluster, outer)).output == {"x": "output of x", "y": "output of y"}
    assert (await read(cluster, outer)).status == "completed"


async def test_an_inner_run_is_retried_with_the_run_around_it_only(cluster: Cluster) -> None:
    outer, inner = await nested(cluster)
    await stop(cluster, outer)

    with pytest.raises(RunConflict, match=f"sub-workflow of run {outer}: retry the outer run"):
        await retry(cluster, inner)


async def test_an_inner_run_that_is_cancelled_alone_cancels_its_agent(cluster: Cluster) -> None:
    outer, inner = await nested(cluster, agent("beside"))

    await stop(cluster, inner)
    await end_level(cluster, outer, 0)

    assert (await check(cluster, outer)).status == "cancelled"
    assert (await read(cluster, outer)).status == "partially_completed"


async def test_inner_runs_of_inner_runs_stop_with_the_outermost(cluster: Cluster) -> None:
    middle = Workflow(name="middle", agents=[CHECK])
    outer = await cluster.start(
        Agent(name="check", kind="workflow", config={"workflow": middle}), name="outer"
    )
    await start(cluster, sub_run(await claim_check(cluster, outer), middle))
    await admit(cluster)
    between = await inner_of(cluster, outer)
    await start(cluster, sub_run(await claim_check(cluster, between)))
    await admit(cluster)
    innermost = await inner_of(cluster, between)

    await stop(cluster, outer)

    states = [(await read(cluster, id_)).status for id_ in (outer, between, innermost)]
    assert states == ["cancelled"] * 3

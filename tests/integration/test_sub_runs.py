import asyncio
from dataclasses import replace
from decimal import Decimal
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.costs.reports import ReportFilter, costs_by
from app.domain.agent import Agent
from app.domain.money import HoldOutcome
from app.domain.run_options import RunOptions
from app.domain.status import AgentStatus
from app.domain.workflow import Workflow
from app.scheduler.watchdog import STUCK
from app.storage import admission, new_runs, progress, runs
from app.storage.control import retry_failed
from app.storage.fan_out import Items
from app.storage.rerun import rerun
from app.storage.sub_runs import ParentStep
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request
from tests.support.nesting import (
    CHECK,
    INNER,
    check,
    claim_check,
    inner_of,
    nested,
    start,
    sub_run,
)
from tests.support.run_control import admit, end_level, read

pytestmark = pytest.mark.anyio


async def test_the_end_of_the_inner_run_is_the_end_of_the_agent(cluster: Cluster) -> None:
    outer, inner = await nested(cluster, agent("after", "check"))

    await end_level(cluster, inner, 0)
    ended = await end_level(cluster, inner, 1)
    moved = await cluster.advance(outer, 0)

    assert ended.parent == ParentStep(run_id=outer, level=0, failed=False)
    ended_agent = await check(cluster, outer)
    assert ended_agent.status == "completed"
    assert ended_agent.output == {"x": "output of x", "y": "output of y"}
    assert moved.plan is not None
    assert moved.plan.level == 1


async def test_who_waits_for_an_inner_run_has_neither_lease_nor_place(cluster: Cluster) -> None:
    outer, _ = await nested(cluster, agent("beside"), max_parallel_agents=1)

    waiting = await check(cluster, outer)
    beside = await cluster.claim(outer)

    assert (waiting.status, waiting.worker, waiting.lease_expires_at) == ("waiting", None, None)
    assert len(beside.agents) == 1


async def test_a_level_is_open_as_long_as_an_inner_run_is(cluster: Cluster) -> None:
    outer, _ = await nested(cluster)

    claim = await cluster.claim(outer, provider="scheduler")

    assert claim.open
    assert await cluster.advance(outer, 0) == progress.Progress(open=True)


async def test_the_watchdog_finds_a_run_whose_sub_workflow_has_ended(cluster: Cluster) -> None:
    outer, inner = await nested(cluster)
    waiting = await cluster.rows(str(STUCK))

    await end_level(cluster, inner, 0)
    await end_level(cluster, inner, 1)

    assert waiting == []
    assert await cluster.rows(str(STUCK)) == [(outer, 0)]


async def test_starting_twice_at_once_makes_one_inner_run(cluster: Cluster) -> None:
    outer = await cluster.start(CHECK)
    wished = sub_run(await claim_check(cluster, outer))

    answers = await asyncio.gather(*(start(cluster, wished) for _ in range(4)))

    assert sorted(answers) == ["fenced", "fenced", "fenced", "waiting"]
    await inner_of(cluster, outer)  # there is exactly one


async def test_the_database_itself_refuses_a_second_inner_run(cluster: Cluster) -> None:
    outer, inner = await nested(cluster)
    other = await cluster.start(agent("a"))

    with pytest.raises(IntegrityError, match="uq_runs_parent_agent_run_id"):
        await cluster.rows(
            "UPDATE runs SET ancestors = ARRAY[CAST(:outer AS uuid)], parent_agent_run_id ="
            " (SELECT parent_agent_run_id FROM runs WHERE id = :inner)"
            " WHERE id = :other RETURNING id",
            outer=outer,
            inner=inner,
            other=other,
        )


async def test_an_inner_run_is_admitted_although_all_places_are_taken(cluster: Cluster) -> None:
    outer = await cluster.start(CHECK)
    await start(cluster, sub_run(await claim_check(cluster, outer)))

    (plan,) = await cluster.commit(lambda c: admission.admit(c, max_running=1))
    third = await cluster.commit(lambda c: admission.admit(c, max_running=1))

    assert plan.run_id == await inner_of(cluster, outer)
    assert third == []


async def test_an_inner_run_takes_no_place_from_others(cluster: Cluster) -> None:
    await nested(cluster)
    waiting = Workflow(name="other", agents=[agent("a")])

    async def create(connection: AsyncConnection) -> UUID:
        id_ = await runs.store_workflow(connection, waiting)
        return await new_runs.create_run(connection, waiting, id_, {}, RunOptions())

    other = await cluster.commit(create)
    admitted = await cluster.commit(lambda c: admission.admit(c, max_running=2))

    assert [plan.run_id for plan in admitted] == [other]


async def test_holds_of_an_inner_run_count_on_the_budgets_of_all_runs_around_it(
    cluster: Cluster,
) -> None:
    outer, inner = await nested(cluster, cost_budget=0.3)
    (x,) = (await cluster.claim(inner)).agents
    too_much, fits = (
        replace(hold_request(x, amount), budget_ids=(inner, outer)) for amount in ("0.4", "0.2")
    )

    (refused,) = await cluster.hold(too_much)
    (placed,) = await cluster.hold(fits)
    await cluster.record(ending(x, calls=[call(x, fits, "0.15")]))

    assert refused.outcome is HoldOutcome.EXCEEDED
    assert placed.outcome is HoldOutcome.PLACED
    spent = [(await read(cluster, id_)).spent_usd for id_ in (outer, inner)]
    assert spent == [Decimal("0.15")] * 2


async def test_the_cost_limit_of_the_agent_is_the_budget_of_the_inner_run(
    cluster: Cluster,
) -> None:
    _, inner = await nested(cluster)

    assert (await read(cluster, inner)).limit_usd == Decimal("0.5")


async def test_costs_of_the_inner_run_show_with_its_agent_and_once_in_all(
    cluster: Cluster,
) -> None:
    outer, inner = await nested(cluster)
    (x,) = (await cluster.claim(inner)).agents
    hold = hold_request(x, "0.2")
    await cluster.hold(hold)
    await cluster.record(ending(x, calls=[call(x, hold, "0.1")]))

    (shown,) = await cluster.commit(lambda c: runs.read_agent_runs(c, outer))
    (total,) = await cluster.rows("SELECT sum(cost_usd) AS cost_usd FROM costs_daily")
    of_run = await cluster.commit(lambda c: costs_by(c, ("run",), ReportFilter(run_id=outer)))

    assert [(line.key, line.cost_usd) for line in of_run] == [(str(inner), Decimal("0.1"))]
    assert (shown.spent_usd, shown.sub_run_id) == (Decimal("0.1"), inner)
    assert total.cost_usd == Decimal("0.1")


async def test_a_failed_inner_run_fails_the_agent_with_its_reason(cluster: Cluster) -> None:
    strict = replace(INNER, allow_partial_completion=False)
    outer = await cluster.start(CHECK)
    await start(cluster, sub_run(await claim_check(cluster, outer), strict))
    await admit(cluster)
    inner = await inner_of(cluster, outer)

    ended = await end_level(cluster, inner, 0, x=AgentStatus.FAILED)

    assert ended.parent == ParentStep(run_id=outer, level=0, failed=True)
    failed = await check(cluster, outer)
    assert (failed.status, failed.error_class) == ("failed", "SubWorkflowFailed")
    assert failed.error == (
        f"run {inner} of workflow inner failed: "
        "1 of 2 agents failed and partial completion is not allowed"
    )


async def test_what_an_inner_run_did_not_complete_is_null(cluster: Cluster) -> None:
    outer, inner = await nested(cluster)

    await end_level(cluster, inner, 0, x=AgentStatus.FAILED)

    assert (await read(cluster, inner)).status == "partially_completed"
    assert (await check(cluster, outer)).output == {"x": None, "y": None}


async def test_a_run_whose_sub_workflow_completed_in_part_did_so_too(cluster: Cluster) -> None:
    outer, inner = await nested(cluster, agent("beside"))
    await end_level(cluster, outer, 0)
    await end_level(cluster, inner, 0, x=AgentStatus.FAILED)
    await cluster.advance(outer, 0)

    told = await check(cluster, outer)
    assert (told.status, told.error_class) == ("completed", "SubWorkflowPartial")
    assert told.error == f"run {inner} of workflow inner completed in part"
    assert (await read(cluster, outer)).status == "partially_completed"
    assert await cluster.commit(partial(rerun, run_id=outer, agent="check")) != outer


async def test_a_retry_repairs_the_agents_of_a_sub_workflow_that_completed_in_part(
    cluster: Cluster,
) -> None:
    outer, inner = await nested(cluster, agent("beside"), agent("after", "check"))
    await end_level(cluster, outer, 0)
    await end_level(cluster, inner, 0, x=AgentStatus.FAILED)
    await cluster.advance(outer, 0)
    await end_level(cluster, outer, 1)

    assert await cluster.commit(partial(retry_failed, run_id=outer))
    await admit(cluster)
    answer = await start(cluster, sub_run(await claim_check(cluster, outer)))
    await admit(cluster)
    claimed = await cluster.claim(inner)
    await cluster.record(*(ending(one) for one in claimed.agents))
    await cluster.advance(inner, 0)
    await end_level(cluster, inner, 1)
    moved = await cluster.advance(outer, 0)

    assert answer == "waiting"
    assert [one.name for one in claimed.agents] == ["x"]
    assert (await check(cluster, outer)).output == {"x": "output of x", "y": "output of y"}
    assert moved.plan is not None  # what read the partial result runs again
    assert (await cluster.statuses(outer))["after"] == "pending"


async def test_items_may_be_sub_workflows(cluster: Cluster) -> None:
    each = Agent(name="check", kind="workflow", config={"workflow": INNER}, for_each="documents")
    outer = await cluster.start(each)
    listed = await claim_check(cluster, outer)
    await cluster.record(
        ending(
            listed,
            AgentStatus.WAITING,
            outcome="running",
            output=None,
            items=Items(values=[1, 2], reads=[]),
        )
    )
    for claimed in (await cluster.claim(outer, provider="scheduler")).agents:
        await start(cluster, sub_run(claimed))
    plans = await admit(cluster)

    early = await cluster.advance(outer, 0)
    for plan in plans:
        await end_level(cluster, plan.run_id, 0)
        await end_level(cluster, plan.run_id, 1)
    last = await cluster.advance(outer, 0)

    assert early == progress.Progress(open=True)
    assert last.finished
    assert (await check(cluster, outer)).output == [{"x": "output of x", "y": "output of y"}] * 2

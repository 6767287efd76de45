"""Lists: their expansion, their elements and their collection, on real SQL.

The file is over 400 lines because all of it is about the same rows.
"""

import asyncio
from dataclasses import replace
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.status import AgentStatus
from app.scheduler.watchdog import STUCK
from app.storage import progress
from app.storage.claims import ClaimedAgent, ClaimRequest, claim
from app.storage.fail_early import fail_early
from app.storage.fan_out import Items
from app.storage.prune import prune_batch
from app.storage.records import Record
from tests.support.database_cluster import Cluster, agent, ending, hold_request
from tests.support.pace import at_this_pace
from tests.support.run_control import admit, end_level, pause, read, rerun, resume, retry, stop

pytestmark = pytest.mark.anyio

LIST = agent("list", for_each="documents", prompt_template="{item}")


def expansion(claimed: ClaimedAgent, *values: Any) -> Record:
    return ending(
        claimed,
        AgentStatus.WAITING,
        outcome="running",
        event="agent_expanded",
        output=None,
        items=Items(values=values, reads=[]),
    )


async def expanded(cluster: Cluster, *values: Any, **fields: Any) -> UUID:
    rules = {name: fields.pop(name) for name in ("allow_partial_completion",) if name in fields}
    more = fields.pop("more", ())
    run_id = await cluster.start(replace(LIST, **fields), *more, **rules)
    (claimed,) = (await cluster.claim(run_id, width=1)).agents
    assert await cluster.record(expansion(claimed, *values)) == [True]
    return run_id


async def test_what_reads_a_list_starts_after_it_although_one_transaction_does_both(
    cluster: Cluster,
) -> None:
    run_id = await expanded(cluster, 1, 2, more=[agent("reader", "list")])
    await end_items(cluster, run_id)

    async def move_on(connection: AsyncConnection) -> None:
        await progress.advance(connection, [(run_id, 0)])
        requests = [ClaimRequest(run_id=run_id, level=1, provider="openai", width=1)]
        await claim(connection, requests, worker="w", lease_s=15, max_recoveries=3, locked=True)

    await cluster.commit(move_on)

    [(ended, started, attempted)] = await cluster.rows("""
        SELECT d.finished_at, a.started_at, t.started_at FROM agent_runs d, agent_runs a
        JOIN attempts t ON t.agent_run_id = a.id WHERE d.name = 'list' AND a.name = 'reader'
    """)
    assert ended <= started
    assert ended <= attempted


async def end_items(cluster: Cluster, run_id: UUID, *failing: int) -> None:
    claim = await cluster.claim(run_id)
    await cluster.record(
        *(
            ending(one, AgentStatus.FAILED, output=None, error="no", error_class="BadRequest")
            if one.item_index in failing
            else ending(one, output={"of": one.item})
            for one in claim.agents
        )
    )


async def parent(cluster: Cluster, run_id: UUID) -> Any:
    (row,) = await cluster.rows(
        "SELECT * FROM agent_runs WHERE run_id = :id AND item_count IS NOT NULL", id=run_id
    )
    return row


async def test_each_element_is_claimed_as_an_agent_run_of_its_own(cluster: Cluster) -> None:
    run_id = await expanded(cluster, "a", {"b": 1}, None)

    claim = await cluster.claim(run_id)

    assert [(one.name, one.item_index, one.item) for one in claim.agents] == [
        ("list[0]", 0, "a"),
        ("list[1]", 1, {"b": 1}),
        ("list[2]", 2, None),
    ]


async def test_the_outputs_come_back_in_the_order_of_the_list(cluster: Cluster) -> None:
    run_id = await expanded(cluster, 5, 6, 7, more=[agent("after", "list")])

    await end_items(cluster, run_id)
    moved = await cluster.advance(run_id, 0)

    collected = await parent(cluster, run_id)
    assert collected.output == [{"of": 5}, {"of": 6}, {"of": 7}]
    assert collected.status == "completed"
    assert moved.plan is not None
    assert moved.plan.level == 1


async def test_a_level_with_an_open_item_does_not_advance(cluster: Cluster) -> None:
    run_id = await expanded(cluster, 1, 2)
    first, second = (await cluster.claim(run_id)).agents
    await cluster.record(ending(first))

    early = await cluster.advance(run_id, 0)
    await cluster.record(ending(second))
    moves = await asyncio.gather(*(cluster.advance(run_id, 0) for _ in range(4)))

    assert early == progress.Progress(open=True)
    assert sum(move.finished for move in moves) == 1
    told = await cluster.rows(
        "SELECT * FROM events WHERE run_id = :id AND type = 'agent_completed'"
        " AND data->>'agent' = 'list'",
        id=run_id,
    )
    assert len(told) == 1


async def test_the_watchdog_finds_a_list_whose_last_item_nobody_told_of(cluster: Cluster) -> None:
    run_id = await expanded(cluster, 1, 2)
    first, second = (await cluster.claim(run_id)).agents
    await cluster.record(ending(first))
    open_ = await cluster.rows(str(STUCK))

    await cluster.record(ending(second))

    assert open_ == []
    assert await cluster.rows(str(STUCK)) == [(run_id, 0)]


async def test_calls_of_items_that_nobody_saw_end_are_booked_under_the_agents_name(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(LIST)
    (claimed,) = (await cluster.claim(run_id)).agents
    await cluster.record(expansion(claimed, 1))
    (item,) = (await cluster.claim(run_id, lease_s=0.0)).agents
    await cluster.hold(hold_request(item))

    await cluster.recover()

    rows = await cluster.rows("SELECT agent, kind FROM cost_entries WHERE run_id = :id", id=run_id)
    assert rows == [("list", "unconfirmed")]


async def test_a_list_is_written_once_whoever_records_it_again(cluster: Cluster) -> None:
    run_id = await cluster.start(LIST)
    (claimed,) = (await cluster.claim(run_id)).agents

    accepted = [
        await cluster.record(expansion(claimed, 1, 2)),
        await cluster.record(expansion(claimed, 1, 2)),
    ]

    assert accepted == [[True], [False]]
    assert sorted(await cluster.statuses(run_id)) == ["list", "list[0]", "list[1]"]


async def test_a_worker_lost_before_its_list_is_recorded_leaves_nothing_behind(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(LIST)
    (lost,) = (await cluster.claim(run_id, lease_s=0.0)).agents
    await cluster.recover()
    (again,) = (await cluster.claim(run_id)).agents

    late = await cluster.record(expansion(lost, 1))
    accepted = await cluster.record(expansion(again, 1, 2))

    assert (late, accepted) == ([False], [True])
    assert sorted(await cluster.statuses(run_id)) == ["list", "list[0]", "list[1]"]


async def test_items_count_for_the_parallelism_of_the_run_and_the_waiting_agent_does_not(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(LIST, max_parallel_agents=2)
    (claimed,) = (await cluster.claim(run_id)).agents
    await cluster.record(expansion(claimed, *range(5)))

    first = await cluster.claim(run_id, width=10)
    second = await cluster.claim(run_id, width=10)

    assert (len(first.agents), len(second.agents)) == (2, 0)
    assert second.open
    assert not second.room


async def test_a_failed_item_is_null_and_the_run_partially_completed(cluster: Cluster) -> None:
    run_id = await expanded(cluster, 1, 2, 3)

    await end_items(cluster, run_id, 1)
    await cluster.advance(run_id, 0)

    assert (await parent(cluster, run_id)).output == [{"of": 1}, None, {"of": 3}]
    assert (await read(cluster, run_id)).status == "partially_completed"


@pytest.mark.parametrize(
    ("failing", "fields"),
    [
        ([0, 1, 2], {}),
        ([1], {"priority": 8}),
        ([1], {"allow_partial_completion": False}),
    ],
    ids=["all items", "critical", "nothing may fail"],
)
async def test_an_agent_fails_with_its_items_where_it_cannot_do_without(
    cluster: Cluster, failing: list[int], fields: dict[str, Any]
) -> None:
    run_id = await expanded(cluster, 1, 2, 3, **fields)

    await end_items(cluster, run_id, *failing)
    await cluster.advance(run_id, 0)

    failed = await parent(cluster, run_id)
    assert (failed.status, failed.error_class) == ("failed", "ItemsFailed")
    assert failed.error == f"{len(failing)} of 3 items failed; list[{failing[0]}]: no"
    assert (await read(cluster, run_id)).status == "failed"


async def test_most_items_may_fail_without_failing_half_of_the_agents(cluster: Cluster) -> None:
    run_id = await expanded(cluster, *range(9), more=[agent("beside")])

    await end_items(cluster, run_id, *range(8))
    await cluster.advance(run_id, 0)

    assert (await read(cluster, run_id)).status == "partially_completed"


async def test_what_is_left_of_a_critical_list_does_not_start_any_more(cluster: Cluster) -> None:
    run_id = await expanded(cluster, *range(5), priority=9)
    one, other = (await cluster.claim(run_id, width=2)).agents
    await cluster.record(ending(one, AgentStatus.FAILED, output=None, error="no"))

    (reason,) = await cluster.commit(lambda c: fail_early(c, [run_id]))
    left = await cluster.claim(run_id)
    await cluster.record(ending(other))
    await cluster.advance(run_id, 0)

    assert reason
    assert not left.agents
    assert (await parent(cluster, run_id)).status == "failed"
    assert (await read(cluster, run_id)).status == "failed"


async def test_a_retry_runs_failed_items_only_and_collects_all_of_them(cluster: Cluster) -> None:
    run_id = await expanded(cluster, 1, 2, 3)
    await end_items(cluster, run_id, 1)
    await cluster.advance(run_id, 0)

    assert await retry(cluster, run_id)
    (plan,) = await admit(cluster)
    again = await cluster.claim(run_id)
    await cluster.record(*(ending(one, output="now") for one in again.agents))
    await cluster.advance(run_id, 0)

    assert plan.agents == {"openai": 1}
    assert [one.name for one in again.agents] == ["list[1]"]
    assert (await parent(cluster, run_id)).output == [{"of": 1}, "now", {"of": 3}]
    assert (await read(cluster, run_id)).status == "completed"


async def test_cancelling_ends_the_items_and_a_retry_goes_on_with_them(cluster: Cluster) -> None:
    run_id = await expanded(cluster, *range(4))
    done, running = (await cluster.claim(run_id, width=2)).agents
    await cluster.record(ending(done, output="done"))

    assert await stop(cluster, run_id)
    await cluster.record(ending(running, AgentStatus.CANCELLED, output=None, outcome="cancelled"))
    ended = await cluster.advance(run_id, 0)
    assert await retry(cluster, run_id)
    await admit(cluster)
    await end_items(cluster, run_id)
    await cluster.advance(run_id, 0)

    assert ended.finished
    assert (await parent(cluster, run_id)).output == ["done", *({"of": n} for n in (1, 2, 3))]


async def test_a_list_cancelled_after_its_last_item_is_collected_when_a_retry_comes_to_it(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("x"), agent("y"), replace(LIST, dependencies=["y"]))
    await end_level(cluster, run_id, 0, x=AgentStatus.FAILED)
    (claimed,) = (await cluster.claim(run_id, level=1)).agents
    await cluster.record(expansion(claimed, 1))
    (item,) = (await cluster.claim(run_id, level=1)).agents
    await cluster.record(ending(item, output="kept"))
    await stop(cluster, run_id)

    assert await retry(cluster, run_id)
    await admit(cluster)
    await end_level(cluster, run_id, 0)
    stuck = await cluster.rows(str(STUCK))
    await cluster.advance(run_id, 1)

    assert stuck == [(run_id, 1)]
    assert (await parent(cluster, run_id)).output == ["kept"]
    assert (await read(cluster, run_id)).status == "completed"


async def test_the_attempt_of_a_list_ends_with_a_cancel_and_goes_on_with_a_retry(
    cluster: Cluster,
) -> None:
    run_id = await expanded(cluster, 1, 2)
    seen = []
    for step in (stop, retry, stop):
        await step(cluster, run_id)
        (attempt,) = await cluster.rows(
            "SELECT outcome, error_class, finished_at IS NULL AS open FROM attempts"
        )
        seen.append(tuple(attempt))

    assert seen == [
        ("cancelled", "RunStopped", False),
        ("running", None, True),
        ("cancelled", "RunStopped", False),
    ]


async def test_a_list_that_is_collected_anew_has_one_accepted_outcome(cluster: Cluster) -> None:
    run_id = await expanded(cluster, 1, 2)
    await end_items(cluster, run_id, 1)
    await cluster.advance(run_id, 0)

    await retry(cluster, run_id)
    await stop(cluster, run_id)

    assert (await parent(cluster, run_id)).status == "cancelled"
    outcomes = await cluster.rows(
        "SELECT outcome FROM attempts WHERE agent_run_id = :id",
        id=(await parent(cluster, run_id)).id,
    )
    assert outcomes == [("cancelled",)]


async def test_a_pause_keeps_items_from_starting_and_a_resume_goes_on(cluster: Cluster) -> None:
    run_id = await expanded(cluster, 1, 2)

    assert await pause(cluster, run_id)
    paused = await cluster.claim(run_id)
    assert await resume(cluster, run_id)
    (plan,) = await admit(cluster)

    assert not paused.agents
    assert plan.agents == {"openai": 2}


async def test_a_run_resumed_after_its_last_item_is_collected(cluster: Cluster) -> None:
    run_id = await expanded(cluster, 1)
    (only,) = (await cluster.claim(run_id)).agents
    await pause(cluster, run_id)
    await cluster.record(ending(only, output="x"))

    await resume(cluster, run_id)
    (plan,) = await admit(cluster)
    await cluster.advance(run_id, plan.level)

    assert (await parent(cluster, run_id)).output == ["x"]


async def test_a_rerun_takes_over_the_list_and_not_its_items(cluster: Cluster) -> None:
    run_id = await expanded(cluster, 1, 2, more=[agent("after", "list")])
    await end_items(cluster, run_id)
    await cluster.advance(run_id, 0)
    await end_items(cluster, run_id)  # no agent of level 0 is left
    (after,) = (await cluster.claim(run_id, level=1)).agents
    await cluster.record(ending(after))
    await cluster.advance(run_id, 1)

    again = await rerun(cluster, run_id, "after")

    assert await cluster.statuses(again) == {"list": "completed", "after": "pending"}


async def test_pruning_removes_the_elements(cluster: Cluster) -> None:
    run_id = await expanded(cluster, "secret")
    await end_items(cluster, run_id)
    await cluster.advance(run_id, 0)

    await cluster.commit(lambda c: prune_batch(c, older_than_s=0))

    rows = await cluster.rows("SELECT item, output FROM agent_runs WHERE run_id = :id", id=run_id)
    assert [tuple(row) for row in rows] == [(None, None)] * 2


async def test_the_database_itself_refuses_a_second_run_of_an_element(cluster: Cluster) -> None:
    run_id = await expanded(cluster, 1)

    with pytest.raises(IntegrityError, match="uq_agent_runs_parent_id_item_index"):
        await cluster.rows(
            "UPDATE agent_runs SET parent_id = (SELECT id FROM agent_runs WHERE run_id = :id"
            " AND name = 'list'), item_index = 0 WHERE run_id = :other RETURNING id",
            id=run_id,
            other=await cluster.start(agent("x")),
        )


async def test_too_large_a_list_of_outputs_fails_the_agent_and_keeps_the_items(
    cluster: Cluster,
) -> None:
    run_id = await expanded(cluster, 1, 2)
    await end_items(cluster, run_id)

    await cluster.commit(lambda c: progress.advance(c, [(run_id, 0)], max_collected_bytes=10))

    failed = await parent(cluster, run_id)
    assert (failed.status, failed.error_class) == ("failed", "ResultTooLarge")
    assert "engine.max_collected_bytes is 10" in failed.error


async def test_ten_thousand_elements_are_written_and_collected_in_under_two_seconds_each(
    cluster: Cluster,
) -> None:
    started = monotonic()
    run_id = await expanded(cluster, *({"text": f"document {n} " * 20} for n in range(10_000)))
    written_s = monotonic() - started
    await cluster.rows(
        "UPDATE agent_runs SET status = 'completed', output = item"
        " WHERE run_id = :id AND parent_id IS NOT NULL RETURNING 1",
        id=run_id,
    )

    started = monotonic()
    await cluster.advance(run_id, 0)
    collected_s = monotonic() - started

    assert len((await parent(cluster, run_id)).output) == 10_000
    assert written_s < at_this_pace(2)
    assert collected_s < at_this_pace(2)

"""Rounds of a run: what a retry makes pending, and what it leaves alone, on real SQL."""

from typing import Any
from uuid import UUID

import pytest

from app.domain.status import AgentStatus
from app.storage.claims import ClaimedAgent
from app.storage.fan_out import Items
from app.storage.records import Record
from tests.support.database_cluster import Cluster, agent, ending
from tests.support.run_control import admit, end_level, read, rerun, retry, stop

pytestmark = pytest.mark.anyio

FIRST = agent("first", for_each="documents", prompt_template="{item}")
SECOND = agent("second", "first", for_each="first", prompt_template="{item}")
END = agent("end", "second")


def expansion(claimed: ClaimedAgent, *values: Any) -> Record:
    """The record of a list; the hash of an element is the text of the element."""
    seen = [str(value) for value in values] if claimed.expanded else None
    return ending(
        claimed,
        AgentStatus.WAITING,
        outcome="running",
        event="agent_expanded",
        output=None,
        items=Items(values=values, reads=[], seen=seen),
    )


async def expand(cluster: Cluster, run_id: UUID, level: int, *values: Any) -> None:
    (claimed,) = (await cluster.claim(run_id, level=level, width=1)).agents
    assert await cluster.record(expansion(claimed, *values)) == [True]


async def end_items(
    cluster: Cluster, run_id: UUID, level: int, *failing: int, suffix: str = ""
) -> list[str]:
    """End the pending items of a level; return their names."""
    claimed = (await cluster.claim(run_id, level=level)).agents
    await cluster.record(
        *(
            ending(one, AgentStatus.FAILED, output=None, error="no", error_class="BadRequest")
            if one.item_index in failing
            else ending(one, output=f"{one.item}{suffix}", seen=str(one.item))
            for one in claimed
        )
    )
    await cluster.advance(run_id, level)
    return [one.name for one in claimed]


async def two_lists(cluster: Cluster) -> UUID:
    """A run of two lists of three elements; the second element of the first list has failed."""
    run_id = await cluster.start(FIRST, SECOND, END)
    await expand(cluster, run_id, 0, "a", "b", "c")
    await end_items(cluster, run_id, 0, 1)
    await expand(cluster, run_id, 1, "a", None, "c")
    await end_items(cluster, run_id, 1)
    await end_level(cluster, run_id, 2)
    assert (await read(cluster, run_id)).status == "partially_completed"
    return run_id


async def states(cluster: Cluster, run_id: UUID) -> dict[str, str]:
    return await cluster.statuses(run_id)


async def attempts(cluster: Cluster, run_id: UUID) -> dict[str, int]:
    rows = await cluster.rows("SELECT name, attempt FROM agent_runs WHERE run_id = :id", id=run_id)
    return {row.name: row.attempt for row in rows}


async def test_a_change_goes_through_lists_element_by_element(cluster: Cluster) -> None:
    run_id = await two_lists(cluster)

    assert await retry(cluster, run_id)
    await admit(cluster)
    first = await end_items(cluster, run_id, 0)
    await expand(cluster, run_id, 1, "a", "b", "c")
    second = await end_items(cluster, run_id, 1)
    ended = await end_level(cluster, run_id, 2)

    assert (first, second) == (["first[1]"], ["second[1]"])
    assert ended.finished
    assert (await read(cluster, run_id)).status == "completed"
    assert await attempts(cluster, run_id) == {
        "first": 1,
        "first[0]": 1,
        "first[1]": 2,
        "first[2]": 1,
        "second": 2,
        "second[0]": 1,
        "second[1]": 2,
        "second[2]": 1,
        "end": 2,
    }
    accepted = await cluster.rows("""
        SELECT a.name FROM agent_runs a JOIN attempts t ON t.agent_run_id = a.id
        AND t.outcome = 'completed' GROUP BY a.name HAVING count(*) <> 1
    """)
    assert accepted == []


async def test_nothing_follows_an_output_that_stays_the_same(cluster: Cluster) -> None:
    run_id = await two_lists(cluster)

    await retry(cluster, run_id)
    await admit(cluster)
    again = await end_items(cluster, run_id, 0, 1)

    assert again == ["first[1]"]
    assert (await read(cluster, run_id)).status == "partially_completed"
    assert (await attempts(cluster, run_id))["second"] == 1


async def test_a_repair_that_was_cancelled_goes_on_with_the_next_retry(cluster: Cluster) -> None:
    run_id = await two_lists(cluster)
    await retry(cluster, run_id)
    await admit(cluster)
    await end_items(cluster, run_id, 0)  # the second list is outdated now
    before = await states(cluster, run_id)
    await stop(cluster, run_id)

    assert await retry(cluster, run_id)
    (plan,) = await admit(cluster)
    await expand(cluster, run_id, 1, "a", "b", "c")
    second = await end_items(cluster, run_id, 1)

    assert before["second"] == "pending"
    assert before["second[0]"] == "completed"
    assert plan.level == 1
    assert second == ["second[1]"]


async def test_a_cancel_before_the_look_for_outdated_agents_loses_nothing(
    cluster: Cluster,
) -> None:
    run_id = await two_lists(cluster)
    await retry(cluster, run_id)
    await admit(cluster)
    (claimed,) = (await cluster.claim(run_id)).agents
    await cluster.record(ending(claimed, output="b", seen="b"))
    await stop(cluster, run_id)  # the list itself is not collected yet
    assert (await states(cluster, run_id))["second"] == "completed"

    assert await retry(cluster, run_id)
    (plan,) = await admit(cluster)
    await cluster.advance(run_id, plan.level)
    await expand(cluster, run_id, 1, "a", "b", "c")

    assert await end_items(cluster, run_id, 1) == ["second[1]"]


async def test_failed_items_of_an_outdated_list_wait_until_it_is_read_again(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(FIRST, SECOND, END)
    await expand(cluster, run_id, 0, "a", "b")
    await end_items(cluster, run_id, 0, 1)
    await expand(cluster, run_id, 1, "a", None)
    await end_items(cluster, run_id, 1, 1)
    await end_level(cluster, run_id, 2)

    await retry(cluster, run_id)
    await admit(cluster)
    await end_items(cluster, run_id, 0)
    early = await states(cluster, run_id)
    await expand(cluster, run_id, 1, "a", "b")

    assert (early["second"], early["second[1]"]) == ("pending", "cancelled")
    assert await end_items(cluster, run_id, 1) == ["second[1]"]


async def test_items_beyond_the_end_of_a_shorter_list_are_skipped(cluster: Cluster) -> None:
    run_id = await two_lists(cluster)
    await retry(cluster, run_id)
    await admit(cluster)
    await end_items(cluster, run_id, 0)

    await expand(cluster, run_id, 1, "a", "x")
    await end_items(cluster, run_id, 1)
    await end_level(cluster, run_id, 2)

    rows = await cluster.rows("""
        SELECT name, status, error_class, output FROM agent_runs
        WHERE name IN ('second', 'second[2]') ORDER BY name
    """)
    assert [tuple(row) for row in rows] == [
        ("second", "completed", None, ["a", "x"]),
        ("second[2]", "skipped", "ItemGone", None),
    ]
    assert (await read(cluster, run_id)).status == "completed"


async def test_one_item_is_repaired_and_the_others_stay_failed(cluster: Cluster) -> None:
    run_id = await cluster.start(FIRST)
    await expand(cluster, run_id, 0, "a", "b", "c")
    await end_items(cluster, run_id, 0, 0, 1)

    assert not await retry(cluster, run_id, name="first[2]")
    assert await retry(cluster, run_id, name="first[1]")
    await admit(cluster)

    assert await end_items(cluster, run_id, 0) == ["first[1]"]
    assert (await states(cluster, run_id))["first[0]"] == "failed"
    assert (await read(cluster, run_id)).status == "partially_completed"


async def test_what_was_cancelled_for_want_of_the_repaired_agent_runs(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b"), agent("x"), agent("after", "a"))
    await end_level(cluster, run_id, 0, a=AgentStatus.FAILED)
    assert (await states(cluster, run_id))["after"] == "cancelled"

    await retry(cluster, run_id, name="a")
    await admit(cluster)
    moved = await end_level(cluster, run_id, 0)

    assert moved.plan is not None
    assert (await states(cluster, run_id))["after"] == "pending"


async def test_the_late_word_of_a_replaced_attempt_changes_nothing(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b", "a", accept_missing_inputs=True))
    await end_level(cluster, run_id, 0, a=AgentStatus.FAILED)
    (old,) = (await cluster.claim(run_id, level=1)).agents
    await cluster.record(ending(old))
    await cluster.advance(run_id, 1)
    await retry(cluster, run_id)
    await admit(cluster)
    await end_level(cluster, run_id, 0)

    late = await cluster.record(ending(old, output="late"))
    (new,) = (await cluster.claim(run_id, level=1)).agents

    assert late == [False]
    assert (new.attempt, new.kept) == (2, "output of b")


async def test_a_rerun_of_an_item_takes_over_the_other_items(cluster: Cluster) -> None:
    run_id = await cluster.start(FIRST, SECOND, END)
    await expand(cluster, run_id, 0, "a", "b", "c")
    await end_items(cluster, run_id, 0)
    await expand(cluster, run_id, 1, "a", "b", "c")
    await end_items(cluster, run_id, 1)
    await end_level(cluster, run_id, 2)

    made = await rerun(cluster, run_id, "first[1]")
    await admit(cluster)
    await expand(cluster, made, 0, "a", "b", "c")
    first = await end_items(cluster, made, 0, suffix="!")
    await expand(cluster, made, 1, "a", "b!", "c")
    second = await end_items(cluster, made, 1)
    await end_level(cluster, made, 2)

    assert (first, second) == (["first[1]"], ["second[1]"])
    assert (await read(cluster, made)).status == "completed"
    assert await attempts(cluster, made) == {
        "first": 1,
        "first[0]": 0,
        "first[1]": 1,
        "first[2]": 0,
        "second": 1,
        "second[0]": 0,
        "second[1]": 1,
        "second[2]": 0,
        "end": 1,
    }
    assert await states(cluster, run_id) == dict.fromkeys(await states(cluster, made), "completed")

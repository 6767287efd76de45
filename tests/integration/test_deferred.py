"""Agents that were handed back for a while: when the scheduler finds them."""

from functools import partial
from uuid import UUID

import pytest

from app.domain.status import AgentStatus
from app.storage import deferred
from app.storage.claims import ClaimedAgent
from app.storage.progress import LevelPlan
from tests.support.database_cluster import Cluster, agent, ending
from tests.support.pace import at_this_pace
from tests.support.run_control import pause, retry, stop

pytestmark = pytest.mark.anyio

SLOT_S = 0.5


async def give_back(cluster: Cluster, claimed: ClaimedAgent, ready_in_s: float) -> None:
    await cluster.record(
        ending(
            claimed,
            AgentStatus.PENDING,
            outcome="handed_back",
            ready_in_s=ready_in_s,
            waits_for="openai/default requests_per_day",
        )
    )


async def coming(cluster: Cluster, *, ahead_s: float = 10.0) -> list[tuple[int, float]]:
    look = partial(deferred.coming_slots, slot_s=SLOT_S, behind_s=10.0, ahead_s=ahead_s)
    return await cluster.commit(look)


async def due(cluster: Cluster, slot: int) -> list[LevelPlan]:
    return list(await cluster.commit(partial(deferred.plan_due, slot=slot, slot_s=SLOT_S)))


async def one_given_back(cluster: Cluster, *, ready_in_s: float = 2.0) -> UUID:
    """A run of three agents: one was handed back, one is in progress, one has never started."""
    run_id = await cluster.start(agent("a"), agent("b"), agent("c"))
    first, _ = (await cluster.claim(run_id, width=2)).agents
    await give_back(cluster, first, ready_in_s)
    return run_id


async def test_who_was_given_back_is_due_in_the_slot_of_its_moment(cluster: Cluster) -> None:
    run_id = await one_given_back(cluster)

    ((slot, ends_in_s),) = await coming(cluster)
    (plan,) = await due(cluster, slot)

    assert 2.0 - at_this_pace(0.5) < ends_in_s < 2.6
    assert (plan.run_id, plan.level, plan.agents) == (run_id, 0, {"openai": 1})
    assert await due(cluster, slot + 1) == []
    assert await coming(cluster, ahead_s=1.0) == []


async def test_nobody_is_sent_where_no_place_is_free_or_the_run_rests(cluster: Cluster) -> None:
    full = await cluster.start(agent("a"), agent("b"), max_parallel_agents=1)
    (first,) = (await cluster.claim(full)).agents
    await give_back(cluster, first, 1.0)
    assert len((await cluster.claim(full)).agents) == 1
    ((slot, _),) = await coming(cluster)

    nobody = await due(cluster, slot)
    resting = await one_given_back(cluster)
    await pause(cluster, resting)

    assert nobody == []
    assert len(await coming(cluster)) == 1


async def test_changed_limits_wake_agents_that_wait_for_one(cluster: Cluster) -> None:
    run_id = await one_given_back(cluster, ready_in_s=3000.0)

    await cluster.commit(deferred.wake_deferred_by_limits)

    assert [one.name for one in (await cluster.claim(run_id, width=1)).agents] == ["a"]
    assert await cluster.rows("SELECT waits_for FROM agent_runs WHERE waits_for <> ''") == []


async def test_who_is_cancelled_while_it_is_away_waits_for_nothing_any_more(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"))
    (only,) = (await cluster.claim(run_id)).agents
    await give_back(cluster, only, 3000.0)

    await stop(cluster, run_id)
    await retry(cluster, run_id)

    assert await cluster.rows("SELECT status, waits_for FROM agent_runs") == [("pending", None)]

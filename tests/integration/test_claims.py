import asyncio

import pytest

from app.domain.status import AgentStatus
from tests.support.database_cluster import Cluster, agent, ending

pytestmark = pytest.mark.anyio


async def test_agents_are_claimed_by_priority_and_then_in_their_order(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b", priority=9), agent("c"))

    claim = await cluster.claim(run_id)

    assert [claimed.name for claimed in claim.agents] == ["b", "a", "c"]


async def test_concurrent_claims_never_exceed_max_parallel_agents(cluster: Cluster) -> None:
    run_id = await cluster.start(*(agent(f"a{i}") for i in range(50)), max_parallel_agents=7)

    claims = await asyncio.gather(*(cluster.claim(run_id, width=5) for _ in range(6)))

    names = [claimed.name for claim in claims for claimed in claim.agents]
    assert len(names) == len(set(names)) == 7


async def test_a_claim_counts_the_drains_in_a_row_and_no_other_attempts(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    told = []
    for error_class in ("WorkerStopped", "WorkerStopped", None, "WorkerStopped", "failed", None):
        (a,) = (await cluster.claim(run_id)).agents
        told.append(a.drained)
        end = ending(a, AgentStatus.PENDING, outcome="handed_back", error_class=error_class)
        if error_class == "failed":
            end = ending(a, AgentStatus.PENDING, outcome="failed", retry=True)
        await cluster.record(end)

    assert told == [0, 1, 2, 2, 3, 0]


async def test_a_claim_tells_what_is_left_for_whom(cluster: Cluster) -> None:
    run_id = await cluster.start(
        agent("a"), agent("b"), agent("c", provider="anthropic"), max_parallel_agents=2
    )

    first = await cluster.claim(run_id, width=1)
    second = await cluster.claim(run_id, width=1)

    assert (first.more, first.other_provider, first.open, first.room) == (
        True,
        "anthropic",
        True,
        True,
    )
    assert (second.more, second.room) == (False, False)


async def test_a_claim_tells_whether_all_that_is_open_is_the_lanes_own(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b"), agent("c", provider="anthropic"))

    one = await cluster.claim(run_id, width=1)
    other = await cluster.claim(run_id, width=1, busy=1)
    (c,) = (await cluster.claim(run_id, provider="anthropic")).agents
    await cluster.record(ending(c))
    last = await cluster.claim(run_id, width=0, busy=2)

    assert [claim.alone for claim in (one, other, last)] == [False, False, True]


async def test_a_late_lane_of_an_earlier_level_claims_nothing(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b", "a"))
    (a,) = (await cluster.claim(run_id)).agents
    await cluster.record(ending(a))
    await cluster.advance(run_id, 0)

    late = await cluster.claim(run_id, level=0)

    assert late.agents == ()
    assert not late.open


async def test_an_agent_given_back_is_claimed_again_only_when_it_is_ready(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"))
    (first,) = (await cluster.claim(run_id)).agents
    await cluster.record(
        ending(first, AgentStatus.PENDING, output=None, ready_in_s=3600.0, retry=True)
    )

    too_early = await cluster.claim(run_id)
    await cluster.rows("UPDATE agent_runs SET ready_at = now() RETURNING id")
    (second,) = (await cluster.claim(run_id)).agents

    assert too_early.agents == ()
    assert too_early.open
    assert (second.attempt, second.retries) == (2, 1)


async def test_a_claim_brings_the_outputs_that_the_prompt_reads(cluster: Cluster) -> None:
    run_id = await cluster.start(
        agent("a"), agent("b"), agent("c", "a", "b", prompt_template="use {b} only")
    )
    first = await cluster.claim(run_id)
    await cluster.record(*(ending(claimed) for claimed in first.agents))
    await cluster.advance(run_id, 0)

    (c,) = (await cluster.claim(run_id, level=1)).agents

    assert c.outputs == {"b": "output of b"}

"""When a run fails: the rules of partial completion, on real SQL."""

from uuid import UUID

import pytest

from app.domain.status import AgentStatus
from app.storage.fail_early import fail_early
from tests.support.database_cluster import Cluster, agent, ending

pytestmark = pytest.mark.anyio
FAILED = AgentStatus.FAILED


async def settle(cluster: Cluster, run_id: UUID, *failing: str, level: int = 0) -> None:
    """End every agent of a level that can be claimed; the named ones fail."""
    claim = await cluster.claim(run_id, level=level)
    await cluster.record(
        *(ending(a, FAILED, output=None) if a.name in failing else ending(a) for a in claim.agents)
    )
    await cluster.advance(run_id, level)


async def outcome(cluster: Cluster, run_id: UUID) -> tuple[str, str | None]:
    (row,) = await cluster.rows("SELECT status, error FROM runs WHERE id = :id", id=run_id)
    return row.status, row.error


async def errors(cluster: Cluster, run_id: UUID) -> dict[str, str | None]:
    found = await cluster.rows("SELECT name, error FROM agent_runs WHERE run_id = :id", id=run_id)
    return {row.name: row.error for row in found}


async def give_up_on(cluster: Cluster, run_id: UUID) -> str | None:
    (reason, again) = await cluster.commit(lambda c: fail_early(c, [run_id, run_id]))
    assert reason == again
    return reason


@pytest.mark.parametrize(
    ("failing", "status"),
    [
        ((), "completed"),
        (("a",), "partially_completed"),
        (("a", "b"), "partially_completed"),
        (("a", "b", "c"), "failed"),
    ],
)
async def test_a_run_fails_when_more_than_half_of_its_agents_failed(
    cluster: Cluster, failing: tuple[str, ...], status: str
) -> None:
    run_id = await cluster.start(agent("a"), agent("b"), agent("c"), agent("d"))

    await settle(cluster, run_id, *failing)

    assert (await outcome(cluster, run_id))[0] == status


async def test_cancelled_dependents_do_not_count_as_failed(cluster: Cluster) -> None:
    run_id = await cluster.start(
        agent("a"), agent("b"), agent("c", "a"), agent("d", "c"), agent("e", "d")
    )

    await settle(cluster, run_id, "a")

    assert await outcome(cluster, run_id) == ("partially_completed", None)
    assert await errors(cluster, run_id) == {
        "a": None,
        "b": None,
        "c": "upstream failed: a",
        "d": "upstream failed: c",
        "e": "upstream failed: d",
    }


@pytest.mark.parametrize(
    ("priority", "status"), [(7, "partially_completed"), (8, "failed"), (10, "failed")]
)
async def test_a_failed_agent_fails_its_run_from_priority_eight_on(
    cluster: Cluster, priority: int, status: str
) -> None:
    run_id = await cluster.start(
        agent("a", priority=priority), agent("b"), agent("c"), agent("after_b", "b")
    )

    await settle(cluster, run_id, "a")
    await settle(cluster, run_id, level=1)

    assert (await outcome(cluster, run_id))[0] == status
    expected = "completed" if priority == 7 else "cancelled"
    assert (await cluster.statuses(run_id))["after_b"] == expected


async def test_without_partial_completion_the_first_failure_starts_nothing_more(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(
        *(agent(name) for name in "abc"),
        agent("after", "a"),
        allow_partial_completion=False,
        max_parallel_agents=2,
    )
    a, b = (await cluster.claim(run_id)).agents
    await cluster.record(ending(a, FAILED))

    reason = await give_up_on(cluster, run_id)

    assert reason == "1 of 4 agents failed and partial completion is not allowed"
    assert (await cluster.claim(run_id)).agents == ()
    assert (await outcome(cluster, run_id))[0] == "running"
    assert (await cluster.statuses(run_id))["b"] == "running"

    await cluster.record(ending(b))
    await cluster.advance(run_id, 0)

    assert await outcome(cluster, run_id) == ("failed", reason)
    assert await cluster.statuses(run_id) == {
        "a": "failed",
        "b": "completed",
        "c": "cancelled",
        "after": "cancelled",
    }
    assert (await errors(cluster, run_id))["c"] == f"run failed: {reason}"


async def test_a_retry_of_a_run_that_is_given_up_is_not_made(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a", priority=9), agent("b"), agent("c"))
    a, b, _ = (await cluster.claim(run_id)).agents
    await cluster.record(ending(a, FAILED))
    await cluster.record(ending(b, AgentStatus.PENDING, retry=True, outcome="failed"))

    await give_up_on(cluster, run_id)

    assert (await cluster.statuses(run_id))["b"] == "cancelled"


async def test_a_run_that_can_still_succeed_is_not_given_up(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"), agent("b"), agent("c"))
    a, *_ = (await cluster.claim(run_id, width=1)).agents
    await cluster.record(ending(a, FAILED))

    assert await give_up_on(cluster, run_id) is None
    assert (await cluster.statuses(run_id))["c"] == "pending"


async def test_who_accepts_missing_inputs_runs_and_reads_null(cluster: Cluster) -> None:
    run_id = await cluster.start(
        agent("a"),
        agent("b"),
        agent("c", "a", "b", accept_missing_inputs=True, prompt_template="{a} and {b}"),
        agent("after_c", "c"),
    )
    await settle(cluster, run_id, "a")

    (c,) = (await cluster.claim(run_id, level=1)).agents

    assert c.outputs == {"a": None, "b": "output of b"}


async def test_neighbours_of_an_agent_that_kills_its_worker_get_away_from_it(
    cluster: Cluster,
) -> None:
    names = [f"a{number}" for number in range(30)]
    run_id = await cluster.start(*map(agent, names), max_parallel_agents=30)
    deaths = 0
    while (await outcome(cluster, run_id))[0] == "running":
        # Claimed agents run; if the poisoned one is among them, all of them lose their worker.
        claim = await cluster.claim(run_id, lease_s=-1.0)
        if any(claimed.name == "a17" for claimed in claim.agents):
            deaths += 1
            await cluster.recover()
        else:
            await cluster.record(*map(ending, claim.agents))
        await cluster.advance(run_id, 0)

    statuses = await cluster.statuses(run_id)

    assert {name for name, status in statuses.items() if status != "completed"} == {"a17"}
    assert deaths == 4
    assert "quarantined" in str((await errors(cluster, run_id))["a17"])


async def test_a_worker_has_one_agent_with_its_last_chance_at_a_time(cluster: Cluster) -> None:
    first = await cluster.start(*map(agent, "abcd"), max_parallel_agents=3)
    other = await cluster.start(agent("e"))
    await cluster.rows("UPDATE agent_runs SET recoveries = 3 WHERE name <> 'd' RETURNING id")

    async def claimed(run_id: UUID, worker: str = "w1") -> list[str]:
        claim = await cluster.claim(run_id, worker=worker)
        return [one.name for one in claim.agents]

    assert await claimed(first) == ["d"]
    assert await claimed(first) == ["a"]
    assert await claimed(first) == []
    assert await claimed(other) == []
    assert await claimed(first, "w2") == ["b"]
    assert not (await cluster.claim(other)).more

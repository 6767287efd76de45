"""Metrics that the exporter reads from Postgres, where they are more than a count."""

import pytest
from uuid_utils.compat import uuid7

from app.monitoring.cluster import read_cluster
from app.telemetry import metrics
from app.telemetry.metrics import ClusterMetric
from tests.support.database_cluster import Cluster, agent

pytestmark = pytest.mark.anyio


async def values(cluster: Cluster, metric: ClusterMetric) -> dict[tuple[str, ...], float]:
    found = await cluster.commit(read_cluster)
    return {labels: value for each, labels, value in found if each is metric}


async def stalled_s(cluster: Cluster) -> float:
    (value,) = (await values(cluster, metrics.STALLED)).values()
    return value


async def test_a_run_is_stalled_unless_it_waits_for_a_time_or_a_sub_workflow(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"))
    await cluster.rows("UPDATE events SET at = at - interval '1 hour' RETURNING id")
    assert await stalled_s(cluster) == pytest.approx(3600, abs=60)

    await cluster.rows(
        "UPDATE agent_runs SET attempt = 1, ready_at = now() + interval '5 hours' RETURNING id"
    )
    waits_for_a_time = await stalled_s(cluster)
    sub_run = await cluster.start(agent("b"))
    await cluster.rows(
        "UPDATE runs r SET parent_agent_run_id = a.id, ancestors = ARRAY[a.run_id]"
        " FROM agent_runs a WHERE r.id = :sub_run AND a.run_id = :run_id RETURNING r.id",
        sub_run=sub_run,
        run_id=run_id,
    )
    await cluster.rows(
        "UPDATE agent_runs SET status = 'waiting', ready_at = now() WHERE run_id = :id"
        " RETURNING id",
        id=run_id,
    )
    waits_for_a_run = await stalled_s(cluster)

    assert waits_for_a_time == 0
    assert waits_for_a_run < 60


async def test_no_more_agents_are_admissible_than_their_run_lets_run_at_once(
    cluster: Cluster,
) -> None:
    names = [agent(f"a{number}") for number in range(5)]
    run_id = await cluster.start(*names, agent("b", "a0"), max_parallel_agents=3)
    at_first = await values(cluster, metrics.AGENTS_ADMISSIBLE)

    await cluster.claim(run_id, width=2)
    with_two_running = await values(cluster, metrics.AGENTS_ADMISSIBLE)

    assert at_first == {("openai",): 3}
    assert with_two_running == {("openai",): 1}


async def test_what_is_usually_spent_counts_the_days_since_the_first_entry(
    cluster: Cluster,
) -> None:
    empty = await values(cluster, metrics.SPENT_USUALLY)
    # Half an hour ago, and at the same time of the last three days; then somewhat earlier.
    for days_ago, minutes_ago, usd in ((0, 30, 9), (1, 30, 2), (3, 30, 4), (3, 90, 100)):
        await cluster.rows(
            "INSERT INTO cost_entries (call_id, run_id, agent_run_id, attempt, workflow_id,"
            " workflow, agent, module, provider, model, kind, outcome, budget_ids, cost_usd,"
            " created_at) VALUES (gen_random_uuid(), :id, :id, 1, :id, 'w', 'a', 'General',"
            " 'openai', 'gpt-4o', 'actual', 'ok', '{}', :usd,"
            " now() - make_interval(days => :days, mins => :minutes)) RETURNING 1",
            id=uuid7(),
            usd=usd,
            days=days_ago,
            minutes=minutes_ago,
        )

    usual = await values(cluster, metrics.SPENT_USUALLY)
    last_hour = await values(cluster, metrics.SPENT_LAST_HOUR)

    assert empty == {}
    assert last_hour == {(): 9}
    assert usual == {(): (2 + 0 + 4) / 3}

"""Stored limits in Postgres, and its record of the calls of the last hours."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import text

from app.storage.limits import (
    ModelCalls,
    StoredBlock,
    forget_limits,
    read_limits,
    recent_calls,
    set_limits,
)
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request

DAY_S = timedelta(days=1).total_seconds()


def block(**limits: int | None) -> StoredBlock:
    return StoredBlock(provider="openai", model="default", limits=limits)


async def test_limits_are_set_key_by_key(cluster: Cluster) -> None:
    await cluster.commit(lambda c: set_limits(c, "openai", "default", {"burst": 2}))
    await cluster.commit(
        lambda c: set_limits(c, "openai", "default", {"burst": 3, "tokens_per_minute": None})
    )

    assert await cluster.commit(read_limits) == [block(burst=3, tokens_per_minute=None)]


async def test_limits_are_forgotten_by_key_and_altogether(cluster: Cluster) -> None:
    limits = {"burst": 2, "requests_per_minute": 5, "tokens_per_minute": None}
    await cluster.commit(lambda c: set_limits(c, "openai", "default", limits))

    one = await cluster.commit(
        lambda c: forget_limits(c, "openai", "default", ["burst", "requests_per_day"])
    )
    left = await cluster.commit(read_limits)
    rest = await cluster.commit(lambda c: forget_limits(c, "openai", "default", []))

    assert (one, left) == (["burst"], [block(requests_per_minute=5, tokens_per_minute=None)])
    assert sorted(rest) == ["requests_per_minute", "tokens_per_minute"]
    assert await cluster.commit(read_limits) == []
    assert await cluster.commit(lambda c: forget_limits(c, "openai", "default", [])) == []


async def test_recent_calls_are_those_that_were_made_and_those_in_flight(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("done"), agent("cached"), agent("flying"))
    done, cached, flying = (await cluster.claim(run_id)).agents
    holds = [hold_request(claimed, "0.1") for claimed in (done, cached, flying)]
    await cluster.hold(*holds)
    await cluster.record(
        ending(done, calls=[call(done, holds[0], "0.1")]),
        ending(cached, calls=[call(cached, holds[1], "0", kind="cached")]),
    )
    await add_entry(cluster, holds[0].call_id, "unconfirmed", age_s=0)
    await add_entry(cluster, holds[0].call_id, "correction", age_s=0)
    await add_entry(cluster, UUID(int=1), "estimated", age_s=DAY_S - 60)
    await add_entry(cluster, UUID(int=2), "actual", age_s=DAY_S + 60)

    hour = await cluster.commit(lambda c: recent_calls(c, DAY_S / 24))
    day = await cluster.commit(lambda c: recent_calls(c, DAY_S))

    assert [line.requests for line in hour] == [2]
    tokens = hour[0].tokens + 12
    assert day == [ModelCalls(provider="openai", model="gpt-4o-mini", requests=3, tokens=tokens)]


async def add_entry(cluster: Cluster, call_id: UUID, kind: str, *, age_s: float) -> None:
    """An entry like the newest one, of another call, kind and age, with 10 and 2 tokens."""
    statement = text("""
        INSERT INTO cost_entries (call_id, run_id, agent_run_id, attempt, workflow_id, workflow,
            agent, module, provider, model, kind, outcome, input_tokens, cached_tokens,
            output_tokens, budget_ids, cost_usd, created_at)
        SELECT :call_id, run_id, agent_run_id, attempt, workflow_id, workflow,
            agent, module, provider, model, :kind, 'ok', :input_tokens, 100, :output_tokens,
            '{}', 0, now() - make_interval(secs => :age_s)
        FROM cost_entries ORDER BY id LIMIT 1
    """)
    tokens = {"input_tokens": 10 if age_s else 0, "output_tokens": 2 if age_s else 0}
    values = {"call_id": call_id, "kind": kind, "age_s": age_s, **tokens}
    await cluster.commit(lambda c: c.execute(statement, values))

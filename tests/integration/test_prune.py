"""Retention: the parts of old runs that are removed, the parts that stay, and exempt runs."""

import asyncio
import os
import subprocess
import sys
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import anyio
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app.costs.reports import costs_by, total_costs
from app.domain.status import AgentStatus
from app.errors import RunConflict
from app.monitoring.progress import read_progress
from app.monitoring.status import system_status
from app.storage import control, prune
from app.storage.rerun import rerun
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request
from tests.support.pace import scaled
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio

DAY_S = 86_400.0


async def ended_run(cluster: Cluster, *, days_ago: float) -> UUID:
    """A run of this age, with two agents, one of which failed at its first attempt."""
    run_id = await cluster.start(agent("a"), agent("b"))
    for retry in (True, False):
        for one in (await cluster.claim(run_id)).agents:
            held = hold_request(one)
            await cluster.hold(held)
            made = call(one, held, "0.25")
            failed = ending(one, AgentStatus.PENDING, [made], error="secret", retry=True)
            is_retried = retry and one.name == "b"
            await cluster.record(failed if is_retried else ending(one, calls=[made]))
    assert (await cluster.advance(run_id, 0)).finished
    await cluster.rows(
        "UPDATE runs SET finished_at = finished_at - make_interval(secs => :s) WHERE id = :id"
        " RETURNING id",
        s=days_ago * DAY_S,
        id=run_id,
    )
    return run_id


async def pruned(cluster: Cluster, days: float) -> prune.Pruned:
    return await cluster.commit(partial(prune.prune_batch, older_than_s=days * DAY_S))


async def test_old_runs_lose_their_payload_and_keep_what_they_were(cluster: Cluster) -> None:
    run_id = await ended_run(cluster, days_ago=100)
    expected = await cluster.commit(partial(prune.count_prunable, older_than_s=90 * DAY_S))

    removed = await pruned(cluster, 90)

    assert removed == expected
    assert (removed.runs, removed.agents, removed.attempts) == (1, 2, 2)
    assert removed.events > 5
    assert await cluster.rows("SELECT input, pruned_at IS NOT NULL FROM runs") == [({}, True)]
    assert await cluster.rows("SELECT DISTINCT output, error FROM agent_runs") == [(None, None)]
    assert await cluster.rows("SELECT outcome, error FROM attempts") == [("failed", None)]
    assert await cluster.rows("SELECT 1 FROM events") == []
    progress = await cluster.commit(partial(read_progress, run_id=run_id))
    assert progress.pruned_at is not None
    assert (progress.status, progress.spent_usd) == ("completed", Decimal("0.75"))
    assert [one.status for one in progress.agents] == ["completed", "completed"]


async def everything_about_costs(cluster: Cluster) -> dict[str, Any]:
    """The reports, the views, and the metrics of the whole cluster."""

    async def read(connection: Any) -> dict[str, Any]:
        by = ("run", "workflow", "agent", "module", "day", "model", "kind")
        found: dict[str, Any] = {each: await costs_by(connection, (each,)) for each in by}
        metrics = (await system_status(connection))["monitoring"]
        # Durations are read from the attempts themselves.
        del metrics["agents"]["avg_execution_time"], metrics["uptime_seconds"]
        return found | {"total": await total_costs(connection), "monitoring": metrics}

    views = await cluster.rows("SELECT viewname FROM pg_views WHERE schemaname = 'public'")
    assert len(views) > 10
    found = await cluster.commit(read)
    for row in views:
        lines = await cluster.rows(f"SELECT to_jsonb(v) AS line FROM {row.viewname} v")
        found[row.viewname] = sorted(str(line) for line in lines)
    return found


async def test_the_ledger_and_every_report_stay_as_they_were(cluster: Cluster) -> None:
    await ended_run(cluster, days_ago=100)
    before = await everything_about_costs(cluster)
    ledger = await cluster.rows("SELECT * FROM cost_entries ORDER BY id")

    await pruned(cluster, 90)

    assert await everything_about_costs(cluster) == before
    assert await cluster.rows("SELECT * FROM cost_entries ORDER BY id") == ledger
    waste = await cluster.rows("SELECT cause, wasted_usd FROM cost_waste")
    assert waste == [("retried", Decimal("0.25"))]


async def test_young_runs_and_runs_that_go_on_are_left_alone(cluster: Cluster) -> None:
    await ended_run(cluster, days_ago=80)
    going = await cluster.start(agent("a"))
    paused = await cluster.start(agent("a"))
    await cluster.commit(partial(control.pause, run_id=paused))
    await cluster.rows("UPDATE runs SET created_at = created_at - interval '1 year' RETURNING 1")

    removed = await pruned(cluster, 90)

    assert removed == prune.Pruned()
    with pytest.raises(IntegrityError, match="ck_runs_pruned"):
        await cluster.rows("UPDATE runs SET pruned_at = now() WHERE id = :id RETURNING 1", id=going)


async def test_it_goes_in_batches_and_several_may_be_at_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "BATCH", 2)
    for _ in range(5):
        await ended_run(cluster, days_ago=100)

    first = await asyncio.gather(*(pruned(cluster, 90) for _ in range(2)))
    rest = [await pruned(cluster, 90) for _ in range(3)]

    counts = [batch.runs for batch in (*first, *rest)]
    assert sum(counts) == 5
    assert max(counts) == 2
    assert counts[-1] == 0


async def test_what_was_pruned_cannot_be_run_again(cluster: Cluster) -> None:
    run_id = await ended_run(cluster, days_ago=100)
    await pruned(cluster, 90)

    with pytest.raises(RunConflict, match="removed"):
        await cluster.commit(partial(control.retry_failed, run_id=run_id))
    with pytest.raises(RunConflict, match="removed"):
        await cluster.commit(partial(rerun, run_id=run_id, agent="a"))


async def test_a_prune_that_is_killed_halfway_leaves_no_run_half_pruned(
    cluster: Cluster, database_url: str
) -> None:
    runs = 2 * prune.BATCH + 5
    for _ in range(runs):
        await ended_run(cluster, days_ago=100)
    await slow_down_pruning(cluster)
    command = (sys.executable, "-m", "app.cli", "prune", "--older-than", "90d")
    environment = {**os.environ, "DATABASE_URL": database_url, "REDIS_URL": "redis://127.0.0.1:1/0"}

    process = await anyio.open_process(command, env=environment, stdout=subprocess.DEVNULL)
    await wait_until_async(lambda: pruned_runs(cluster), timeout_s=scaled(30))
    process.kill()
    await process.wait()
    halfway = await pruned_runs(cluster)
    mixed = await cluster.rows("""
        SELECT r.id FROM runs r WHERE (r.pruned_at IS NOT NULL) = (r.input <> '{}')
            OR (r.pruned_at IS NOT NULL) = EXISTS (SELECT FROM events e WHERE e.run_id = r.id)
            OR (r.pruned_at IS NOT NULL) = EXISTS (
                SELECT FROM agent_runs a WHERE a.run_id = r.id AND a.output IS NOT NULL)
    """)

    assert 0 < halfway < runs
    assert mixed == []
    # Its last statement may run for a moment longer, and holds locks on those runs.
    await wait_until_async(lambda: all_pruned(cluster, runs))


async def slow_down_pruning(cluster: Cluster) -> None:
    """Each run takes so long that a kill can hit the middle of a batch."""
    for statement in (
        "UPDATE runs SET input = '{\"question\": 1}'",
        """
        CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$
        """,
        "CREATE TRIGGER take_time BEFORE UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION take_time()",
    ):
        async with cluster.engine.begin() as connection:
            await connection.execute(text(statement))


async def all_pruned(cluster: Cluster, runs: int) -> bool:
    await pruned(cluster, 90)
    return await pruned_runs(cluster) == runs


async def pruned_runs(cluster: Cluster) -> int:
    (row,) = await cluster.rows("SELECT count(*) AS n FROM runs WHERE pruned_at IS NOT NULL")
    return int(row.n)


async def test_events_that_programs_recorded_grow_old_too(cluster: Cluster) -> None:
    for days_ago in (100, 95, 80):
        await cluster.rows(
            "INSERT INTO recorded_events (type, at)"
            " VALUES ('seen', now() - make_interval(days => :days)) RETURNING 1",
            days=days_ago,
        )
    counted = await cluster.commit(partial(prune.count_prunable, older_than_s=90 * 86_400))

    removed = await cluster.commit(partial(prune.prune_recorded, older_than_s=90 * 86_400))

    assert counted == removed == prune.Pruned(recorded_events=2)
    assert await cluster.rows("SELECT count(*) FROM recorded_events") == [(1,)]

"""The history has one order, and no event appears later in between."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import text

from app.storage.event_log import last_id, parse_event, read_all, read_horizon, read_run
from tests.support.database_cluster import Cluster, agent

pytestmark = pytest.mark.anyio

ADD = text("INSERT INTO events (run_id, type) VALUES (:run_id, :type) RETURNING id")


async def test_an_event_is_held_back_until_none_with_a_lower_id_can_come(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    (row,) = await cluster.rows("SELECT max(id) AS seen FROM events")
    async with cluster.engine.connect() as slow:
        lower = await slow.scalar(ADD, {"run_id": run_id, "type": "run_paused"})
        higher = await cluster.commit(
            lambda c: c.scalar(ADD, {"run_id": run_id, "type": "run_resumed"})
        )

        during = await cluster.commit(lambda c: read_run(c, run_id, after=row.seen, limit=10))
        await slow.commit()
    later = await cluster.commit(lambda c: read_run(c, run_id, after=row.seen, limit=10))

    assert lower < higher
    assert (during.rows, during.held, during.more) == ([], True, False)
    assert [event["id"] for event in later.rows] == [lower, higher]
    assert not later.held


async def test_pages_of_all_runs_end_before_what_is_not_settled(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    old = [row.id for row in await cluster.rows("SELECT id FROM events ORDER BY id")]
    pages = []
    async with cluster.engine.connect() as slow:
        lower = await slow.scalar(ADD, {"run_id": run_id, "type": "run_paused"})
        horizon = await cluster.commit(read_horizon)
        higher = await cluster.commit(
            lambda c: c.scalar(ADD, {"run_id": run_id, "type": "run_resumed"})
        )
        for end in (False, True):
            if end:
                await slow.commit()
            for _ in range(2):
                read = partial(read_all, after=0, limit=100, horizon=horizon)
                page = await cluster.commit(read)
                horizon = page.horizon
                pages.append((page.ids, page.more))

    assert pages == [(old, True), (old, True), (old, True), ([*old, lower, higher], False)]


async def test_pages_follow_each_other_without_a_gap(cluster: Cluster) -> None:
    run_id = await cluster.start(*(agent(f"a{n}") for n in range(7)))
    await cluster.claim(run_id)
    seen: list[int] = []
    more = True
    horizon = await cluster.commit(read_horizon)

    while more:
        after = seen[-1] if seen else 0
        page = await cluster.commit(partial(read_all, after=after, limit=3, horizon=horizon))
        seen += page.ids
        more = page.more

    stored = await cluster.rows("SELECT id FROM events ORDER BY id")
    assert seen == [row.id for row in stored]
    assert await cluster.commit(last_id) == seen[-1]


async def test_an_event_of_the_history_is_read_whole(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    (claimed,) = (await cluster.claim(run_id)).agents

    horizon = await cluster.commit(read_horizon)
    page = await cluster.commit(lambda c: read_all(c, after=0, limit=100, horizon=horizon))

    event = parse_event(page.documents[-1])
    assert (event.run_id, event.agent_run_id, event.attempt) == (run_id, claimed.id, 1)
    assert (event.type, event.data, event.level) == ("agent_started", {"agent": "a"}, "info")
    assert abs(event.at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_the_last_id_of_an_empty_history_is_zero(cluster: Cluster) -> None:
    assert await cluster.commit(last_id) == 0

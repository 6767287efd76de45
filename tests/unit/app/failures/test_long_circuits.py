"""Agents at a circuit that is open for long are handed back, and continue when it is tried."""

import asyncio

import pytest

from app.domain.waits import LongWait
from tests.support.circuits import (
    MODEL,
    OUTAGE,
    admissions,
    cluster_of,
    fail,
    opened,
)

pytestmark = pytest.mark.anyio

OPEN_S = 0.4


async def test_who_comes_to_a_circuit_that_is_open_for_long_is_sent_away() -> None:
    async with cluster_of(2, open_s=OPEN_S) as cluster:
        first, second = cluster.processes
        (await second.admit(*MODEL)).ended(None)
        await fail(first, 3)
        await opened(cluster)

        with pytest.raises(LongWait) as sent_away:
            await second.admit(*MODEL, max_wait_s=0.1)

        assert sent_away.value.waits_for == "openai/gpt-4o circuit"
        assert 0.1 < sent_away.value.wait_s < OPEN_S * 1.2


async def test_a_probe_that_fails_sends_away_who_waits_and_has_somewhere_to_go() -> None:
    async with cluster_of(1, open_s=OPEN_S) as cluster:
        (process,) = cluster.processes
        await fail(process, 3)
        await opened(cluster)
        patient = asyncio.create_task(process.admit(*MODEL))
        hasty = asyncio.create_task(process.admit(*MODEL, max_wait_s=OPEN_S * 1.2))
        probe = await patient
        stays = admissions(cluster, 1)

        probe.ended(OUTAGE)
        told = await asyncio.gather(hasty, return_exceptions=True)

        assert isinstance(told[0], LongWait)
        assert told[0].wait_s > OPEN_S * 1.2
        assert not stays[0].done()
        stays[0].cancel()


async def test_while_a_probe_is_under_way_nobody_is_sent_away() -> None:
    async with cluster_of(1, open_s=0.05) as cluster:
        (process,) = cluster.processes
        await fail(process, 3)
        await opened(cluster)
        probe = await process.admit(*MODEL)

        waiting = asyncio.create_task(process.admit(*MODEL, max_wait_s=0.1))
        await asyncio.wait([waiting], timeout=0.2)
        still_waiting = not waiting.done()
        probe.ended(None)

        assert still_waiting
        assert (await waiting).token == ""

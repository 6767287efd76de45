"""Circuit breakers of several processes that share their state in Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from app.domain.circuit import CircuitBreakerConfig
from app.errors import ServerFailure
from app.failures.breakers import CircuitBreakers
from app.failures.circuit_redis import RedisCircuits
from tests.support.pace import scaled
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio

MODEL = ("openai", "gpt-4o {braces}")
NAME = "/".join(MODEL)
CONFIG = CircuitBreakerConfig(window_s=5, min_failures=4, open_s=0.3, max_open_s=5)


@dataclass
class Process:
    """The breakers of one process, with a connection of its own."""

    redis: Redis
    circuits: RedisCircuits
    breakers: CircuitBreakers
    running: asyncio.Task[None]

    async def call(self, *, fails: bool) -> None:
        ticket = await self.breakers.admit(*MODEL)
        ticket.ended(ServerFailure("down", status=500) if fails else None)

    async def is_open(self) -> bool:
        return self.breakers.is_open(*MODEL)


@asynccontextmanager
async def processes(redis_url: str, number: int = 3) -> AsyncIterator[list[Process]]:
    made = []
    for _ in range(number):
        redis = Redis.from_url(redis_url)
        circuits = RedisCircuits(redis, CONFIG)
        breakers = CircuitBreakers(circuits, CONFIG)
        circuits.listen(breakers.hear)
        made.append(Process(redis, circuits, breakers, asyncio.create_task(breakers.run())))
    channel = "agentchord:circuits:news"

    async def all_listen() -> bool:
        return dict(await made[0].redis.pubsub_numsub(channel)).get(channel.encode()) == number

    await wait_until_async(all_listen, what="all listen")
    yield made
    for process in made:
        process.running.cancel()
        await process.breakers.close()
        await process.circuits.close()
        await process.redis.aclose()


async def open_for_all(cluster: list[Process]) -> None:
    for process in cluster:
        await process.call(fails=False)
    # No process sees enough failures alone, only all together.
    for process in [*cluster, *cluster]:
        await process.call(fails=True)
    for process in cluster:
        await wait_until_async(process.is_open, what="everybody knows that it is open")


async def test_failures_of_all_processes_open_it_and_one_probe_closes_it(redis_url: str) -> None:
    async with processes(redis_url) as cluster:
        await open_for_all(cluster)
        waiting = [
            asyncio.create_task(process.breakers.admit(*MODEL))
            for process in cluster
            for _ in range(4)
        ]

        done, pending = await asyncio.wait(
            waiting, return_when=asyncio.FIRST_COMPLETED, timeout=scaled(3)
        )
        more, _ = await asyncio.wait(pending, timeout=0.5)
        (probe,) = done
        half = await cluster[0].circuits.exchange(NAME, None)
        probe.result().ended(None)
        rest = await asyncio.wait_for(asyncio.gather(*pending), scaled(3))

        assert not more
        assert half.state == "half_open"
        assert {ticket.token for ticket in rest} == {""}
        assert (await cluster[0].circuits.exchange(NAME, None)).state == "closed"
        statistics = [process.breakers.get_statistics() for process in cluster]
        assert sum(counts["probes"] for counts in statistics) == 1
        assert sum(counts["opened"] for counts in statistics) == 1
        assert sum(counts["closed"] for counts in statistics) == 1
        assert await cluster[0].circuits.names() == [NAME]


async def test_a_flushed_redis_lets_everybody_go(redis_url: str) -> None:
    async with processes(redis_url, 2) as cluster:
        await open_for_all([*cluster, *cluster])
        waiting = [asyncio.create_task(process.breakers.admit(*MODEL)) for process in cluster]
        done, pending = await asyncio.wait(
            waiting, return_when=asyncio.FIRST_COMPLETED, timeout=scaled(3)
        )

        # The probe's process dies, and Redis loses everything.
        await cluster[0].redis.flushdb()
        rest = await asyncio.wait_for(asyncio.gather(*pending), scaled(8))

        assert [ticket.token for ticket in rest] == [""]
        done.pop().result().ended(ServerFailure("down", status=500))
        assert await cluster[0].circuits.names() == []
        assert (await cluster[0].circuits.exchange(NAME, None)).state == "closed"

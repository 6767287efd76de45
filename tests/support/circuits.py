"""The circuit breakers of a cluster's processes, on a backend in memory."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from app.domain.circuit import CircuitBreakerConfig
from app.errors import ServerFailure, ServiceUnavailable
from app.failures.breakers import CircuitBreakers, Ticket
from app.failures.circuit import CircuitNews, Message, View
from tests.support.circuit_model import MemoryCircuits
from tests.support.pace import scaled
from tests.support.waiting import wait_until_async

MODEL = ("openai", "gpt-4o")
OUTAGE = ServerFailure("down", status=500)
QUICK: dict[str, Any] = {"window_s": 5.0, "min_failures": 3, "open_s": 0.2, "max_open_s": 1.0}


@dataclass
class Cluster:
    """Several processes that share a backend."""

    config: CircuitBreakerConfig
    away: bool = False
    exchanges: Counter[str] = field(default_factory=Counter)
    processes: list[CircuitBreakers] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory = MemoryCircuits(self.config)
        self.memory.listen(self.spread)

    def spread(self, news: CircuitNews) -> None:
        for process in self.processes:
            process.hear(news)

    async def exchange(self, circuit: str, message: Message | None) -> View:
        if self.away:
            raise ServiceUnavailable("away")
        self.exchanges["look" if message is None else "say"] += 1
        return await self.memory.exchange(circuit, message)

    async def names(self) -> list[str]:
        return await self.memory.names()

    def listen(self, on_news: Callable[[CircuitNews], None]) -> None:
        self.memory.listen(on_news)

    async def close(self) -> None:
        await self.memory.close()

    @property
    def state(self) -> str:
        now = asyncio.get_running_loop().time()
        return self.memory._circuits["/".join(MODEL)].view(self.config, now).state


@asynccontextmanager
async def cluster_of(processes: int, **policy: Any) -> AsyncIterator[Cluster]:
    config = CircuitBreakerConfig(**QUICK | policy)
    cluster = Cluster(config)
    cluster.processes = [CircuitBreakers(cluster, config) for _ in range(processes)]
    yield cluster
    for process in cluster.processes:
        await process.close()


async def fail(process: CircuitBreakers, times: int, error: BaseException = OUTAGE) -> None:
    tickets = [await process.admit(*MODEL) for _ in range(times)]
    for ticket in tickets:
        ticket.ended(error)


async def opened(cluster: Cluster) -> None:
    await wait_until_async(
        lambda: _all_open(cluster), timeout_s=scaled(2), what="all know that it is open"
    )


async def _all_open(cluster: Cluster) -> bool:
    return all(process.is_open(*MODEL) for process in cluster.processes)


def admissions(cluster: Cluster, each: int) -> list[asyncio.Task[Ticket]]:
    return [
        asyncio.create_task(process.admit(*MODEL))
        for process in cluster.processes
        for _ in range(each)
    ]

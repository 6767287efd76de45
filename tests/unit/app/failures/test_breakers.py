"""Circuit breakers of the processes of a cluster, on a backend in memory."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.domain.circuit import CircuitBreakerConfig
from app.errors import (
    AgentTimeout,
    AuthenticationFailed,
    BadRequest,
    BudgetExceeded,
    CircuitOpen,
    ConfigurationError,
    ConnectionFailed,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    ServerFailure,
    ServiceUnavailable,
)
from app.failures.breakers import CircuitBreakers, CircuitReopened, Ticket, judge
from app.failures.circuit import PROBE_LEASE_S, Circuit, CircuitNews, Message, View
from app.failures.circuit_memory import MemoryCircuits
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio

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
        self.memory = MemoryCircuits(self.config, on_news=self.spread)

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
        ticket.ended(error, called_s=1.0)


async def opened(cluster: Cluster) -> None:
    await wait_until_async(lambda: _all_open(cluster), timeout_s=2, what="all know that it is open")


async def _all_open(cluster: Cluster) -> bool:
    return all(process.is_open(*MODEL) for process in cluster.processes)


def admissions(cluster: Cluster, each: int) -> list[asyncio.Task[Ticket]]:
    return [
        asyncio.create_task(process.admit(*MODEL))
        for process in cluster.processes
        for _ in range(each)
    ]


@pytest.mark.parametrize(
    ("error", "called_s", "verdict"),
    [
        (None, 1, "ok"),
        (ServerFailure("", status=500), 1, "bad"),
        (ServerFailure("", status=502), 1, "bad"),
        (ServerFailure("garbage", status=200), 1, "bad"),
        (Overloaded("", status=529), 1, "bad"),
        (Overloaded("in a stream", status=200), 1, "bad"),
        (ConnectionFailed("refused"), 1, "bad"),
        (ServerFailure("conflict", status=409), 1, "ok"),
        (ConnectionFailed("request timeout", status=408), 1, "ok"),
        (RateLimited("", status=429), 1, "ok"),
        (QuotaExhausted("", status=429), 1, "ok"),
        (BadRequest("", status=400), 1, "ok"),
        (AuthenticationFailed("", status=401), 1, "ok"),
        (AuthenticationFailed("no key"), 0, None),
        (BadRequest("too large to send", reached=False), 0, None),
        (AgentTimeout("impatient"), 5, None),
        (AgentTimeout("patient"), 31, "bad"),
        (BudgetExceeded(""), 0, None),
        (asyncio.CancelledError(), 3, None),
    ],
)
def test_only_the_models_own_failures_count(
    error: BaseException | None, called_s: float, verdict: str | None
) -> None:
    assert judge(error, called_s=called_s, slow_s=30) == verdict


async def test_sustained_failures_open_the_circuit_for_every_process() -> None:
    async with cluster_of(2, open_s=1) as cluster:
        one, other = cluster.processes
        await succeed(other)

        await fail(one, 3)
        await opened(cluster)

        assert one.get_statistics()["opened"] == 1
        assert other.get_statistics()["open"] == ["openai/gpt-4o"]
        assert not other.is_open("openai", "gpt-4o-mini")


async def succeed(process: CircuitBreakers) -> None:
    """A call that no circuit delays."""
    async with asyncio.timeout(1):
        ticket = await process.admit(*MODEL)
    ticket.check()
    ticket.ended(None, called_s=0.1)


async def test_a_share_of_failures_below_the_policys_keeps_it_closed() -> None:
    async with cluster_of(1, failure_share=0.5) as cluster:
        (process,) = cluster.processes
        for _ in range(20):
            await succeed(process)

        await fail(process, 8)
        await wait_until_async(lambda: _said(cluster, 1))

        assert not process.is_open(*MODEL)


async def _said(cluster: Cluster, times: int) -> bool:
    return cluster.exchanges["say"] >= times


async def test_429s_never_open_it() -> None:
    async with cluster_of(1) as cluster:
        await fail(cluster.processes[0], 50, RateLimited("slow down", status=429))

        assert not cluster.processes[0].is_open(*MODEL)
        assert cluster.exchanges == {"look": 1}


async def test_a_closed_circuit_costs_one_look_for_all_calls() -> None:
    async with cluster_of(1) as cluster:
        for _ in range(1000):
            await succeed(cluster.processes[0])

        assert cluster.exchanges == {"look": 1}


async def test_one_probe_goes_in_the_whole_cluster_and_its_success_lets_all_go() -> None:
    async with cluster_of(3) as cluster:
        for process in cluster.processes:
            await succeed(process)
        await fail(cluster.processes[0], 3)
        await opened(cluster)
        waiting = admissions(cluster, 5)

        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=2)
        more, _ = await asyncio.wait(pending, timeout=0.5)

        (probe,) = done
        assert not more
        assert probe.result().token
        assert cluster.state == "half_open"

        probe.result().ended(None, called_s=0.1)
        rest = await asyncio.wait_for(asyncio.gather(*pending), 2)

        assert [ticket.token for ticket in rest] == [""] * 14
        assert cluster.state == "closed"


async def test_a_probe_that_fails_opens_it_for_twice_the_time() -> None:
    async with cluster_of(1, open_s=0.3, max_open_s=10) as cluster:
        (process,) = cluster.processes
        await fail(process, 3)
        await opened(cluster)
        loop = asyncio.get_running_loop()
        start_s = loop.time()

        first = await process.admit(*MODEL)
        first_s = loop.time() - start_s
        first.ended(OUTAGE, called_s=0.0)
        second = await asyncio.wait_for(process.admit(*MODEL), 3)
        second_s = loop.time() - start_s - first_s
        second.ended(None, called_s=0.0)

        assert first.token
        assert second.token
        assert first_s >= 0.25
        assert second_s >= 0.55


async def test_a_probe_that_is_never_made_goes_to_the_next() -> None:
    async with cluster_of(2) as cluster:
        for process in cluster.processes:
            await succeed(process)
        await fail(cluster.processes[0], 3)
        await opened(cluster)
        waiting = admissions(cluster, 2)
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=2)

        done.pop().result().ended(BudgetExceeded("no money"), called_s=0.0)
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED, timeout=2)

        assert done.pop().result().token
        for task in pending:
            task.cancel()


async def test_who_stops_waiting_takes_no_probe_along() -> None:
    async with cluster_of(1) as cluster:
        (process,) = cluster.processes
        await fail(process, 3)
        await opened(cluster)
        first, second = admissions(cluster, 2)
        await asyncio.wait([first], timeout=0.05)
        first.cancel()

        ticket = await asyncio.wait_for(second, 2)

        assert ticket.token


async def test_a_call_that_waited_elsewhere_notices_that_the_circuit_has_opened() -> None:
    async with cluster_of(1) as cluster:
        (process,) = cluster.processes
        early = await process.admit(*MODEL)
        early.check()

        await fail(process, 3)
        await opened(cluster)

        with pytest.raises(CircuitReopened):
            early.check()


async def test_agents_may_fail_at_once_but_one_still_probes() -> None:
    async with cluster_of(1, when_open="fail") as cluster:
        (process,) = cluster.processes
        await fail(process, 3)
        await opened(cluster)

        with pytest.raises(CircuitOpen, match="openai/gpt-4o fails for everybody"):
            await process.admit(*MODEL)
        probe = await wait_until_async(lambda: _ticket(process), what="a probe may go")
        with pytest.raises(CircuitOpen):
            await process.admit(*MODEL)
        assert probe is not None
        probe.ended(None, called_s=0.1)
        await wait_until_async(lambda: _is_closed(process))

        assert (await process.admit(*MODEL)).token == ""


async def _ticket(process: CircuitBreakers) -> Ticket | None:
    try:
        return await process.admit(*MODEL)
    except CircuitOpen:
        return None


async def _is_closed(process: CircuitBreakers) -> bool:
    return not process.is_open(*MODEL)


async def test_a_flush_closes_the_circuit_for_those_who_wait() -> None:
    async with cluster_of(1, open_s=60, max_open_s=60) as cluster:
        await fail(cluster.processes[0], 3)
        await opened(cluster)
        (waiting,) = admissions(cluster, 1)

        cluster.memory.flush()
        ticket = await asyncio.wait_for(waiting, 5)

        assert ticket.token == ""


async def test_without_the_backend_circuits_are_closed() -> None:
    async with cluster_of(1) as cluster:
        cluster.away = True

        await fail(cluster.processes[0], 50)

        await succeed(cluster.processes[0])


def test_a_probe_whose_process_died_is_given_to_another() -> None:
    config = CircuitBreakerConfig(**QUICK)
    circuit = Circuit()

    def say(now: float, **said: Any) -> View:
        return circuit.exchange(config, Message(process="p", number=0, **said), now)[0]

    circuit.exchange(config, Message(process="p", number=1, bad=3), 0.0)

    def asks(token: str, now: float) -> bool:
        return say(now, token=token).granted

    assert not asks("early", 0.1)
    assert asks("lost", 0.3)
    assert not asks("other", 0.3 + PROBE_LEASE_S - 0.1)
    assert asks("other", 0.3 + PROBE_LEASE_S)
    assert say(20.0, token="lost", verdict="ok").state == "half_open"
    assert say(20.0, token="other", verdict="ok").state == "closed"


def test_a_probe_that_is_renewed_is_not_lost() -> None:
    config = CircuitBreakerConfig(**QUICK)
    circuit = Circuit()
    circuit.exchange(config, Message(process="p", number=1, bad=3), 0.0)
    circuit.exchange(config, Message(process="p", number=0, token="slow"), 1.0)

    circuit.exchange(config, Message(process="p", number=0, token="slow", verdict="renew"), 14.0)
    view, _ = circuit.exchange(config, Message(process="q", number=0, token="eager"), 20.0)

    assert not view.granted


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_failures": 0}, "min_failures is 0"),
        ({"failure_share": 1.5}, "failure_share is 1.5"),
        ({"open_s": 0}, "open_s is 0"),
        ({"open_s": 90}, "max_open_s is 60, less than open_s"),
        ({"when_open": "panic"}, "when_open is 'panic'"),
        ({"enabled": "yes"}, "enabled is 'yes'"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CircuitBreakerConfig(**values)

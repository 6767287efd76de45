"""Circuits open, are probed and close again, for all processes of a cluster."""

import asyncio
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
)
from app.failures.breakers import CircuitBreakers, CircuitReopened, Ticket, judge
from app.failures.circuit import Message, View
from tests.support.circuit_model import PROBE_LEASE_S, Circuit
from tests.support.circuits import (
    MODEL,
    OUTAGE,
    QUICK,
    Cluster,
    admissions,
    cluster_of,
    fail,
    opened,
)
from tests.support.pace import scaled
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (None, "ok"),
        (ServerFailure("", status=500), "bad"),
        (ServerFailure("", status=502), "bad"),
        (ServerFailure("garbage", status=200), "bad"),
        (Overloaded("", status=529), "bad"),
        (Overloaded("in a stream", status=200), "bad"),
        (ConnectionFailed("refused"), "bad"),
        (ServerFailure("conflict", status=409), "ok"),
        (ConnectionFailed("request timeout", status=408), "ok"),
        (RateLimited("", status=429), "ok"),
        (QuotaExhausted("", status=429), "ok"),
        (BadRequest("", status=400), "ok"),
        (AuthenticationFailed("", status=401), "ok"),
        (AuthenticationFailed("no key"), None),
        (BadRequest("too large to send", reached=False), None),
        (AgentTimeout("impatient", called_s=5), None),
        (AgentTimeout("patient", called_s=31), "bad"),
        (BudgetExceeded(""), None),
        (asyncio.CancelledError(), None),
    ],
)
def test_only_the_models_own_failures_count(
    error: BaseException | None, verdict: str | None
) -> None:
    assert judge(error, slow_s=30) == verdict


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
    ticket.ended(None)


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

        done, pending = await asyncio.wait(
            waiting, return_when=asyncio.FIRST_COMPLETED, timeout=scaled(2)
        )
        more, _ = await asyncio.wait(pending, timeout=0.5)

        (probe,) = done
        assert not more
        assert probe.result().token
        assert cluster.state == "half_open"

        probe.result().ended(None)
        rest = await asyncio.wait_for(asyncio.gather(*pending), scaled(2))

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
        first.ended(OUTAGE)
        second = await asyncio.wait_for(process.admit(*MODEL), scaled(3))
        second_s = loop.time() - start_s - first_s
        second.ended(None)

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
        done, pending = await asyncio.wait(
            waiting, return_when=asyncio.FIRST_COMPLETED, timeout=scaled(2)
        )

        done.pop().result().ended(BudgetExceeded("no money"))
        done, pending = await asyncio.wait(
            pending, return_when=asyncio.FIRST_COMPLETED, timeout=scaled(2)
        )

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

        ticket = await asyncio.wait_for(second, scaled(2))

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
        probe.ended(None)
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
        ticket = await asyncio.wait_for(waiting, scaled(5))

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

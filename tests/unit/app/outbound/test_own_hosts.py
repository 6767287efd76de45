"""A request under a foreign name gets no answer from any server that AgentChord starts."""

import asyncio
import http.client
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from app.domain.hosts import is_own_host
from app.domain.policies import MonitorConfig
from app.monitoring.exporter import Exporter
from app.simulator import Simulator
from tests.support.pace import scaled
from workers.worker_metrics import WorkerMetrics

OWN = ("127.0.0.1", "127.0.0.1:9464", "[::1]:80", "localhost", "exporter:9464", "a.localhost")
OWN_NAMES = (*OWN, "10.1.2.3", "w1.internal:9465", "sim.ns.svc", "LOCALHOST.", "fe80.local")
FOREIGN = ("evil.example.com", "evil.com:9464", "127.0.0.1.evil.com", "localhost.evil.com", "")
STRANGE = ("a b", "a\tb", "[::1", "evil.com#localhost", "evil.com,localhost", ".", "a.b@localhost")


@pytest.mark.parametrize("host", OWN_NAMES)
def test_an_address_and_a_name_that_nobody_can_register_is_our_own(host: str) -> None:
    assert is_own_host(host)


@pytest.mark.parametrize("host", [*FOREIGN, *STRANGE])
def test_a_name_of_the_internet_is_foreign_until_it_is_allowed(host: str) -> None:
    assert not is_own_host(host)
    assert not is_own_host(host, ["other.example.com"])


def test_an_allowed_name_is_our_own_in_every_spelling() -> None:
    assert is_own_host("W1.Example.com.:9465", ["w1.example.com"])


@asynccontextmanager
async def exporter() -> AsyncIterator[tuple[int, str]]:
    runner = web.AppRunner(Exporter({}, allowed_hosts=["m.example.com"]).application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1], "/metrics"
    await runner.cleanup()


@asynccontextmanager
async def worker() -> AsyncIterator[tuple[int, str]]:
    config = MonitorConfig(metrics_port=free_port(), allowed_hosts=("m.example.com",))
    metrics = WorkerMetrics(config)
    metrics.start()
    assert metrics.port is not None
    yield metrics.port, "/metrics"
    metrics.stop()


@asynccontextmanager
async def simulator() -> AsyncIterator[tuple[int, str]]:
    async with Simulator() as running:
        yield running.port, "/_simulator/ledger"


@pytest.mark.anyio
@pytest.mark.parametrize("server", [exporter, worker, simulator])
async def test_a_server_answers_only_under_its_own_names(server: Any) -> None:
    async with server() as (port, path):
        own = [await asyncio.to_thread(ask, port, path, f"localhost:{port}")]
        foreign = [await asyncio.to_thread(ask, port, path, name) for name in FOREIGN]

    assert own == [200]
    assert set(foreign) == {421}


@pytest.mark.anyio
@pytest.mark.parametrize("server", [exporter, worker])
async def test_a_server_of_metrics_answers_under_an_allowed_name(server: Any) -> None:
    async with server() as (port, path):
        assert await asyncio.to_thread(ask, port, path, "m.example.com") == 200


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def ask(port: int, path: str, host: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=scaled(10))
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status

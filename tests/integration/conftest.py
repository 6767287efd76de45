"""Fixtures of the integration tests: a database, and the simulator as its users see it."""

from collections.abc import AsyncIterator, Iterator

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from app.bootstrap import build_platform
from app.client.client import Client
from app.embedded.connected import connected_settings
from app.sandbox.processes import Sandbox
from app.simulator import Simulator
from app.storage.session import create_engine
from tests.support.database_cluster import Cluster
from tests.support.sdk_clients import anthropic_sdk, openai_sdk
from tests.support.stack import lead_celery_to


@pytest.fixture
async def cluster(database_url: str, anyio_backend: str) -> AsyncIterator[Cluster]:
    engine = create_engine(database_url)
    yield Cluster(engine)
    await engine.dispose()


@pytest.fixture
async def sim(anyio_backend: str) -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest.fixture
async def openai_client(sim: Simulator) -> AsyncIterator[AsyncOpenAI]:
    async with openai_sdk(sim.openai_base_url) as client:
        yield client


@pytest.fixture
async def anthropic_client(sim: Simulator) -> AsyncIterator[AsyncAnthropic]:
    async with anthropic_sdk(sim.anthropic_base_url) as client:
        yield client


@pytest.fixture
async def client(
    database_url: str, redis_url: str, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    """A client of everything on the test's own loop."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    connected_settings.forget()
    lead_celery_to(redis_url)
    client = Client(build_platform(application_name="agentchord test"))
    yield client
    await client.close()
    connected_settings.forget()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One sandbox for all tests of a module, as in a worker."""
    found = Sandbox()
    yield found
    found.close()

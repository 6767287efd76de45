from collections.abc import AsyncIterator

import pytest

from app.storage.session import create_engine
from tests.support.database_cluster import Cluster


@pytest.fixture
async def cluster(database_url: str, anyio_backend: str) -> AsyncIterator[Cluster]:
    engine = create_engine(database_url)
    yield Cluster(engine)
    await engine.dispose()

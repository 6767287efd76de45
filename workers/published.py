"""Publishes the names of the code that this worker loads, so that mistakes are found early."""

import asyncio
import contextlib
from functools import partial

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.loaded import Loaded
from app.storage import worker_loads

PUBLISH_S = 10.0

log = structlog.get_logger(__name__)


class Publisher:
    """Writes the worker's row every few seconds, and removes the row at the end.

    Its weakness: the row of a killed worker counts for up to 30 s after the worker's death.

    Args:
        engine: The process's engine.
        worker: Unique name of the worker.
        node: Name of the worker among Celery's workers.
        loaded: The names.

    Example:
        publisher = Publisher(engine, worker="host:1:5f0c", node="celery@host", loaded=loaded)
        task = asyncio.create_task(publisher.run())
        await publisher.close()
    """

    def __init__(self, engine: AsyncEngine, *, worker: str, node: str, loaded: Loaded) -> None:
        self._engine = engine
        self._worker = worker
        self._publish = partial(worker_loads.publish, worker=worker, node=node, loaded=loaded)

    async def run(self) -> None:
        """Publish again and again, until the task is cancelled."""
        while True:
            try:
                async with self._engine.begin() as connection:
                    await self._publish(connection)
            except (DBAPIError, TimeoutError) as error:
                log.warning("names_not_published", error=str(error))
            await asyncio.sleep(PUBLISH_S)

    async def close(self) -> None:
        """Remove the row; if Postgres is away, the row expires by itself."""
        with contextlib.suppress(DBAPIError, TimeoutError):
            async with self._engine.begin() as connection:
                await worker_loads.remove(connection, self._worker)

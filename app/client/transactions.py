"""A client's transactions in Postgres; the transactions raise the errors of this package."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import Platform
from app.embedded.connected import database_url
from app.errors import SchemaMismatch, ServiceUnavailable
from app.storage import schema
from app.storage.group_commit import is_transient
from app.storage.redis import refuse_unsuitable_soon

UNDEFINED_TABLE = "42P01"

Result = TypeVar("Result")


class Transactions:
    """Runs steps in transactions of their own.

    The first transaction checks that the database has the schema of this version, and that Redis is
    no Redis Cluster, so that a client stores nothing that no worker could take.

    Args:
        platform: The process's platform.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._schema_fits = False
        self._redis_fits = False
        self._asking_redis = asyncio.Lock()

    async def run(self, step: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Run one transaction.

        Raises:
            ConfigurationError: If AgentChord cannot work with this Redis.
            SchemaMismatch: If the database has no tables yet, or an older or newer schema.
            ServiceUnavailable: If Postgres cannot be reached.
        """
        await self._ask_redis()
        try:
            return await self._attempt(step)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == UNDEFINED_TABLE:
                built_in = self._platform.has_embedded_postgres
                raise SchemaMismatch(schema.no_tables(embedded=built_in)) from error
            if is_transient(error):
                url = database_url(self._platform.settings)
                raise ServiceUnavailable(schema.unreachable(url, error)) from error
            raise

    async def _attempt(self, step: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Run a step; if Postgres had closed the connection before the step, run the step again.

        If the connection is lost during the commit, the step is not repeated, because Postgres may
        have committed.
        """
        taken = False
        try:
            async with self._platform.engine.begin() as connection:
                await self._check_schema(connection)
                result = await step(connection)
                taken = True
            return result
        except DBAPIError as error:
            if taken or not error.connection_invalidated:
                raise
        async with self._platform.engine.begin() as connection:
            await self._check_schema(connection)
            return await step(connection)

    async def _check_schema(self, connection: AsyncConnection) -> None:
        """Check the schema once; a migration during the life of this process changes nothing."""
        if not self._schema_fits:
            await schema.require_inside(connection)
            self._schema_fits = True

    async def _ask_redis(self) -> None:
        """Ask Redis once, unless Redis refuses; a Redis that is away is asked only once, too."""
        if self._redis_fits:
            return
        async with self._asking_redis:
            if not self._redis_fits:
                await refuse_unsuitable_soon(self._platform.redis)
                self._redis_fits = True

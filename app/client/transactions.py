"""A client's transactions in Postgres; the transactions raise the errors of this package."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import Platform, database_url
from app.errors import SchemaMismatch, ServiceUnavailable
from app.storage import schema
from app.storage.group_commit import is_transient

UNDEFINED_TABLE = "42P01"

Result = TypeVar("Result")


class Transactions:
    """Runs steps in transactions of their own.

    Args:
        platform: The process's platform.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def run(self, step: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Run one transaction.

        Raises:
            SchemaMismatch: If the database has no tables yet.
            ServiceUnavailable: If Postgres cannot be reached.
        """
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
                result = await step(connection)
                taken = True
            return result
        except DBAPIError as error:
            if taken or not error.connection_invalidated:
                raise
        async with self._platform.engine.begin() as connection:
            return await step(connection)

"""Executes the statements of the hot path directly with the driver, psycopg.

SQLAlchemy opens and pools the connections, and begins and ends the transactions. Inside a
transaction, the driver executes the statements, because SQLAlchemy needs twice the CPU of the
driver for a statement; each agent needs several statements.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import TextClause, text
from sqlalchemy.dialects import registry
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

#: A named tuple with the columns of a statement; this module or SQLAlchemy returns the tuple.
Row = Any

ALIVE: TextClause = text("SELECT 1")


async def fetch(
    connection: AsyncConnection, statement: TextClause, values: Mapping[str, Any]
) -> list[Row]:
    """Execute a statement.

    Args:
        connection: Inside a transaction.
        statement: The statement. It must be a constant of a module, because its translation is
            cached for ever.
        values: The statement's parameters by name.

    Returns:
        The rows as named tuples; an empty list if the statement returns no rows.

    Raises:
        DBAPIError: If the statement fails; ``connection.execute`` would raise the same error.
    """
    assert connection.sync_connection is not None, "fetch needs a connection that is open"
    driver = connection.sync_connection.connection.driver_connection
    assert isinstance(driver, psycopg.AsyncConnection), "fetch speaks to psycopg"
    cursor = driver.cursor(row_factory=namedtuple_row)
    try:
        await cursor.execute(_translated(statement), values)
        return await cursor.fetchall() if cursor.pgresult and cursor.pgresult.nfields else []
    except psycopg.Error as error:
        if driver.closed:
            # The statement ALIVE also fails, and therefore SQLAlchemy replaces the whole pool.
            await connection.execute(ALIVE)
        raise DBAPIError.instance(
            statement.text, None, error, psycopg.Error, hide_parameters=True
        ) from error


@cache
def _translated(statement: TextClause) -> bytes:
    """Translate the statement's parameters to psycopg's notation."""
    return str(statement.compile(dialect=registry.load("postgresql.psycopg")())).encode()

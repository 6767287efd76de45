"""Statements of the hot path, executed by the driver itself.

SQLAlchemy opens the connections, keeps them, and begins and ends the transactions. Between these
its own way of executing a text takes twice the CPU of the driver's, and an agent needs several.
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

#: A row of an answer, by the columns of its statement: a named tuple from here or SQLAlchemy.
Row = Any

ALIVE: TextClause = text("SELECT 1")


async def fetch(
    connection: AsyncConnection, statement: TextClause, values: Mapping[str, Any]
) -> list[Row]:
    """Execute a statement.

    Args:
        connection: Inside a transaction.
        statement: A constant of its module: its translation is kept for good.
        values: Its parameters by name.

    Returns:
        The rows as named tuples; none of a statement that answers none.

    Raises:
        DBAPIError: As ``connection.execute`` does.
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
            await connection.execute(ALIVE)  # fails too, and so SQLAlchemy replaces the whole pool
        raise DBAPIError.instance(
            statement.text, None, error, psycopg.Error, hide_parameters=True
        ) from error


@cache
def _translated(statement: TextClause) -> bytes:
    """Translate the text to psycopg's way of writing parameters."""
    return str(statement.compile(dialect=registry.load("postgresql.psycopg")())).encode()

"""The tool ``sql_query``, which reads the configured databases and cannot change them.

Four barriers protect the databases. A query is one statement that begins with a word for reading; a
query with a semicolon is refused. The database itself keeps the transaction read-only. Rows and
time are limited. The configured user has only the rights that the operator chooses.
"""

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypedDict
from urllib.parse import quote

from pydantic_core import to_jsonable_python
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from app.configuration.sections import Database
from app.domain.suggestions import listed, shortened
from app.errors import ConfigurationError
from app.tools.tool import Tool

MAX_QUERY_CHARS = 100_000
MARGIN_S = 10.0
# The results of these statements are read through a cursor, so that a large result stays in the
# database.
READS = ("SELECT", "WITH", "VALUES", "TABLE")
DESCRIBES = ("EXPLAIN", "SHOW", "DESCRIBE", "DESC")
_FIRST_WORD = re.compile(r"[\s(]*([A-Za-z]+)")
# In MySQL, these clauses write files even in a read-only transaction. A comment of MySQL may
# contain a statement.
_WRITES_A_FILE = re.compile(r"\binto\s+(outfile|dumpfile)\b|/\*", re.IGNORECASE)

Value = str | int | float | bool | None
Guard = Callable[[Connection, float], Sequence[str]]


class Rows(TypedDict):
    """Rows of a query; ``more`` is true if there are further rows."""

    columns: list[str]
    rows: list[list[Any]]
    more: bool


class QueryTools:
    """The tool that reads databases.

    Args:
        databases: Databases by the name that models use.

    Raises:
        ConfigurationError: If a database cannot be protected from changes.
    """

    def __init__(self, databases: Mapping[str, Database]) -> None:
        self._readers = {name: _Reader(name, database) for name, database in databases.items()}

    def sql_query(
        self,
        query: str,
        parameters: dict[str, Value] | None = None,
        database: str | None = None,
    ) -> Rows:
        """Read a database with one SQL query; it cannot change anything.

        Args:
            query: One SELECT, without a semicolon. Write values as :name and give them as
                parameters.
            parameters: Values by name.
            database: Name of the database; may be left out if there is only one.
        """
        if database is None and len(self._readers) == 1:
            (database,) = self._readers
        reader = self._readers.get(database or "")
        if reader is None:
            raise ValueError(
                f"there is no database {shortened(database)}: use one of {listed(self._readers)}"
            )
        return reader.read(query, parameters or {})


class _Reader:
    """Reads one database, with a new connection for each query."""

    def __init__(self, name: str, database: Database) -> None:
        self._database = database
        try:
            url = make_url(database.url.get_secret_value())
        except ArgumentError as error:
            raise ConfigurationError(
                f"tools.sql.{name}: url is not a URL: write it as dialect://user:password@host/name"
            ) from error
        self._dialect = url.get_backend_name()
        if self._dialect not in GUARDS:
            raise ConfigurationError(
                f"tools.sql.{name}: {self._dialect!r} databases cannot be kept read-only here: use "
                f"one of {listed(GUARDS)}"
            )
        try:
            self._engine = _engine(name, url)
        except (SQLAlchemyError, ImportError) as error:
            raise ConfigurationError(f"tools.sql.{name}: {error}") from error

    def read(self, query: str, parameters: Mapping[str, Value]) -> Rows:
        query = query.strip().rstrip(";").rstrip()
        word = _first_word(query)
        if self._dialect in ("mysql", "mariadb") and _WRITES_A_FILE.search(query):
            raise ValueError("comments and INTO OUTFILE are not allowed: leave them out")
        try:
            with self._engine.connect() as connection, self._limited(connection):
                for guard in GUARDS[self._dialect](connection, self._database.timeout_s):
                    connection.exec_driver_sql(guard)
                if word in READS:
                    connection.execution_options(stream_results=True)
                return self._rows(connection, query, parameters)
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip()
            raise ValueError(f"the database refuses the query: {reason}") from error

    def _rows(self, connection: Connection, query: str, parameters: Mapping[str, Value]) -> Rows:
        limit = self._database.max_rows
        with connection.execute(text(query), dict(parameters)) as result:
            if not result.returns_rows:
                raise ValueError("the query returns no rows: write a SELECT")
            found = [list(row) for row in result.fetchmany(limit + 1)]
            return {
                "columns": list(result.keys()),
                "rows": to_jsonable_python(found[:limit], fallback=str, bytes_mode="base64"),
                "more": len(found) > limit,
            }

    @contextmanager
    def _limited(self, connection: Connection) -> Iterator[None]:
        """Stop SQLite's query when the time is over; other databases stop queries themselves."""
        if self._dialect != "sqlite":
            yield
            return
        driver = connection.connection.driver_connection
        assert driver is not None, "the connection is open"
        timer = threading.Timer(self._database.timeout_s, driver.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def sql_tools(databases: Mapping[str, Database]) -> Sequence[Tool]:
    """Make the tool that reads the operator's databases; without databases, make no tool."""
    if not databases:
        return ()
    timeout_s = max(database.timeout_s for database in databases.values()) + MARGIN_S
    names = f"Databases: {', '.join(databases)}."
    return [Tool(QueryTools(databases).sql_query, timeout_s=timeout_s, idempotent=True, more=names)]


def _first_word(query: str) -> str:
    if len(query) > MAX_QUERY_CHARS:
        raise ValueError(f"the query has over {MAX_QUERY_CHARS:,} characters: shorten it")
    if ";" in query:
        # A parser here might not agree with the database on whether the semicolon is inside a
        # string.
        raise ValueError("write one statement without a semicolon; give texts as parameters")
    match = _FIRST_WORD.match(query)
    word = match[1].upper() if match else ""
    if word not in (*READS, *DESCRIBES):
        raise ValueError(
            f"the query begins with {shortened(query[:20])}: begin it with one of "
            f"{', '.join((*READS, *DESCRIBES))}"
        )
    return word


def _engine(name: str, url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, poolclass=NullPool, hide_parameters=True)
    if not url.database or url.database == ":memory:":
        raise ConfigurationError(f"tools.sql.{name}: give the path of a SQLite file")
    file = f"file:{quote(url.database)}?mode=ro"
    # One thread runs a query, and another thread may interrupt it.
    connect = partial(sqlite3.connect, file, uri=True, check_same_thread=False)
    return create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)


def _guard_mysql(connection: Connection, timeout_s: float) -> Sequence[str]:
    is_mariadb = getattr(connection.dialect, "is_mariadb", False)
    return (
        f"SET SESSION max_statement_time = {timeout_s:f}"
        if is_mariadb
        else f"SET SESSION max_execution_time = {int(timeout_s * 1000)}",
        "SET SESSION TRANSACTION READ ONLY",
        "START TRANSACTION READ ONLY",
    )


#: For each dialect, the statements that make a query's transaction read-only and limit the query's
#: time.
GUARDS: dict[str, Guard] = {
    "postgresql": lambda _, timeout_s: (
        "SET TRANSACTION READ ONLY",
        f"SET LOCAL statement_timeout = {int(timeout_s * 1000)}",
    ),
    "mysql": _guard_mysql,
    "mariadb": _guard_mysql,
    "sqlite": lambda *_: ("PRAGMA query_only = ON",),
}

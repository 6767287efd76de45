"""The tool ``sql_query``, which reads the configured databases and cannot change them.

Four barriers protect the databases. A query is one statement that begins with a word for reading; a
query with a semicolon is refused. The database itself keeps the transaction read-only. Rows, bytes
and time are limited. The configured user has only the rights that the operator chooses.

A query can change the settings of its own session, such as Postgres's statement_timeout. So the
time is also limited from outside: another connection cancels the query.
"""

import contextlib
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypedDict, cast
from urllib.parse import quote

from pydantic_core import to_json, to_jsonable_python
from sqlalchemy import Connection, TextClause, create_engine, text
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from app.configuration.sections import Database
from app.domain.suggestions import listed, shortened
from app.errors import ConfigurationError
from app.tools.tool import BuiltinTool, Tool

MAX_QUERY_CHARS = 100_000
MARGIN_S = 10.0
#: Seconds between two cancellations of a query that goes on.
CANCEL_AGAIN_S = 0.5
ROWS_AHEAD = 10
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
        deadline_s = time.monotonic() + self._database.timeout_s
        try:
            with self._engine.connect() as connection, self._limited(connection):
                for guard in GUARDS[self._dialect](connection, self._database.timeout_s):
                    connection.exec_driver_sql(guard)
                statement = text(query)
                if word in READS:
                    statement = self._bounded(connection, query, parameters)
                return self._rows(connection, statement, parameters, deadline_s)
        except SQLAlchemyError as error:
            if time.monotonic() >= deadline_s:
                raise ValueError(self._too_late) from error
            reason = str(getattr(error, "orig", None) or error).strip()
            if "division by zero" in reason and word in READS:
                reason = f"{reason}, or {self._too_long}"
            raise ValueError(f"the database refuses the query: {reason}") from error

    def _bounded(
        self, connection: Connection, query: str, parameters: Mapping[str, Value]
    ) -> TextClause:
        """Return the statement that reads a query row by row, without rows that are too long.

        The driver receives a row as a whole. SQLite has a limit of its own for a row, and MySQL has
        max_allowed_packet.
        """
        if self._dialect == "postgresql":
            # A query that is valid by itself has balanced brackets, so it cannot end the brackets
            # around it.
            connection.execute(text(f"EXPLAIN {query}"), dict(parameters)).close()
            # If a column had the same name, the name would mean this column and not the row.
            row = f"row_{secrets.token_hex(8)}"
            limit = self._database.max_bytes
            # The size in memory is known at once. A stored value may be compressed, so the length
            # of the text counts, too.
            refusal = (
                f"CASE WHEN pg_column_size({row}) > {limit} THEN 1 / (pg_column_size({row}) * 0) "
                f"WHEN octet_length({row}::text) > {limit} THEN 1 / (pg_column_size({row}) * 0) "
                "ELSE 1 END"
            )
            query = f"SELECT {row}.* FROM (\n{query}\n) AS {row} WHERE {refusal} = 1"  # noqa: S608
        return text(query).execution_options(stream_results=True, max_row_buffer=ROWS_AHEAD)

    def _rows(
        self,
        connection: Connection,
        statement: TextClause,
        parameters: Mapping[str, Value],
        deadline_s: float,
    ) -> Rows:
        left = self._database.max_bytes
        rows: list[Any] = []
        more = False
        with connection.execute(statement, dict(parameters)) as result:
            if not result.returns_rows:
                raise ValueError("the query returns no rows: write a SELECT")
            for row in result:
                if time.monotonic() >= deadline_s:
                    raise ValueError(self._too_late)
                if more := len(rows) == self._database.max_rows:
                    break
                rows.append(to_jsonable_python(list(row), fallback=str, bytes_mode="base64"))
                left -= len(to_json(rows[-1]))
                if left < 0:
                    raise ValueError(self._too_long)
            return {"columns": list(result.keys()), "rows": rows, "more": more}

    @property
    def _too_late(self) -> str:
        return (
            f"the query took over {self._database.timeout_s:g} s and was cancelled (timeout): "
            "read less"
        )

    @property
    def _too_long(self) -> str:
        return (
            f"the result has over {self._database.max_bytes:,} bytes: read fewer rows, or the "
            "beginnings of texts"
        )

    @contextmanager
    def _limited(self, connection: Connection) -> Iterator[None]:
        """Cancel the query from outside when its time is over."""
        cancel = self._cancel(connection)
        done = threading.Event()

        def watch() -> None:
            # A cancellation ends only one statement, so it is repeated until the query has ended.
            wait_s = self._database.timeout_s
            while not done.wait(wait_s):
                wait_s = CANCEL_AGAIN_S
                with contextlib.suppress(SQLAlchemyError, OSError):
                    cancel()

        watcher = threading.Thread(target=watch, name="sql_query timeout", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _cancel(self, connection: Connection) -> Callable[[], None]:
        """Return a function that cancels the statement of a connection from another thread."""
        if self._dialect == "sqlite":
            driver = connection.connection.driver_connection
            assert driver is not None, "the connection is open"
            driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self._database.max_bytes)
            return cast("Callable[[], None]", driver.interrupt)
        own_id, statement = CANCELS[self._dialect]
        number = int(connection.exec_driver_sql(own_id).scalar_one())

        def cancel() -> None:
            with self._engine.connect() as other:
                other.exec_driver_sql(statement.format(number)).close()

        return cancel


def sql_tools(databases: Mapping[str, Database]) -> Sequence[Tool]:
    """Make the tool that reads the operator's databases; without databases, make no tool."""
    if not databases:
        return ()
    timeout_s = max(database.timeout_s for database in databases.values()) + MARGIN_S
    names = f"Databases: {', '.join(databases)}."
    query = QueryTools(databases).sql_query
    return [BuiltinTool(query, timeout_s=timeout_s, idempotent=True, more=names)]


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


#: For each dialect, the statement that returns the number of a connection, and the statement that
#: cancels the query of the connection with a number.
CANCELS = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_cancel_backend({})"),
    "mysql": ("SELECT connection_id()", "KILL QUERY {}"),
    "mariadb": ("SELECT connection_id()", "KILL QUERY {}"),
}

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

"""The tool ``sql_query``, which reads the configured databases and cannot change them.

Four barriers protect the databases and the worker. A query is one statement that begins with a word
for reading; a query with a semicolon is refused. The database itself keeps the query from changes.
A sandbox process runs the query, so that the query's memory, bytes and time are limited, and so
that the process can be ended from outside. The configured user has only the rights that the
operator chooses.
"""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import quote

from sqlalchemy import text
from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import ArgumentError

from app.configuration.sections import Database
from app.domain.suggestions import listed, shortened
from app.errors import ConfigurationError
from app.sandbox.processes import Sandbox, SandboxLimit
from app.sandbox.turns import Turn, current_turn
from app.tools.tool import BuiltinTool, Tool

MAX_QUERY_CHARS = 100_000
#: How a query of each database names its parameters.
PARAMETERS: dict[str, Literal["numeric_dollar", "named"]] = {
    "postgresql": "numeric_dollar",
    "sqlite": "named",
}
#: Seconds that a sandbox process has to start, and to cancel a query whose time is over.
GRACE_S = 10.0
MARGIN_S = 20.0
#: Largest part of an answer that is not the result, such as the message of an error.
MAX_FRAME_BYTES = 10_000
READS = ("SELECT", "WITH", "VALUES", "TABLE")
WORDS = (*READS, "EXPLAIN", "SHOW")
#: What may stand between EXPLAIN and the statement: options, and no comment.
PLAN_OPTIONS = frozenset(
    "EXPLAIN QUERY PLAN ANALYZE VERBOSE COSTS SETTINGS GENERIC_PLAN BUFFERS SERIALIZE WAL TIMING "
    "SUMMARY MEMORY FORMAT NONE TEXT BINARY XML JSON YAML ON OFF TRUE FALSE".split()
)
#: The driver of each database that can be read. The tests use real databases of these two sorts. A
#: database that no test has seen is refused, because its protection would only be a hope.
DRIVERS = {"postgresql": "psycopg", "sqlite": "pysqlite"}
_FIRST_WORD = re.compile(r"[\s(]*([A-Za-z]+)")
_WORD = re.compile(r"\w+")
_NO_COMMENT = re.compile(r"[\w\s(),]*")

Value = str | int | float | bool | None


class _Query(NamedTuple):
    """A query in the form of its database's driver."""

    text: str
    parameters: Mapping[str, Value] | Sequence[Value]


class QueryTools:
    """The tool that reads databases.

    Args:
        databases: Databases by the name that models use.
        sandbox: Runs the queries.

    Raises:
        ConfigurationError: If a database cannot be protected from changes.
    """

    def __init__(self, databases: Mapping[str, Database], sandbox: Sandbox) -> None:
        self._readers = {
            name: _Reader(name, database, sandbox) for name, database in databases.items()
        }

    async def sql_query(
        self,
        query: str,
        parameters: dict[str, Value] | None = None,
        database: str | None = None,
    ) -> str:
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
        return await reader.read(query, parameters or {})


class _Reader:
    """Reads one database, with a new connection for each query."""

    def __init__(self, name: str, database: Database, sandbox: Sandbox) -> None:
        self._name = name
        self._database = database
        self._sandbox = sandbox
        try:
            url = make_url(database.url.get_secret_value())
        except ArgumentError as error:
            raise ConfigurationError(
                f"tools.sql.{name}: url is not a URL: write it as dialect://user:password@host/name"
            ) from error
        _check_driver(name, url)
        kind = url.get_backend_name()
        dialect = cast("type[DefaultDialect]", url.get_dialect())
        self._dialect: Dialect = dialect(paramstyle=PARAMETERS[kind])
        self._address: Any = (
            _sqlite_uri(name, url)
            if kind == "sqlite"
            else dict(self._dialect.create_connect_args(url)[1])
        )

    async def read(self, query: str, parameters: Mapping[str, Value]) -> str:
        """Return the result of a query as JSON text.

        Raises:
            ValueError: If the query is refused or exceeds a limit; the message is for the model.
        """
        query = query.strip().rstrip(";").rstrip()
        _check_beginning(query)
        database = self._database
        prepared = await asyncio.to_thread(_prepared, self._dialect, query, parameters)
        task = {
            "dialect": self._dialect.name,
            "address": self._address,
            "query": prepared.text,
            "parameters": prepared.parameters,
            "max_rows": database.max_rows,
            "max_bytes": database.max_bytes,
            "timeout_s": database.timeout_s,
        }
        started_s = time.monotonic()
        try:
            kind, found = await self._sandbox.run(
                "query",
                task,
                current_turn.get() or Turn(None, self._name),
                wall_s=database.timeout_s + GRACE_S,
                # In the answer, the result is a string, in which quotes are escaped.
                max_answer_bytes=2 * database.max_bytes + MAX_FRAME_BYTES,
            )
        except SandboxLimit as error:
            ended = time.monotonic() - started_s >= database.timeout_s
            problem = self._too_late if ended else f"the query {error}: read less"
            raise ValueError(problem) from error
        if kind != "ROWS":
            raise ValueError(self._problem(kind, found))
        return str(found)

    def _problem(self, kind: str, reason: str | None) -> str:
        if kind == "LATE":
            return self._too_late
        if kind == "TOO_LONG":
            return (
                f"the result has over {self._database.max_bytes:,} bytes: read fewer rows, or the "
                "beginnings of texts"
            )
        return f"the database refuses the query: {reason}"

    @property
    def _too_late(self) -> str:
        return (
            f"the query took over {self._database.timeout_s:g} s and was cancelled (timeout): "
            "read less"
        )


def sql_tools(databases: Mapping[str, Database], sandbox: Sandbox) -> Sequence[Tool]:
    """Make the tool that reads the operator's databases; without databases, make no tool."""
    if not databases:
        return ()
    timeout_s = max(database.timeout_s for database in databases.values()) + MARGIN_S
    names = f"Databases: {', '.join(databases)}."
    query = QueryTools(databases, sandbox).sql_query
    return [BuiltinTool(query, timeout_s=timeout_s, idempotent=True, more=names)]


def _check_beginning(query: str) -> None:
    if len(query) > MAX_QUERY_CHARS:
        raise ValueError(f"the query has over {MAX_QUERY_CHARS:,} characters: shorten it")
    if ";" in query:
        # A parser here might not agree with the database on whether the semicolon is inside a
        # string.
        raise ValueError("write one statement without a semicolon; give texts as parameters")
    if "\0" in query:
        raise ValueError("leave the NUL character out of the query")
    match = _FIRST_WORD.match(query)
    word = match[1].upper() if match else ""
    if word not in WORDS:
        raise ValueError(
            f"the query begins with {shortened(query[:20])}: begin it with one of "
            f"{', '.join(WORDS)}"
        )
    if word == "EXPLAIN" and _explained_word(query) not in READS:
        # In Postgres, EXPLAIN ANALYZE CREATE TABLE ... AS writes even in a read-only transaction.
        raise ValueError(f"begin it with EXPLAIN, options, and one of {', '.join(READS)}")


def _explained_word(query: str) -> str | None:
    """Return the first word after EXPLAIN and its options; None if a comment may stand before."""
    for match in _WORD.finditer(query):
        if (word := match[0].upper()) not in PLAN_OPTIONS:
            return word if _NO_COMMENT.fullmatch(query, 0, match.start()) else None
    return None


def _prepared(dialect: Dialect, query: str, parameters: Mapping[str, Value]) -> _Query:
    """Write the parameters in the driver's form, and select their values."""
    compiled = text(query).compile(dialect=dialect)
    # Each name once, in the order of the numbers that Postgres knows.
    names = compiled.positiontup or list(compiled.params)
    if missing := [name for name in names if name not in parameters]:
        raise ValueError(
            f"a value is required for bind parameter {shortened(missing[0])}: give it in "
            "parameters; write a colon that begins no name as \\:"
        )
    values = {name: parameters[name] for name in names}
    return _Query(str(compiled), values if dialect.name == "sqlite" else list(values.values()))


def _check_driver(name: str, url: URL) -> None:
    dialect = url.get_backend_name()
    if dialect not in DRIVERS:
        raise ConfigurationError(
            f"tools.sql.{name}: {dialect!r} databases are not supported, because no test proves "
            f"that a query cannot change them: use one of {listed(DRIVERS)}"
        )
    if (driver := url.get_driver_name()) != DRIVERS[dialect]:
        raise ConfigurationError(
            f"tools.sql.{name}: the driver {driver!r} is not supported: write "
            f"{dialect}+{DRIVERS[dialect]}://"
        )


def _sqlite_uri(name: str, url: URL) -> str:
    if not url.database or url.database == ":memory:":
        raise ConfigurationError(f"tools.sql.{name}: give the path of a SQLite file")
    return f"file:{quote(str(Path(url.database).absolute()))}?mode=ro"

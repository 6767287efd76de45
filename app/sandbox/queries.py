"""Runs one query on a Postgres or SQLite database, in a sandbox process.

``program`` loads this file. Nothing here trusts a query. The system limits the memory of the
process. A timer of the system ends the process at the end of the query's time, even if the database
does not stop. The rows become JSON text one by one, until the text has its full length.
"""

import base64
import contextlib
import json
import math
import resource
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: Seconds that a query may go on after its time, until the system ends the process.
KILL_AFTER_S = 1.0
#: Seconds that the cancellation of a query in Postgres may take.
CANCEL_S = 2.0
#: Longest value in a query of SQLite. A value in the result has ``max_bytes``.
MAX_VALUE_BYTES = 10_000_000
#: Largest file that a query may write. SQLite keeps an index of the write-ahead log in a file.
MAX_FILE_BYTES = 16_000_000
#: Longest wait for another process that writes to a SQLite file.
BUSY_S = 5.0
#: Steps of SQLite's virtual machine between two looks at the clock.
STEPS = 10_000

#: A query within these limits costs SQLite little to read.
SQLITE_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: MAX_VALUE_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 500,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 250_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
#: What a query may do. All other actions, such as ATTACH and every change, are refused.
SQLITE_ACTIONS = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
#: Pragmas that describe tables, and the pragma that full-text tables read.
SQLITE_PRAGMAS = {
    "data_version",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "table_info",
    "table_list",
    "table_xinfo",
}
_encode = json.JSONEncoder(ensure_ascii=False).encode
#: Functions that load code into the process.
SQLITE_REFUSED = {"load_extension", "fts3_tokenizer"}


class _TooLong(Exception):
    """The result has too many bytes."""


class _Refused(Exception):
    """The database refuses the query; the message is for the model."""


class _Late(BaseException):
    """The time of the query is over."""


class _Json(str):
    """A JSON text, which becomes a part of the result as it is."""

    __slots__ = ()


class Result:
    """Collects the rows of a query as JSON text.

    The text is ``{"columns": [...], "rows": [[...], ...], "more": false}``. The names of the
    columns count as bytes, like the rows.

    Args:
        max_rows: Largest number of rows; ``more`` is true if there are further rows.
        max_bytes: Longest text in UTF-8.
    """

    def __init__(self, *, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._left = max_bytes - len('{"columns":,"rows":[],"more":false}')
        self._columns = "[]"
        self._rows: list[str] = []
        self._more = False

    def name(self, columns: Sequence[str]) -> None:
        """Set the names of the columns."""
        self._columns = self._counted(as_json(list(columns)))

    def add(self, row: Sequence[Any]) -> bool:
        """Add a row, and return whether further rows are wanted."""
        if len(self._rows) == self._max_rows:
            self._more = True
            return False
        self._rows.append(self._counted(as_json(row)))
        self._left -= 1  # the comma
        return True

    def text(self) -> str:
        """Return the result as JSON text."""
        more = as_json(self._more)
        return f'{{"columns":{self._columns},"rows":[{",".join(self._rows)}],"more":{more}}}'

    def _counted(self, text: str) -> str:
        self._left -= len(text.encode())
        if self._left < 0:
            raise _TooLong
        return text


def as_json(value: Any) -> str:
    """Return a value of a database as JSON text.

    NaN and the infinities become strings, because JSON has no such numbers. Bytes become base64.
    """
    if isinstance(value, _Json):
        return value
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_json, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        value = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    elif isinstance(value, bytes):
        value = base64.urlsafe_b64encode(value).decode()
    elif value is not None and not isinstance(value, str | int | float):
        value = str(value)
    return _encode(value)


def answer(given: Mapping[str, Any]) -> tuple[str, Any]:
    """Run a query.

    Args:
        given: ``dialect``; ``address``, which is the URI of a SQLite file or the options of a
            connection to Postgres; ``query``; ``parameters``, which are a mapping for SQLite and a
            list for Postgres; ``max_rows``, ``max_bytes``, ``timeout_s``.

    Returns:
        ``("ROWS", text)``, ``("REFUSED", reason)``, ``("TOO_LONG", None)`` or ``("LATE", None)``.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    deadline_s = time.monotonic() + given["timeout_s"]
    result = Result(max_rows=given["max_rows"], max_bytes=given["max_bytes"])
    read = {"sqlite": _read_sqlite, "postgresql": _read_postgres}[given["dialect"]]
    try:
        read(given, deadline_s, result)
        return "ROWS", result.text()
    except _TooLong:
        return "TOO_LONG", None
    except _Refused as refused:
        return "REFUSED", str(refused)
    except _Late:
        return "LATE", None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _read_sqlite(given: Mapping[str, Any], deadline_s: float, result: Result) -> None:
    # SQLite looks at the clock between two steps only, and a step may be a long call of LIKE.
    # Without a handler, the signal ends the process.
    signal.setitimer(signal.ITIMER_REAL, given["timeout_s"] + KILL_AFTER_S)
    try:
        with contextlib.closing(_sqlite(given["address"], deadline_s)) as connection:
            cursor = connection.execute(given["query"], given["parameters"])
            if cursor.description is None:
                raise _Refused("the query returns no rows: write a SELECT")
            result.name([column[0] for column in cursor.description])
            for row in cursor:
                if not result.add(row):
                    break
    except sqlite3.Error as error:
        if time.monotonic() >= deadline_s:
            raise _Late from error
        raise _Refused(str(error)) from error


def _sqlite(address: str, deadline_s: float) -> sqlite3.Connection:
    busy_s = min(BUSY_S, max(deadline_s - time.monotonic(), 0))
    connection = sqlite3.connect(address, uri=True, timeout=busy_s, isolation_level=None)
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    # A sort stays in memory, because a file would not count as memory.
    for pragma in ("query_only = ON", "trusted_schema = OFF", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    # The limits are also valid for the schema, so the schema is read first.
    connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    for limit, value in SQLITE_LIMITS.items():
        connection.setlimit(limit, value)
    connection.set_authorizer(_authorized)
    connection.set_progress_handler(lambda: time.monotonic() >= deadline_s, STEPS)
    return connection


def _authorized(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """Decide whether a query of SQLite may do something."""
    if action == sqlite3.SQLITE_PRAGMA:
        may = first in SQLITE_PRAGMAS
    elif action == sqlite3.SQLITE_UPDATE:
        # SQLite asks this when a query uses a function with rows, such as json_each. SQLite itself
        # lets no query change this table.
        may = first == "sqlite_master"
    elif action == sqlite3.SQLITE_FUNCTION:
        may = str(second).lower() not in SQLITE_REFUSED
    else:
        may = action in SQLITE_ACTIONS
    return sqlite3.SQLITE_OK if may else sqlite3.SQLITE_DENY


def _read_postgres(given: Mapping[str, Any], deadline_s: float, result: Result) -> None:
    import psycopg

    signal.signal(signal.SIGALRM, _stop)
    signal.signal(signal.SIGTERM, _stop)
    signal.setitimer(signal.ITIMER_REAL, given["timeout_s"])
    options = given["address"] | {"client_encoding": "UTF8"}
    try:
        with contextlib.closing(psycopg.connect(**options, autocommit=True)) as connection:
            if connection.info.parameter_status("is_superuser") == "on":
                raise _Refused(
                    "its user is a superuser, and could read the files of the server: the operator "
                    "must choose another user"
                )
            connection.execute(_begin(deadline_s))
            try:
                for row in _rows(connection, given, result):
                    if not result.add(row):
                        break
            finally:
                _cancel(connection)
    except psycopg.Error as error:
        cancelled = isinstance(error, psycopg.errors.QueryCanceled)
        if cancelled and time.monotonic() >= deadline_s:
            raise _Late from error
        if error.sqlstate is None and "memory" in str(error):
            # The library of Postgres had no memory for an answer; the server is well.
            raise MemoryError from error
        raise _Refused(str(error).strip()) from error


def _begin(deadline_s: float) -> bytes:
    left_ms = math.ceil((deadline_s - time.monotonic()) * 1000)
    settings = {
        "statement_timeout": str(max(left_ms, 1)),
        "datestyle": "'ISO'",
        "bytea_output": "'hex'",
    }
    lines = [f"SET LOCAL {name} = {value}" for name, value in settings.items()]
    return "; ".join(["BEGIN READ ONLY", *lines]).encode()


def _rows(connection: Any, given: Mapping[str, Any], result: Result) -> Iterator[Sequence[Any]]:
    """Send the query, name the columns, and yield each row as soon as it arrives.

    ``Cursor.stream`` of psycopg would do the same, but it gives no names of columns without a row,
    and receives what the server still sends when the caller wants no more rows.
    """
    from psycopg import errors, generators, pq
    from psycopg.adapt import PyFormat, Transformer

    _adapt(connection)
    transformer = Transformer(connection)
    values = given["parameters"]
    dumped = transformer.dump_sequence(values, [PyFormat.TEXT] * len(values))
    server = connection.pgconn
    server.send_query_params(given["query"].encode(), dumped, param_types=transformer.types)
    server.set_single_row_mode()
    connection.wait(generators.send(server))
    is_named = False
    while (part := connection.wait(generators.fetch(server))) is not None:
        if part.status == pq.ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(part)
        if part.status not in (pq.ExecStatus.SINGLE_TUPLE, pq.ExecStatus.TUPLES_OK):
            raise _Refused("the query returns no rows: write a SELECT")
        if not is_named:
            names = [part.fname(column) or b"" for column in range(part.nfields)]
            result.name([name.decode("utf-8", "replace") for name in names])
        transformer.set_pgresult(part, set_loaders=not is_named)
        is_named = True
        if part.ntuples:
            # As JSON, bytes have two thirds of their length, and no other value gets shorter.
            row_bytes = sum(len(part.get_value(0, at) or b"") for at in range(part.nfields))
            if row_bytes > 2 * given["max_bytes"]:
                raise _TooLong
            yield transformer.load_row(0, tuple)


def _adapt(connection: Any) -> None:
    """Load values that JSON or Python does not have as the text that the database writes.

    A date may lie after the year 9999, and a JSON value may have more levels or digits than Python
    reads.
    """
    from psycopg.adapt import Loader

    class Text(Loader):
        def load(self, data: Any) -> Any:
            return bytes(data).decode("utf-8", "replace")

    class Json(Loader):
        def load(self, data: Any) -> Any:
            return _Json(bytes(data).decode("utf-8", "replace"))

    for name in ("date", "time", "timetz", "timestamp", "timestamptz", "interval", "numeric"):
        connection.adapters.register_loader(name, Text)
    for name in ("json", "jsonb"):
        connection.adapters.register_loader(name, Json)


def _cancel(connection: Any) -> None:
    """Cancel the query, unless it has ended; the server would go on with it."""
    import psycopg

    if connection.pgconn.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, CANCEL_S + KILL_AFTER_S)
    with contextlib.suppress(psycopg.Error):
        connection.cancel_safe(timeout=CANCEL_S)


def _stop(number: int, _: object) -> None:
    if number == signal.SIGTERM:
        raise SystemExit
    raise _Late

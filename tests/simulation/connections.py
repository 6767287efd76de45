"""Real connections to the simulation's Postgres; they outlive the simulated connections."""

from typing import Any

import psycopg
from psycopg import pq, waiting
from psycopg._preparing import PrepareManager

from app.storage.session import connection_parameters

SEARCH_PATH = "simulation,pg_catalog,public"


class Connections:
    """Unused connections with their prepared statements, because a new connection takes long.

    Args:
        url: The database.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._spare: list[tuple[pq.abc.PGconn, PrepareManager]] = []
        #: The closed connection that every session has after its end.
        self.closed = pq.PGconn.connect_start(b"host=/nowhere")
        self.closed.finish()

    def take(self) -> tuple[pq.abc.PGconn, PrepareManager]:
        """Take a connection, and psycopg's record of the statements that are prepared on it."""
        if self._spare:
            return self._spare.pop()
        connection = waiting.wait_conn(psycopg.AsyncConnection._connect_gen(self._address()))
        connection.prepare_threshold = 0
        pgconn, connection.pgconn = connection.pgconn, self.closed
        return pgconn, connection._prepared

    def give_back(self, pgconn: pq.abc.PGconn, prepared: PrepareManager) -> None:
        """Take back a connection, in whatever state its transaction is."""
        if pgconn.status != pq.ConnStatus.OK:
            return
        if pgconn.transaction_status != pq.TransactionStatus.IDLE:
            pgconn.exec_(b"ROLLBACK")
        self._spare.append((pgconn, prepared))

    def close(self) -> None:
        """Close the unused connections."""
        for pgconn, _ in self._spare:
            pgconn.finish()
        self._spare.clear()

    def inspector(self) -> psycopg.Connection[Any]:
        """Open a connection that works in real time, for a look at the committed rows."""
        address = self._address().replace(SEARCH_PATH, "public")
        connection = psycopg.connect(address, autocommit=True)
        connection.prepare_threshold = 1
        return connection

    def _address(self) -> str:
        # Each statement is planned once, because a simulation repeats it thousands of times.
        settings = {"search_path": SEARCH_PATH, "plan_cache_mode": "force_generic_plan"}
        parameters = connection_parameters(self._url, "agentchord simulation", settings)
        return psycopg.conninfo.make_conninfo("", **parameters)

"""Queries of the fault suite to Postgres, which may stop or end the connection at any moment."""

import threading
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row
from sqlalchemy.engine import make_url

from app.embedded.postgres import SUPERUSER
from tests.support.pace import scaled
from tests.support.waiting import wait_until

BACK_S = scaled(40.0)
SAMPLE_S = 0.1
# Money that is held or spent beyond a limit that no real cost has overdrawn.
BROKEN_BUDGETS = """
    SELECT id::text, spent_usd, held_usd, limit_usd, overdrawn_usd FROM budgets
    WHERE NOT soft AND (spent_usd + held_usd > limit_usd OR overdrawn_usd > 0)
    UNION ALL
    SELECT name, spent_usd, held_usd, limit_usd, overdrawn_usd FROM agent_runs
    WHERE spent_usd + held_usd > limit_usd OR overdrawn_usd > 0
"""


class Database:
    """One connection of the superuser, made again when it was lost; not for several threads.

    Args:
        url: URL of the server itself, without a proxy.
    """

    def __init__(self, url: str) -> None:
        address = make_url(url).set(drivername="postgresql", username=SUPERUSER)
        self._address = address.render_as_string(hide_password=False)
        self._connection: psycopg.Connection[dict[str, Any]] | None = None

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of a statement, which is repeated until Postgres has answered it."""
        answer = wait_until(
            lambda: self._attempt(statement, values), timeout_s=BACK_S, what="Postgres answers"
        )
        assert answer is not None
        return answer[0]

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _attempt(
        self, statement: str, values: tuple[Any, ...]
    ) -> tuple[list[dict[str, Any]]] | None:
        try:
            return (self._ask(statement, values),)
        except psycopg.OperationalError:
            self.close()
            return None

    def _ask(self, statement: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self._address, row_factory=dict_row, autocommit=True, connect_timeout=5
            )
        cursor = self._connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


class BudgetWatch:
    """Reads all accounts repeatedly, from a thread of its own.

    Args:
        url: URL of Postgres.
    """

    def __init__(self, url: str) -> None:
        self.broken: list[dict[str, Any]] = []
        self.looks = 0
        self._database = Database(url)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(2 * BACK_S)
        self._database.close()

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self.broken += self._database.sql(BROKEN_BUDGETS)
            self.looks += 1

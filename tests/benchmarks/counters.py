"""The work of Postgres and Redis, by their own counters."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from app.embedded import ServiceUrls
from tests.support.embedded_home import administer
from tests.support.waiting import wait_until

# Postgres's own counter of commits lags by up to 10 s, which is longer than a measurement, and
# pg_stat_statements is not in the wheel: so Postgres logs every statement, for one round.
MARK = "counted by the benchmark for "
LOGGING = {
    "log_statement": "all",
    "log_parameter_max_length": "0",
    "log_line_prefix": f"{MARK}%a: ",
}
STATEMENT = re.compile(r"agentchord.*?LOG:\s+(?:statement|execute [^:]+): (.*)", re.DOTALL)
SHOWN = 70


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The work of the servers so far.

    Attributes:
        redis_commands: Commands, those of scripts included.
        redis_round_trips: Times that Redis read from a connection; a pipeline is read at once.
        written_transactions: Transactions of Postgres that changed something.
    """

    redis_commands: int
    redis_round_trips: int
    written_transactions: int

    def since(self, before: "Counts") -> "Counts":
        """The work since then, without this reading."""
        return Counts(
            redis_commands=self.redis_commands - before.redis_commands - 1,
            redis_round_trips=self.redis_round_trips - before.redis_round_trips - 1,
            written_transactions=self.written_transactions - before.written_transactions,
        )


@dataclass(kw_only=True)
class Statements:
    """The statements in Postgres's log.

    Attributes:
        commits: COMMITs, also of transactions that only read.
        total: Statements, without those that begin and end a transaction.
        by_text: Executions of each, by the beginning of its text.
    """

    commits: int = 0
    total: int = 0
    by_text: dict[str, int] = field(default_factory=dict)


class Counters:
    """The counters of one Postgres and one Redis.

    Args:
        urls: Their URLs.
        postgres_log: Log file of that Postgres.
    """

    def __init__(self, urls: ServiceUrls, postgres_log: Path) -> None:
        self._urls = urls
        self._log = postgres_log
        self._postgres = administer(urls)
        self._postgres.execute("SET log_statement = 'none'")
        self._redis = Redis.from_url(urls.redis_url)
        self._redis.ping()

    def read(self) -> Counts:
        """The counters now."""
        row = self._postgres.execute(
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        ).fetchone()
        assert row is not None
        stats = self._redis.info("stats")
        return Counts(
            redis_commands=stats["total_commands_processed"],
            redis_round_trips=stats["total_reads_processed"],
            written_transactions=row[0],
        )

    def close(self) -> None:
        """Close the connections."""
        self._postgres.close()
        self._redis.close()

    @contextmanager
    def statements(self) -> Iterator[Statements]:
        """Count statements for the length of a ``with`` block; it slows Postgres down."""
        for name, value in LOGGING.items():
            self._postgres.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        self._reload("all")
        begin = self._log.stat().st_size
        counted = Statements()
        try:
            yield counted
        finally:
            for name in LOGGING:
                self._postgres.execute(f"ALTER SYSTEM RESET {name}".encode())
            self._reload("none")
        with self._log.open("rb") as log:
            log.seek(begin)
            _count(log.read().decode(errors="replace"), counted)

    def _reload(self, expected: str) -> None:
        self._postgres.execute("SELECT pg_reload_conf()")
        wait_until(lambda: self._log_statement() == expected, what="Postgres to reload")

    def _log_statement(self) -> str | None:
        with administer(self._urls) as fresh:
            row = fresh.execute("SHOW log_statement").fetchone()
        return str(row[0]) if row else None


def _count(log: str, counted: Statements) -> None:
    by_text: Counter[str] = Counter()
    for line in log.split(MARK):
        match = STATEMENT.match(line)
        if match is None:
            continue
        text = " ".join(match[1].split())
        if text.startswith(("BEGIN", "COMMIT", "ROLLBACK")):
            counted.commits += text.startswith("COMMIT")
        else:
            by_text[text[:SHOWN]] += 1
    counted.total, counted.by_text = by_text.total(), dict(by_text.most_common())

"""`python -m tests.benchmarks.ledger`: speed of reports on a long ledger, and their cost.

A Postgres of its own gets a ledger of a million entries over 90 days. Every report is made from the
daily totals and, to compare, from the entries themselves, and batches are booked with and without
the totals.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.costs.dimensions import DIMENSIONS
from app.costs.reports import ReportFilter, costs_by, report
from app.embedded import Services
from app.storage.schema import upgrade
from app.storage.session import create_engine
from tests.benchmarks.machine import describe

LIMIT_MS = 300.0
CHUNK = 100_000
REPEATS = 5
BATCHES, BATCH = 300, 25
# Twelve workflows of ten agents in six modules, four models, three tenants; of a hundred calls four
# fail and one is unconfirmed; a quarter of the prompts is cached. A run makes ten calls.
FILL: TextClause = text("""
    INSERT INTO cost_entries (call_id, run_id, agent_run_id, attempt, tenant, workflow_id, workflow,
        version, agent, module, provider, model, model_answered, kind, outcome, request_id,
        input_tokens, cached_tokens, output_tokens, usage, price_version, budget_ids, cost_usd,
        saved_usd, created_at)
    SELECT gen_random_uuid(), md5('run' || n / 10)::uuid, md5('agent' || n)::uuid, 1,
        'tenant-' || n / 10 % 3, md5('workflow' || n / 10 % 12)::uuid, 'workflow-' || n / 10 % 12,
        1 + n / 400000, 'agent-' || n % 10, 'module-' || n % 6,
        CASE WHEN n % 4 < 2 THEN 'openai' ELSE 'anthropic' END, 'model-' || n % 4,
        'model-' || n % 4,
        CASE WHEN n % 100 = 7 THEN 'unconfirmed' ELSE 'actual' END,
        CASE WHEN n % 100 = 7 THEN 'unknown' WHEN n % 25 = 3 THEN 'ServerFailure' ELSE 'ok' END,
        'req_' || n, 300 + n % 500, 100, 50 + n % 200,
        jsonb_build_object('prompt_tokens', 400 + n % 500, 'completion_tokens', 50 + n % 200),
        'genai-prices 0.2.3', ARRAY[md5('run' || n / 10)::uuid], 0.0001 * (1 + n % 97), 0.00001,
        CAST(:first AS timestamptz) + make_interval(secs => n * CAST(:seconds AS float8) / :entries)
    FROM generate_series(CAST(:low AS bigint), CAST(:high AS bigint) - 1) AS n
""")


def main(options: argparse.Namespace) -> int:
    """Measure and print; the exit code says whether the required reports are fast enough."""
    with (
        tempfile.TemporaryDirectory(prefix="agentchord-ledger-") as folder,
        Services(Path(folder)) as urls,
    ):
        upgrade(urls.database_url)
        _say(", ".join(f"{k} {v}" for k, v in describe(Path(folder), urls).items()))
        return asyncio.run(_measure(urls.database_url, options))


async def _measure(url: str, options: argparse.Namespace) -> int:
    engine = create_engine(url)
    now = datetime.now(UTC)
    with _timed("filled"):
        await _fill(engine, options.entries, now - timedelta(days=options.days), options.days)
    async with engine.connect() as opened:
        connection = await opened.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ANALYZE"))
        for table in ("cost_entries", "cost_totals"):
            rows = await connection.scalar(text(f"SELECT count(*) FROM {table}"))
            _say(f"{table}: {rows:,} rows")
    slow = []
    starts = {
        "whole": None,
        "--since 7d": now - timedelta(days=7),
        "--since 12h": now - timedelta(hours=12),
    }
    _say(f"{'report':10} {'range':12} {'from totals':>14} {'from entries':>14}   (median, ms)")
    for by in DIMENSIONS:
        for name, since in starts.items():
            from_days = await _median_ms(engine, _report(by, since))
            from_lines = await _median_ms(engine, _scan(by, since))
            shown = f"{from_days:14.1f}" if DIMENSIONS[by].in_days else f"{'-':>14}"
            _say(f"{by:10} {name:12} {shown} {from_lines:14.1f}")
            if by in ("day", "module", "model") and from_days > LIMIT_MS:
                slow.append(f"{by} {name}: {from_days:.0f} ms")
    if options.explain:
        await _explain(engine, now - timedelta(days=7))
    await _compare_booking(engine)
    await engine.dispose()
    _say(f"slower than {LIMIT_MS:g} ms: {', '.join(slow) or 'none of day, module, model'}")
    return int(bool(slow))


async def _fill(engine: AsyncEngine, entries: int, first: datetime, days: int) -> None:
    given = {"first": first, "seconds": days * 86_400, "entries": entries}
    for low in range(0, entries, CHUNK):
        async with engine.begin() as connection:
            await connection.execute(text("SET LOCAL statement_timeout = 0"))
            chunk = given | {"low": low, "high": min(low + CHUNK, entries)}
            await connection.execute(FILL, chunk)


Step = Callable[[AsyncConnection], Awaitable[Any]]


def _report(by: str, since: datetime | None) -> Step:
    return lambda connection: costs_by(connection, (by,), ReportFilter(since=since))


def _scan(by: str, since: datetime | None) -> Step:
    async def scan(connection: AsyncConnection) -> None:
        rows = await connection.execute(*report((by,), ReportFilter(since=since), totals=False))
        rows.all()

    return scan


async def _median_ms(engine: AsyncEngine, step: Step) -> float:
    times_ms = []
    for _ in range(REPEATS):
        async with engine.begin() as connection:
            started_s = time.perf_counter()
            await step(connection)
            times_ms.append((time.perf_counter() - started_s) * 1000)
    return median(times_ms)


async def _explain(engine: AsyncEngine, since: datetime) -> None:
    async with engine.begin() as connection:
        for by in ("day", "module", "model"):
            statement, given = report((by,), ReportFilter(since=since))
            explained = text(f"EXPLAIN (ANALYZE, COSTS OFF) {statement.text}")
            _say(f"\nby {by}, --since 7d")
            _say("\n".join(await connection.scalars(explained, given)))


async def _compare_booking(engine: AsyncEngine) -> None:
    """Milliseconds of a transaction that books a batch, without and with the totals, in turns."""
    times_ms: dict[str, list[float]] = {"DISABLE": [], "ENABLE": []}
    batch = {"first": datetime.now(UTC), "seconds": 1, "entries": BATCH, "low": 0, "high": BATCH}
    for round_ in range(4):
        for switch in sorted(times_ms, reverse=bool(round_ % 2)):
            async with engine.begin() as connection:
                trigger = f"ALTER TABLE cost_entries {switch} TRIGGER cost_entries_totals"
                await connection.execute(text(trigger))
            for _ in range(BATCHES // 4):
                started_s = time.perf_counter()
                async with engine.begin() as connection:
                    await connection.execute(FILL, batch)
                times_ms[switch].append((time.perf_counter() - started_s) * 1000)
    without, with_ = (median(times_ms[switch]) for switch in ("DISABLE", "ENABLE"))
    _say(
        f"\na transaction of {BATCH} entries: {without:.2f} ms without totals, {with_:.2f} ms with:"
        f" {1000 * (with_ - without) / BATCH:.0f} us an entry"
    )


@contextmanager
def _timed(what: str) -> Iterator[None]:
    started_s = time.perf_counter()
    yield
    _say(f"{what} in {time.perf_counter() - started_s:.1f} s")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ledger", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=90, help="days they are spread over")
    parser.add_argument("--explain", action="store_true", help="print the plans")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main(_options()))

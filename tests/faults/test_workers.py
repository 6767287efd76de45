"""Workers that die, are told to end, or lose a service in the middle of the ERP example."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from app.events.stream import STREAM
from tests.faults.database import Database
from tests.history_checks import assert_history_is_complete
from tests.ledgers import assert_ledgers_agree
from tests.stack import Stack, Worker, run_stack
from tests.waiting import wait_until

PROVIDERS = ("openai", "anthropic")
LATENCY_S = 1.0
ENQUEUE = """
from app import enqueue
from app.examples import erp
print(enqueue(erp.workflow(), erp.INPUT).id)
"""
TELL = """
from app import Run
for event in Run("{run_id}").events():
    print(event.id)
"""


@contextmanager
def erp_under_way(folder: Path) -> Iterator[tuple[Stack, list[Worker], str]]:
    """A stack of two workers and a scheduler, with the ERP example's second level in progress."""
    with (
        run_stack(folder, "scheduler") as stack,
        stack.worker(*PROVIDERS) as first,
        stack.worker(*PROVIDERS) as second,
    ):
        stack.simulator.configure(latency_s=LATENCY_S)
        program = stack.python("-c", ENQUEUE)
        assert program.returncode == 0, program.stderr
        run_id = program.stdout.strip()
        wait_until(lambda: level(stack) >= 1 and in_progress(stack), timeout_s=30)
        yield stack, [first, second], run_id


def level(stack: Stack) -> int:
    return int(stack.sql("SELECT level FROM runs")[0]["level"])


def in_progress(stack: Stack) -> list[dict[str, Any]]:
    """Agents with a call out, by worker."""
    return stack.sql("""
        SELECT a.name, a.worker FROM agent_runs a JOIN holds h ON h.agent_run_id = a.id
        WHERE a.status = 'running'
    """)


def finished(stack: Stack, *, timeout_s: float) -> float:
    """Wait for the run's end; returns the seconds it took."""
    started_s = time.monotonic()
    wait_until(
        lambda: stack.sql("SELECT 1 FROM runs WHERE status NOT IN ('pending', 'running')"),
        timeout_s=timeout_s,
        what="the run has ended",
    )
    return time.monotonic() - started_s


def assert_all_is_well(stack: Stack) -> None:
    """Every agent completed once, every call has one entry, the budget agrees with the ledger."""
    assert stack.sql("SELECT status FROM runs") == [{"status": "completed"}]
    assert stack.sql("SELECT name FROM agent_runs WHERE status <> 'completed'") == []
    accepted = stack.sql("""
        SELECT agent_run_id FROM attempts WHERE outcome = 'completed'
        GROUP BY agent_run_id HAVING count(*) <> 1
    """)
    assert accepted == []
    doubled = stack.sql("""
        SELECT call_id FROM cost_entries GROUP BY call_id HAVING count(*) > 1
    """)
    assert doubled == []
    entries = stack.sql("SELECT * FROM cost_entries")
    (budget,) = stack.sql("SELECT * FROM budgets")
    assert budget["spent_usd"] == sum(entry["cost_usd"] for entry in entries)
    assert budget["held_usd"] == budget["overdrawn_usd"] == 0
    assert_ledgers_agree(entries, stack.simulator.ledger())
    assert_history_is_complete(stack.sql)


def pid_of(worker_name: str) -> int:
    """A worker's name is host:pid:random."""
    return int(worker_name.split(":")[1])


def test_a_run_completes_within_30_s_of_a_killed_worker(tmp_path: Path) -> None:
    with erp_under_way(tmp_path) as (stack, _, _):
        victim = in_progress(stack)[0]["worker"]

        os.kill(pid_of(victim), signal.SIGKILL)
        seconds = finished(stack, timeout_s=60)

        assert seconds < 30
        assert_all_is_well(stack)
        lost = stack.sql("SELECT 1 FROM attempts WHERE outcome = 'lost'")
        unconfirmed = stack.sql("SELECT 1 FROM cost_entries WHERE kind = 'unconfirmed'")
        assert len(lost) >= len(unconfirmed) >= 1


def test_a_run_completes_after_its_scheduler_is_killed_and_started_again(tmp_path: Path) -> None:
    with erp_under_way(tmp_path) as (stack, _, _):
        scheduler = stack.workers[0]
        scheduler.process.kill()
        with stack.worker("scheduler"):
            finished(stack, timeout_s=60)

        assert_all_is_well(stack)


def test_a_worker_told_to_end_finishes_its_calls_and_repeats_none(tmp_path: Path) -> None:
    with erp_under_way(tmp_path) as (stack, _, _):
        leaving = in_progress(stack)[0]["worker"]

        os.kill(pid_of(leaving), signal.SIGTERM)
        finished(stack, timeout_s=60)

        assert_all_is_well(stack)
        assert stack.sql("SELECT 1 FROM attempts WHERE outcome = 'lost'") == []
        assert stack.sql("SELECT 1 FROM cost_entries WHERE kind <> 'actual'") == []


def test_a_flushed_redis_loses_nothing(tmp_path: Path) -> None:
    with erp_under_way(tmp_path) as (stack, _, _):
        with Redis.from_url(stack.urls.redis_url) as redis:
            redis.flushall()

        seconds = finished(stack, timeout_s=60)

        assert seconds < 45
        assert_all_is_well(stack)
        assert stack.sql("SELECT 1 FROM cost_entries WHERE kind <> 'actual'") == []


def test_no_event_is_lost_when_everything_is_killed_flushed_and_started_again(
    tmp_path: Path,
) -> None:
    with erp_under_way(tmp_path) as (stack, _, run_id):
        before = stack.sql("SELECT id, type, at FROM events ORDER BY id")
        database = Database(stack.urls.database_url)
        (postmaster,) = database.sql("SELECT pg_read_file('postmaster.pid') AS text")
        with Redis.from_url(stack.urls.redis_url) as redis:
            redis.flushall()
        for worker in stack.workers:
            worker.process.kill()
        os.kill(int(postmaster["text"].split()[0]), signal.SIGINT)
        after = database.sql("SELECT id, type, at FROM events ORDER BY id LIMIT %s", len(before))
        database.close()

        with stack.worker("scheduler"), stack.worker(*PROVIDERS):
            finished(stack, timeout_s=60)
            # What the stream has missed is copied to it, and the history is told to its end.
            history = [str(row["id"]) for row in stack.sql("SELECT id FROM events ORDER BY id")]
            told = wait_until(
                lambda: found if (found := in_stream(stack)) == history else None,
                what="the stream is the history again",
            )
            program = stack.python("-c", TELL.format(run_id=run_id))

        assert after == before
        assert program.stdout.split() == told, program.stderr
        assert_all_is_well(stack)


def in_stream(stack: Stack) -> list[str]:
    """Ids of the events in Redis."""
    with Redis.from_url(stack.urls.redis_url, decode_responses=True) as redis:
        entries: Any = redis.xrange(STREAM)
    return [id_.partition("-")[0] for id_, _ in entries]


def test_dropped_connections_to_postgres_repeat_no_call(tmp_path: Path) -> None:
    with erp_under_way(tmp_path) as (stack, _, _):
        stack.sql("""
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()
        """)

        finished(stack, timeout_s=60)

        assert_all_is_well(stack)
        assert stack.sql("SELECT 1 FROM cost_entries WHERE kind <> 'actual'") == []


def test_cancelling_closes_the_calls_in_flight(tmp_path: Path) -> None:
    with erp_under_way(tmp_path) as (stack, _, run_id):
        stack.simulator.configure(latency_s=30)
        wait_until(lambda: stack.simulator.summary()["in_flight"], timeout_s=30)

        program = stack.python("-c", f"from app import Run; print(Run('{run_id}').cancel())")
        closed_in_s = finished(stack, timeout_s=10)

        assert program.stdout.strip() == "True", program.stderr
        assert closed_in_s < 5
        wait_until(lambda: not stack.simulator.summary()["in_flight"], timeout_s=5)
        assert stack.sql("SELECT status FROM runs") == [{"status": "cancelled"}]
        assert stack.sql("SELECT call_id FROM holds") == []


@pytest.fixture(autouse=True)
def no_process_is_left(tmp_path: Path) -> Iterator[None]:
    """What a test has started, its stack has ended."""
    yield
    wait_until(lambda: not processes_of(tmp_path), what=f"{processes_of(tmp_path)} have ended")


def processes_of(folder: Path) -> str:
    """Ids of the processes whose command line names the folder."""
    found = subprocess.run(
        ["pgrep", "-f", str(folder)], check=False, capture_output=True, text=True
    )
    return found.stdout

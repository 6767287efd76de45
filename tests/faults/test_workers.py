"""Workers that die, are stopped, or lose a service in the middle of the ERP example."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis import Redis

from app import Run, enqueue
from app.events.stream import STREAM
from app.examples import erp
from tests.faults.database import Database
from tests.faults.fleet import Fleet, run_fleet
from tests.support.history_checks import assert_history_is_complete
from tests.support.ledgers import assert_ledgers_agree
from tests.support.pace import at_this_pace, scaled
from tests.support.stack import END_S, Stack, client_of
from tests.support.waiting import wait_until

PROVIDERS = ("openai", "anthropic")
LATENCY_S = 1.0
END_OF_RUN_S = scaled(60)
TELL = """
from app import Run
for event in Run("{run_id}").events():
    print(event.id)
"""


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """The ERP example in progress, alone in its stack, on two workers and a scheduler."""

    fleet: Fleet
    run: Run

    @property
    def stack(self) -> Stack:
        return self.fleet.stack

    def sql(self, statement: str) -> list[dict[str, Any]]:
        """Rows of a statement about this run; %s stands for its id."""
        return self.stack.sql(statement, self.run.id)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Leases, heartbeats and sweeps with the users' settings."""
    with run_fleet(tmp_path_factory.mktemp("workers"), PROVIDERS, PROVIDERS) as fleet:
        yield fleet


@pytest.fixture
def erp_run(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[UnderWay]:
    """The ERP example with its second level in progress."""
    fleet.staff()
    fleet.stack.simulator.configure(latency_s=LATENCY_S)
    with client_of(fleet.stack, monkeypatch):
        under_way = UnderWay(fleet=fleet, run=enqueue(erp.workflow(), erp.INPUT))
        wait_until(
            lambda: level(under_way) >= 1 and in_progress(under_way.stack),
            timeout_s=scaled(30),
            what="its second level is in progress",
        )
        yield under_way


def level(erp_run: UnderWay) -> int:
    return int(erp_run.sql("SELECT level FROM runs WHERE id = %s")[0]["level"])


def in_progress(stack: Stack) -> list[dict[str, Any]]:
    """Agents with a call under way, by worker."""
    return stack.sql("""
        SELECT a.name, a.worker FROM agent_runs a JOIN holds h ON h.agent_run_id = a.id
        WHERE a.status = 'running'
    """)


def finished(stack: Stack, run_id: str, *, timeout_s: float) -> float:
    """Wait for the run's end, and return the seconds it took."""
    started_s = time.monotonic()
    wait_until(
        lambda: stack.sql(
            "SELECT 1 FROM runs WHERE id = %s AND status NOT IN ('pending', 'running')", run_id
        ),
        timeout_s=timeout_s,
        what="the run has ended",
    )
    return time.monotonic() - started_s


def ended(erp_run: UnderWay, *, timeout_s: float = END_OF_RUN_S) -> float:
    return finished(erp_run.stack, erp_run.run.id, timeout_s=timeout_s)


LOST = """
    SELECT 1 FROM attempts t JOIN agent_runs a ON a.id = t.agent_run_id
    WHERE a.run_id = %s AND t.outcome = 'lost'
"""
NOT_ACTUAL = "SELECT 1 FROM cost_entries WHERE run_id = %s AND kind <> 'actual'"
UNCONFIRMED = "SELECT 1 FROM cost_entries WHERE run_id = %s AND kind = 'unconfirmed'"


def assert_all_is_well(erp_run: UnderWay) -> None:
    """Every agent completed once, every call has one entry, the budget agrees with the ledger."""
    stack, sql = erp_run.stack, erp_run.sql
    assert sql("SELECT status FROM runs WHERE id = %s") == [{"status": "completed"}]
    open_ = sql("SELECT name FROM agent_runs WHERE run_id = %s AND status <> 'completed'")
    assert open_ == []
    accepted = sql("""
        SELECT t.agent_run_id FROM attempts t JOIN agent_runs a ON a.id = t.agent_run_id
        WHERE a.run_id = %s AND t.outcome = 'completed'
        GROUP BY t.agent_run_id HAVING count(*) <> 1
    """)
    assert accepted == []
    doubled = stack.sql("""
        SELECT call_id FROM cost_entries GROUP BY call_id HAVING count(*) > 1
    """)
    assert doubled == []
    entries = sql("SELECT * FROM cost_entries WHERE run_id = %s")
    (budget,) = sql("SELECT * FROM budgets WHERE id = %s")
    assert budget["spent_usd"] == sum(entry["cost_usd"] for entry in entries)
    assert budget["held_usd"] == budget["overdrawn_usd"] == 0
    assert_ledgers_agree(entries, stack.simulator.ledger())
    assert_history_is_complete(stack.sql)


def pid_of(worker_name: str) -> int:
    """A worker's name is host:pid:random."""
    return int(worker_name.split(":")[1])


def test_a_run_completes_within_30_s_of_a_killed_worker(erp_run: UnderWay) -> None:
    victim = in_progress(erp_run.stack)[0]["worker"]

    os.kill(pid_of(victim), signal.SIGKILL)
    seconds = ended(erp_run)

    assert seconds < at_this_pace(30)
    assert_all_is_well(erp_run)
    assert len(erp_run.sql(LOST)) >= len(erp_run.sql(UNCONFIRMED)) >= 1


def test_a_run_completes_after_its_scheduler_is_killed_and_started_again(
    erp_run: UnderWay,
) -> None:
    scheduler = erp_run.stack.workers[0]
    scheduler.process.kill()
    with erp_run.stack.worker("scheduler"):
        ended(erp_run)

    assert_all_is_well(erp_run)


def test_a_worker_told_to_end_finishes_its_calls_and_repeats_none(erp_run: UnderWay) -> None:
    name = in_progress(erp_run.stack)[0]["worker"]
    leaving = next(w for w in erp_run.stack.workers if w.process.pid == pid_of(name))

    leaving.process.terminate()
    ended(erp_run)

    assert leaving.process.wait(END_S) == 0
    assert_all_is_well(erp_run)
    assert erp_run.sql(LOST) == []
    assert erp_run.sql(NOT_ACTUAL) == []


def test_a_flushed_redis_loses_nothing(erp_run: UnderWay) -> None:
    with Redis.from_url(erp_run.stack.urls.redis_url) as redis:
        redis.flushall()

    seconds = ended(erp_run)

    assert seconds < at_this_pace(45)
    assert_all_is_well(erp_run)
    assert erp_run.sql(NOT_ACTUAL) == []


def test_no_event_is_lost_when_everything_is_killed_flushed_and_started_again(
    erp_run: UnderWay,
) -> None:
    stack = erp_run.stack
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
        ended(erp_run)
        # Events that the stream missed are copied to it, up to the end of the history.
        history = [str(row["id"]) for row in stack.sql("SELECT id FROM events ORDER BY id")]
        wait_until(lambda: in_stream(stack) == history, what="the stream is the history again")
        program = stack.python("-c", TELL.format(run_id=erp_run.run.id))

    assert after == before
    own = erp_run.sql("SELECT id FROM events WHERE run_id = %s ORDER BY id")
    assert program.stdout.split() == [str(row["id"]) for row in own], program.stderr
    assert_all_is_well(erp_run)


def in_stream(stack: Stack) -> list[str]:
    """Ids of the events in Redis."""
    with Redis.from_url(stack.urls.redis_url, decode_responses=True) as redis:
        entries: Any = redis.xrange(STREAM)
    return [id_.partition("-")[0] for id_, _ in entries]


def test_dropped_connections_to_postgres_repeat_no_call(erp_run: UnderWay) -> None:
    database = Database(erp_run.stack.urls.database_url)
    database.sql("""
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
    """)
    database.close()

    ended(erp_run)

    assert_all_is_well(erp_run)
    assert erp_run.sql(NOT_ACTUAL) == []


def test_cancelling_closes_the_calls_in_flight(erp_run: UnderWay) -> None:
    simulator = erp_run.stack.simulator
    simulator.configure(latency_s=600)
    wait_until(lambda: simulator.summary()["in_flight"], timeout_s=scaled(30))

    cancelled = erp_run.run.cancel()
    closed_in_s = ended(erp_run, timeout_s=scaled(10))

    assert cancelled
    assert closed_in_s < at_this_pace(5)
    wait_until(lambda: not simulator.summary()["in_flight"], timeout_s=scaled(5))
    assert erp_run.sql("SELECT status FROM runs WHERE id = %s") == [{"status": "cancelled"}]
    holds = "SELECT call_id FROM holds h JOIN agent_runs a ON a.id = h.agent_run_id"
    assert erp_run.sql(f"{holds} WHERE a.run_id = %s") == []

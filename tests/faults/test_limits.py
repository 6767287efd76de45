"""Rate limits while workers die and Redis loses its data, or stops, during calls."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import psutil
import pytest
import yaml
from redis import Redis

from app import Agent, Run, Workflow
from app import enqueue as enqueue_workflow
from tests.faults.fleet import Fleet, run_fleet
from tests.support.embedded_home import gone
from tests.support.ledgers import assert_ledgers_agree
from tests.support.pace import at_this_pace, scaled
from tests.support.stack import Stack, client_of
from tests.support.waiting import wait_until

BURST = 5
PER_MINUTE = 600
PLACES = 4
HOURLY = 30
# Each test has a model of its own, so that no test sees another's use.
LIMITS = {
    "gpt-4.1-nano": {"concurrent_requests": PLACES},
    "gpt-4.1-mini": {"requests_per_hour": HOURLY},
    "gpt-4.1": {"requests_per_hour": HOURLY},
    "gpt-4o-mini": {"requests_per_minute": PER_MINUTE, "burst": BURST},
    "gpt-4o": {"requests_per_minute": PER_MINUTE, "burst": BURST},
}
CONFIGURATION = yaml.safe_dump(
    {
        "rate_limits": {"openai": {"default": {}, "models": LIMITS}},
        # A long long_wait_s, so that waiting agents stay visible.
        "engine": {"drain_grace_s": 1, "lane_width": 5, "long_wait_s": 86_400},
    }
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two workers and a scheduler, with lanes narrow enough for both to get some."""
    folder = tmp_path_factory.mktemp("limits")
    with run_fleet(folder, ("openai",), ("openai",), configuration=CONFIGURATION) as fleet:
        yield fleet


@pytest.fixture
def stack(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """The stack, complete, with this process as its client."""
    fleet.staff()
    with client_of(fleet.stack, monkeypatch):
        yield fleet.stack


def enqueue(model: str, number: int) -> Run:
    """A run of this number of agents with this model."""
    config = {"model": model, "max_tokens": 20}
    agents = [Agent(name=f"a{n}", prompt_template="go", llm_config=config) for n in range(number)]
    workflow = Workflow(name=f"limited {number}", agents=agents, max_parallel_agents=100)
    return enqueue_workflow(workflow, {})


def served(stack: Stack) -> int:
    return int(stack.simulator.summary()["requests"])


def ended(stack: Stack, *, timeout_s: float = 60) -> None:
    wait_until(
        lambda: not stack.sql("SELECT 1 FROM runs WHERE status IN ('pending', 'running')"),
        timeout_s=timeout_s,
        what="all runs have ended",
    )


def bucket(stack: Stack, model: str) -> dict[str, Any]:
    """State of the model's bucket, from the command line."""
    done = stack.command("limits", "--json")
    assert done.returncode == 0, done.stderr
    found = {line["bucket"]: line for line in json.loads(done.stdout)}
    return dict(found[f"openai/{model}"]["state"] or {})


def assert_completed(stack: Stack, run: Run, *, agents: int) -> None:
    """Everything completed at the first attempt, and both ledgers have the same calls."""
    assert {
        row["status"] for row in stack.sql("SELECT status FROM runs WHERE id = %s", run.id)
    } == {"completed"}
    rows = stack.sql(
        "SELECT t.outcome FROM attempts t JOIN agent_runs a ON a.id = t.agent_run_id"
        " WHERE a.run_id = %s",
        run.id,
    )
    attempts = Counter(row["outcome"] for row in rows)
    assert attempts["completed"] == agents
    assert not attempts["lost"]
    entries = stack.sql("SELECT * FROM cost_entries WHERE run_id = %s", run.id)
    assert {entry["kind"] for entry in entries} == {"actual"}
    assert_ledgers_agree(entries, stack.simulator.ledger())


def throttled(stack: Stack) -> int:
    return sum(record["status"] == 429 for record in stack.simulator.ledger())


def most_at_once(records: list[dict[str, Any]]) -> int:
    """Most requests that the simulator was answering at any moment."""
    moments = []
    for record in records:
        arrived_s = datetime.fromisoformat(record["arrived_at"]).timestamp()
        moments += [(arrived_s, 1), (arrived_s + record["seconds"], -1)]
    most = now = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


def test_the_places_of_a_killed_worker_come_back_within_20_s(stack: Stack) -> None:
    stack.simulator.configure(latency_s=40)
    run = enqueue("gpt-4.1-nano", 40)
    wait_until(lambda: stack.simulator.summary()["in_flight"] == PLACES, timeout_s=scaled(20))
    wait_until(lambda: len(workers_of(stack, "agent_runs a")) == 2)
    held = workers_of(stack, "holds h JOIN agent_runs a ON a.id = h.agent_run_id")
    victim, places = held.most_common(1)[0]

    os.kill(int(victim.split(":")[1]), signal.SIGKILL)
    killed_s = time.monotonic()
    wait_until(lambda: stack.simulator.summary()["in_flight"] == PLACES - places)
    stack.simulator.configure(latency_s=0.5)
    lost = served(stack)
    wait_until(lambda: served(stack) >= lost + places, timeout_s=scaled(30))

    assert time.monotonic() - killed_s < at_this_pace(20)
    assert stack.simulator.summary()["in_flight"] <= PLACES
    ended(stack, timeout_s=scaled(90))
    statuses = stack.sql("SELECT DISTINCT status FROM agent_runs WHERE run_id = %s", run.id)
    assert statuses == [{"status": "completed"}]
    assert most_at_once(stack.simulator.ledger()) == PLACES


def workers_of(stack: Stack, tables: str) -> Counter[str]:
    """Number of rows of each worker."""
    rows = stack.sql(f"SELECT a.worker FROM {tables} WHERE a.worker IS NOT NULL")
    return Counter(row["worker"] for row in rows)


def test_a_flushed_redis_does_not_forget_what_the_hour_has_used(stack: Stack) -> None:
    model = "gpt-4.1-mini"
    enqueue(model, 20)
    ended(stack)

    flush(stack)
    enqueue(model, 15)
    wait_until(lambda: bucket(stack, model).get("waiting") == 5, timeout_s=scaled(30))

    assert bucket(stack, model)["next_free_s"] > 60
    assert served(stack) == HOURLY
    cancel_all(stack)


def test_a_flushed_redis_does_not_forget_the_calls_in_flight(stack: Stack) -> None:
    model = "gpt-4.1"
    stack.simulator.configure(latency_s=8)
    run = enqueue(model, 40)
    wait_until(lambda: stack.simulator.summary()["in_flight"] == HOURLY, timeout_s=scaled(30))
    assert stack.sql("SELECT 1 FROM cost_entries WHERE run_id = %s", run.id) == []

    flush(stack)
    wait_until(lambda: bucket(stack, model).get("waiting") == 10, timeout_s=scaled(30))
    wait_until(lambda: not stack.simulator.summary()["in_flight"], timeout_s=scaled(30))

    assert bucket(stack, model)["next_free_s"] > 60
    assert served(stack) == HOURLY
    cancel_all(stack)


def test_a_flushed_redis_breaks_a_minute_limit_by_no_more_than_one_burst(stack: Stack) -> None:
    stack.simulator.configure(
        limits=[{"provider": "openai", "requests_per_minute": PER_MINUTE, "burst": BURST}]
    )
    run = enqueue("gpt-4o-mini", 100)
    wait_until(lambda: served(stack) >= 30, timeout_s=scaled(30))

    flush(stack)
    ended(stack)

    assert throttled(stack) <= BURST
    assert_completed(stack, run, agents=100)


def test_while_redis_is_away_calls_wait_and_nothing_else_happens(stack: Stack) -> None:
    stack.simulator.configure(
        limits=[{"provider": "openai", "requests_per_minute": PER_MINUTE, "burst": BURST}]
    )
    run = enqueue("gpt-4o", 100)
    wait_until(lambda: served(stack) >= 30, timeout_s=scaled(30))
    assert not any_says(stack, "limits_unavailable")

    with redis_away(stack):
        wait_until(lambda: all_say(stack, "limits_unavailable"), timeout_s=scaled(20))
        wait_until(lambda: not stack.simulator.summary()["in_flight"])
        before = served(stack)
        wait_until(lambda: beats_later(stack, seconds=3), timeout_s=scaled(20))
        assert served(stack) == before < 100
    ended(stack)

    assert throttled(stack) <= BURST
    assert_completed(stack, run, agents=100)


def flush(stack: Stack) -> None:
    with Redis.from_url(stack.urls.redis_url) as redis:
        redis.flushall()


def cancel_all(stack: Stack) -> None:
    for run in stack.sql("SELECT id FROM runs WHERE status = 'running'"):
        Run(str(run["id"])).cancel()
    ended(stack)


@contextmanager
def redis_away(stack: Stack) -> Iterator[None]:
    """Kill Redis; it is started again, with its data, at the end."""
    with Redis.from_url(stack.urls.redis_url) as redis:
        server = psutil.Process(int(redis.info("server")["process_id"]))
    keeper = server.parent()
    assert keeper is not None
    keeper.suspend()
    server.kill()
    try:
        wait_until(lambda: gone(server.pid), what="Redis has ended")
        yield
    finally:
        keeper.resume()


def any_says(stack: Stack, word: str) -> bool:
    """Whether the log of any worker that makes calls has this text."""
    return any(word in worker.log.read_text(errors="replace") for worker in stack.workers[1:])


def all_say(stack: Stack, word: str) -> bool:
    """Whether the logs of all these workers have it."""
    return all(word in worker.log.read_text(errors="replace") for worker in stack.workers[1:])


def beats_later(stack: Stack, *, seconds: float) -> bool:
    """Whether the last call's record is at least this old by the database's clock."""
    (row,) = stack.sql("SELECT clock_timestamp() - max(created_at) AS age FROM cost_entries")
    return bool(row["age"] > timedelta(seconds=seconds))

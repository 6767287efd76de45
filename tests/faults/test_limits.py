"""Rate limits when workers die and Redis forgets, or goes away, while calls are being made."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import yaml
from redis import Redis

from tests.embedded_home import gone
from tests.ledgers import assert_ledgers_agree
from tests.stack import Stack, run_stack
from tests.waiting import wait_until

MODEL = "gpt-4.1-nano"
BURST = 5
PER_MINUTE = 600
ENQUEUE = f"""
import sys
from app import Agent, Workflow, enqueue
config = {{"model": "{MODEL}", "max_tokens": 20}}
agents = [
    Agent(name=f"a{{number}}", prompt_template="go", llm_config=config)
    for number in range(int(sys.argv[1]))
]
workflow = Workflow(name=f"limited {{len(agents)}}", agents=agents, max_parallel_agents=100)
print(enqueue(workflow, {{}}).id)
"""


@contextmanager
def limited_stack(folder: Path, **limits: int) -> Iterator[Stack]:
    """Two workers and a scheduler under these limits, lanes narrow enough for both to get some."""
    configuration = {
        "rate_limits": {"openai": {"default": limits}},
        # Who waits stays where it can be seen waiting.
        "engine": {"drain_grace_s": 1, "lane_width": 5, "long_wait_s": 86_400},
    }
    with (
        run_stack(folder, "scheduler", configuration=yaml.safe_dump(configuration)) as stack,
        stack.worker("openai"),
        stack.worker("openai"),
    ):
        yield stack


def enqueue(stack: Stack, agents: int) -> str:
    program = stack.python("-c", ENQUEUE, str(agents))
    assert program.returncode == 0, program.stderr
    return program.stdout.strip()


def served(stack: Stack) -> int:
    return int(stack.simulator.summary()["requests"])


def ended(stack: Stack, *, timeout_s: float = 60) -> None:
    wait_until(
        lambda: not stack.sql("SELECT 1 FROM runs WHERE status IN ('pending', 'running')"),
        timeout_s=timeout_s,
        what="all runs have ended",
    )


def bucket(stack: Stack) -> dict[str, Any]:
    """State of the one bucket, as the command line shows it."""
    done = stack.python("-m", "app.cli", "limits", "--json")
    assert done.returncode == 0, done.stderr
    found = {line["bucket"]: line for line in json.loads(done.stdout)}
    return dict(found["openai/default"]["state"] or {})


def assert_completed(stack: Stack, *, agents: int) -> None:
    """Everything completed at the first attempt, and both ledgers have the same calls."""
    assert {run["status"] for run in stack.sql("SELECT status FROM runs")} == {"completed"}
    attempts = Counter(row["outcome"] for row in stack.sql("SELECT outcome FROM attempts"))
    assert attempts["completed"] == agents
    assert not attempts["lost"]
    entries = stack.sql("SELECT * FROM cost_entries")
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


def test_the_places_of_a_killed_worker_come_back_within_20_s(tmp_path: Path) -> None:
    with limited_stack(tmp_path, concurrent_requests=4) as stack:
        stack.simulator.configure(latency_s=40)
        enqueue(stack, 40)
        wait_until(lambda: stack.simulator.summary()["in_flight"] == 4, timeout_s=20)
        wait_until(lambda: len(workers_of(stack, "agent_runs a")) == 2)
        held = workers_of(stack, "holds h JOIN agent_runs a ON a.id = h.agent_run_id")
        victim, places = held.most_common(1)[0]

        os.kill(int(victim.split(":")[1]), signal.SIGKILL)
        killed_s = time.monotonic()
        wait_until(lambda: stack.simulator.summary()["in_flight"] == 4 - places)
        stack.simulator.configure(latency_s=0.5)
        lost = served(stack)
        wait_until(lambda: served(stack) >= lost + places, timeout_s=30)

        assert time.monotonic() - killed_s < 20
        assert stack.simulator.summary()["in_flight"] <= 4
        ended(stack, timeout_s=90)
        assert stack.sql("SELECT DISTINCT status FROM agent_runs") == [{"status": "completed"}]
        assert most_at_once(stack.simulator.ledger()) == 4


def workers_of(stack: Stack, tables: str) -> Counter[str]:
    """How many rows belong to each worker."""
    rows = stack.sql(f"SELECT a.worker FROM {tables} WHERE a.worker IS NOT NULL")
    return Counter(row["worker"] for row in rows)


def test_a_flushed_redis_does_not_forget_what_the_hour_has_used(tmp_path: Path) -> None:
    with limited_stack(tmp_path, requests_per_hour=30) as stack:
        enqueue(stack, 20)
        ended(stack)

        flush(stack)
        enqueue(stack, 15)
        wait_until(lambda: bucket(stack).get("waiting") == 5, timeout_s=30)

        assert bucket(stack)["next_free_s"] > 60
        assert served(stack) == 30
        cancel_all(stack)


def test_a_flushed_redis_does_not_forget_the_calls_in_flight(tmp_path: Path) -> None:
    with limited_stack(tmp_path, requests_per_hour=30) as stack:
        stack.simulator.configure(latency_s=8)
        enqueue(stack, 40)
        wait_until(lambda: stack.simulator.summary()["in_flight"] == 30, timeout_s=30)
        assert stack.sql("SELECT 1 FROM cost_entries") == []

        flush(stack)
        wait_until(lambda: bucket(stack).get("waiting") == 10, timeout_s=30)
        wait_until(lambda: not stack.simulator.summary()["in_flight"], timeout_s=30)

        assert bucket(stack)["next_free_s"] > 60
        assert served(stack) == 30
        cancel_all(stack)


def test_a_flushed_redis_breaks_a_minute_limit_by_no_more_than_one_burst(tmp_path: Path) -> None:
    with limited_stack(tmp_path, requests_per_minute=PER_MINUTE, burst=BURST) as stack:
        stack.simulator.configure(
            limits=[{"provider": "openai", "requests_per_minute": PER_MINUTE, "burst": BURST}]
        )
        enqueue(stack, 100)
        wait_until(lambda: served(stack) >= 30, timeout_s=30)

        flush(stack)
        ended(stack)

        assert throttled(stack) <= BURST
        assert_completed(stack, agents=100)


def test_while_redis_is_away_calls_wait_and_nothing_else_happens(tmp_path: Path) -> None:
    with limited_stack(tmp_path, requests_per_minute=PER_MINUTE, burst=BURST) as stack:
        stack.simulator.configure(
            limits=[{"provider": "openai", "requests_per_minute": PER_MINUTE, "burst": BURST}]
        )
        enqueue(stack, 100)
        wait_until(lambda: served(stack) >= 30, timeout_s=30)

        with redis_away(stack):
            wait_until(lambda: all_say(stack, "limits_unavailable"), timeout_s=20)
            wait_until(lambda: not stack.simulator.summary()["in_flight"])
            before = served(stack)
            wait_until(lambda: beats_later(stack, seconds=3), timeout_s=20)
            assert served(stack) == before < 100
        ended(stack)

        assert throttled(stack) <= BURST
        assert_completed(stack, agents=100)


def flush(stack: Stack) -> None:
    with Redis.from_url(stack.urls.redis_url) as redis:
        redis.flushall()


def cancel_all(stack: Stack) -> None:
    for run in stack.sql("SELECT id FROM runs WHERE status = 'running'"):
        stack.python("-m", "app.cli", "cancel", str(run["id"]))
    ended(stack)


@contextmanager
def redis_away(stack: Stack) -> Iterator[None]:
    """Kill Redis; it is started again, with its data, at the end."""
    with Redis.from_url(stack.urls.redis_url) as redis:
        server = psutil.Process(int(redis.info("server")["process_id"]))
    caretaker = server.parent()
    assert caretaker is not None
    caretaker.suspend()
    server.kill()
    try:
        wait_until(lambda: gone(server.pid), what="Redis has ended")
        yield
    finally:
        caretaker.resume()


def all_say(stack: Stack, word: str) -> bool:
    """Whether the logs of all workers with calls to make have this word."""
    return all(word in worker.log.read_text(errors="replace") for worker in stack.workers[1:])


def beats_later(stack: Stack, *, seconds: float) -> bool:
    """Whether the database's clock is so much later than the last call's record."""
    (row,) = stack.sql("SELECT clock_timestamp() - max(created_at) AS age FROM cost_entries")
    return bool(row["age"] > timedelta(seconds=seconds))

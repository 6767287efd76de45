"""Cancel, pause, resume and retry at random moments, and with workers and clients that die."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID

import pytest

from app import Agent, RetryPolicy, RetryStrategy, Run, Workflow, WorkflowStatus, enqueue
from app.client.process import process
from app.storage import control, stopping
from tests.faults.test_workers import pid_of
from tests.support.ledgers import assert_ledgers_agree
from tests.support.pace import at_this_pace, scaled
from tests.support.stack import CONFIGURATION, Stack, client_of, run_stack
from tests.support.waiting import wait_until

# Changes without a signal are found soon by a heartbeat or a sweep.
CONFIGURED = CONFIGURATION.replace(
    "engine:\n", "engine:\n  lease_s: 4\n  heartbeat_s: 1\n  watchdog_s: 1\n"
)
CLOSED_S = 2.0
WAIT_S = scaled(60.0)
TALKERS = 0.2
MODELS = ("gpt-4o-mini", "claude-haiku-4-5")
ENDED = {"completed", "failed", "cancelled", "budget_exceeded"}
AT_ONCE = RetryPolicy(strategy=RetryStrategy.IMMEDIATE)
# Every hold with the moment it was placed, under the lock of its run's budget.
WATCH_HOLDS = """
    CREATE TABLE placed (run_id uuid, call_id uuid, at timestamptz, barred bool);
    CREATE FUNCTION note_hold() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO placed SELECT a.run_id, NEW.call_id, clock_timestamp(), b.closed OR b.paused
        FROM agent_runs a JOIN budgets b ON b.id = a.run_id WHERE a.id = NEW.agent_run_id;
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_hold AFTER INSERT ON holds FOR EACH ROW EXECUTE FUNCTION note_hold();
"""


@pytest.fixture(scope="module")
def watched_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A scheduler, two workers, and a database that notes every hold."""
    with (
        run_stack(
            tmp_path_factory.mktemp("control"), "scheduler", configuration=CONFIGURED
        ) as stack,
        stack.worker("openai", "anthropic"),
        stack.worker("openai", "anthropic"),
    ):
        stack.sql(WATCH_HOLDS)
        yield stack


@pytest.fixture
def watched(watched_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """The stack, with this process as its client, and a reset simulator."""
    watched_stack.simulator.reset()
    with client_of(watched_stack, monkeypatch):
        yield watched_stack


def workflow(
    generator: random.Random, *, levels: int = 3, width: int = 6, **rules: Any
) -> Workflow:
    """Levels of agents on two providers; some meet an error that passes, some use a tool."""
    agents: list[Agent] = []
    for level, place in ((level, place) for level in range(levels) for place in range(width)):
        above = [agent.name for agent in agents if agent.name.startswith(f"l{level - 1}_")]
        needs = generator.sample(above, k=min(2, len(above)))
        trouble = generator.choices(
            ("", "[[sim:status=503,times=1]]", "[[sim:status=400,times=1]]"), weights=(8, 1, 1)
        )
        talks = generator.random() < TALKERS
        name = f"l{level}_{place}"
        agents.append(
            Agent(
                name=name,
                prompt_template=f"{name}: {' '.join(f'{{{need}}}' for need in needs)}{trouble[0]}"
                "[[sim:output_tokens=20]]" + ("[[sim:tool_turns=2]]" if talks else ""),
                tools=["check_total"] if talks else [],
                llm_config={"model": generator.choice(MODELS), "max_tokens": 30},
                dependencies=needs,
                retry_policy=AT_ONCE,
            )
        )
    return Workflow(name="random", agents=agents, **rules)


@dataclass
class Shift:
    """One run, its steps of control, and the periods in which no agent may start."""

    stack: Stack
    run: Run
    barred_since: datetime | None = None
    cut: bool = False
    barred: list[tuple[datetime, datetime]] = field(default_factory=list)

    def pause(self) -> None:
        if self.run.pause():
            self.barred_since = self.now()

    def resume(self) -> None:
        self.open(self.run.resume)

    def cancel(self) -> None:
        if self.run.cancel():
            self.cut = True
            self.barred_since = self.barred_since or self.now()
            closing_s = time.monotonic()
            wait_until(lambda: not self.stack.simulator.summary()["in_flight"])
            assert time.monotonic() - closing_s < at_this_pace(CLOSED_S)

    def cancel_unheard(self) -> None:
        """Cancel without a signal to workers: until a heartbeat only the budget stops calls."""
        step = partial(
            stopping.stop,
            run_id=UUID(self.run.id),
            as_=WorkflowStatus.CANCELLED,
            reason="nobody was told",
        )
        if in_one_transaction(step):
            self.cut = True
            self.barred_since = self.barred_since or self.now()

    def retry(self) -> None:
        self.open(self.run.retry_failed)

    def open(self, step: Callable[[], bool]) -> None:
        """A step that may let the run continue: before it no agent may have started."""
        before = self.now()
        if step() and self.barred_since is not None:
            self.barred.append((self.barred_since, before))
            self.barred_since = None

    def now(self) -> datetime:
        """The database's clock."""
        moment: datetime = self.stack.sql("SELECT clock_timestamp() AS at")[0]["at"]
        return moment

    def at(self, seconds: float) -> None:
        """Wait for a moment of the run."""
        started_s = time.monotonic()
        wait_until(lambda: time.monotonic() - started_s >= seconds or self.run.status.is_final)


def assert_all_is_well(shift: Shift) -> None:
    """Check the invariants of a run that has ended."""
    stack, run = shift.stack, shift.run
    wait_until(lambda: not stack.simulator.summary()["in_flight"])
    wait_until(lambda: not stack.sql("SELECT 1 FROM holds"), what="the last money is booked")
    agents = stack.sql(
        """
        SELECT a.name, a.status, count(t) FILTER (WHERE t.outcome = 'completed') AS accepted,
            count(t) FILTER (WHERE t.outcome = 'running') AS open
        FROM agent_runs a LEFT JOIN attempts t ON t.agent_run_id = a.id
        WHERE a.run_id = %s GROUP BY a.id
        """,
        run.id,
    )
    assert {row["status"] for row in agents} <= ENDED
    assert [r for r in agents if r["accepted"] != (r["status"] == "completed") or r["open"]] == []
    early = stack.sql(
        """
        SELECT a.name FROM agent_runs a JOIN attempts t ON t.agent_run_id = a.id
        JOIN agent_runs d ON d.run_id = a.run_id AND d.name = ANY(a.dependencies)
        WHERE a.run_id = %s AND (d.status <> 'completed' OR t.started_at < d.finished_at)
        """,
        run.id,
    )
    assert early == [], "an agent started before the results that it reads were accepted"
    (budget,) = stack.sql("SELECT * FROM budgets WHERE id = %s", run.id)
    entries = stack.sql("SELECT * FROM cost_entries WHERE run_id = %s", run.id)
    assert budget["spent_usd"] == sum(entry["cost_usd"] for entry in entries)
    assert budget["held_usd"] == budget["overdrawn_usd"] == 0
    assert budget["spent_usd"] <= budget["limit_usd"]
    assert_ledgers_agree(entries, stack.simulator.ledger(), cut=shift.cut)
    placed = stack.sql("SELECT at, barred FROM placed WHERE run_id = %s", run.id)
    assert [hold for hold in placed if hold["barred"]] == []
    closed = [*shift.barred, *([(shift.barred_since, shift.now())] if shift.barred_since else [])]
    assert [h for h in placed for since, until in closed if since < h["at"] < until] == []


def test_whatever_is_done_at_random_moments_nothing_is_lost_or_paid_twice(
    watched: Stack, seed: int
) -> None:
    generator = random.Random(seed)
    watched.simulator.configure(latency_s=0.1, jitter_s=0.2, seed=seed)
    rules: dict[str, Any] = {
        "max_parallel_agents": generator.choice((2, 4, 20)),
        # Sometimes so little that holds wait for each other.
        "cost_budget": generator.choice((0.002, 1.0)),
    }
    shift = Shift(watched, enqueue(workflow(generator, **rules)))

    for _ in range(generator.randint(2, 6)):
        shift.at(generator.uniform(0, 0.8))
        steps = (shift.pause, shift.resume, shift.cancel, shift.cancel_unheard, shift.retry)
        generator.choices(steps, weights=(4, 4, 1, 2, 1))[0]()
    shift.resume()
    for budget in count(1):
        status = shift.run.wait(WAIT_S)
        assert_all_is_well(shift)
        if status is WorkflowStatus.COMPLETED:
            break
        assert budget < 5, "what passes has passed after a few retries"
        shift.open(partial(shift.run.retry_failed, cost_budget=budget))

    assert {agent.status for agent in shift.run.results.values()} == {"completed"}


def test_no_call_starts_after_a_cancel_and_calls_in_flight_are_closed_within_2_s(
    watched: Stack,
) -> None:
    watched.simulator.configure(latency_s=0.3, jitter_s=0.3)
    wide = workflow(random.Random(0), levels=2, width=60, max_parallel_agents=50)
    shift = Shift(watched, enqueue(wide))
    wait_until(lambda: watched.simulator.summary()["in_flight"] > 30)

    shift.cancel()
    served = watched.simulator.summary()["requests"]

    assert shift.run.wait(scaled(CLOSED_S)) == "cancelled"
    assert_all_is_well(shift)
    assert watched.simulator.summary()["requests"] == served


def test_a_worker_killed_between_pause_and_resume_costs_one_repeat_of_its_calls(
    watched: Stack,
) -> None:
    watched.simulator.configure(latency_s=6)
    shift = Shift(watched, enqueue(workflow(random.Random(5), max_parallel_agents=6)))
    run = shift.run
    busy = "SELECT worker FROM agent_runs a JOIN holds h ON h.agent_run_id = a.id WHERE run_id = %s"
    wait_until(lambda: len(watched.sql(busy, run.id)) == 6)
    shift.pause()
    os.kill(pid_of(watched.sql(busy, run.id)[0]["worker"]), signal.SIGKILL)

    with watched.worker("openai", "anthropic"):
        watched.simulator.configure(latency_s=0.1)
        resting = "SELECT 1 FROM agent_runs WHERE run_id = %s AND status = 'running'"
        wait_until(lambda: not watched.sql(resting, run.id), timeout_s=scaled(40), what="it rests")
        paused = run.status
        shift.resume()
        while run.wait(WAIT_S) != "completed":
            assert_all_is_well(shift)
            shift.retry()

    assert paused == "paused"
    assert_all_is_well(shift)
    lost = watched.sql(
        "SELECT 1 FROM attempts t JOIN agent_runs a ON a.id = t.agent_run_id"
        " WHERE a.run_id = %s AND t.outcome = 'lost'",
        run.id,
    )
    assert lost


@pytest.mark.parametrize("step", ["cancel", "pause"])
def test_no_call_starts_after_a_commit_that_no_worker_has_heard_of(
    watched: Stack, step: str
) -> None:
    watched.simulator.configure(latency_s=0.2)
    talkers = [
        Agent(
            name=f"talker{number}",
            prompt_template="[[sim:tool_turns=30]] go on",
            llm_config={"model": MODELS[0], "max_tokens": 30},
            tools=["check_total"],
            max_turns=40,
        )
        for number in range(8)
    ]
    shift = Shift(watched, enqueue(Workflow(name="talkers", agents=talkers)))
    id_ = UUID(shift.run.id)
    stop = partial(
        stopping.stop, run_id=id_, as_=WorkflowStatus.CANCELLED, reason="nobody was told"
    )
    wait_until(lambda: watched.simulator.summary()["requests"] > 30)

    assert in_one_transaction(stop if step == "cancel" else partial(control.pause, run_id=id_))
    shift.barred_since, shift.cut = shift.now(), True
    resting = "SELECT 1 FROM agent_runs WHERE run_id = %s AND status = 'running'"
    wait_until(lambda: not watched.sql(resting, id_), what="every conversation has been refused")

    if step == "pause":
        assert shift.run.cancel()
    assert shift.run.wait(WAIT_S) == "cancelled"
    assert_all_is_well(shift)


def test_a_client_that_dies_right_after_its_commit_is_not_needed_any_more(watched: Stack) -> None:
    watched.simulator.configure(latency_s=0.3)
    shift = Shift(watched, enqueue(workflow(random.Random(7), max_parallel_agents=2)))
    id_ = UUID(shift.run.id)
    wait_until(lambda: watched.simulator.summary()["in_flight"])

    assert in_one_transaction(partial(control.pause, run_id=id_))
    shift.barred_since = shift.now()
    resting = "SELECT 1 FROM agent_runs WHERE run_id = %s AND status = 'running'"
    wait_until(lambda: not watched.sql(resting, id_), timeout_s=scaled(20))
    shift.open(lambda: in_one_transaction(partial(control.resume, run_id=id_)))
    while shift.run.wait(WAIT_S) != "completed":
        assert_all_is_well(shift)
        shift.open(lambda: in_one_transaction(partial(control.retry_failed, run_id=id_)))

    assert_all_is_well(shift)


def in_one_transaction(step: Callable[..., Any]) -> bool:
    """Commit a step of control without the messages that follow it."""
    return bool(process().run(lambda client: client.transaction(step)))

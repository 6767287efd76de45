"""SIGTERM under load: workers hand over in seconds, and no call is made twice."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from app import Agent, Run, Workflow, WorkflowStatus, enqueue
from tests.faults.test_workers import pid_of
from tests.support.ledgers import assert_ledgers_agree
from tests.support.pace import at_this_pace, scaled
from tests.support.stack import CONFIGURATION, Stack, Worker, client_of, run_stack
from tests.support.waiting import wait_until

LEVELS, WIDTH = 5, 100
PROVIDERS = ("openai", "anthropic")
MODELS = ("gpt-4o-mini", "claude-haiku-4-5")
LATENCY_S, JITTER_S = 1.0, 0.5
SCARCE = "gpt-4o"
SLOW_S = 2.5
#: Added to the longest call: a worker closes its connections and its interpreter ends.
END_S = 8.0
CONFIGURED = CONFIGURATION.replace("drain_grace_s: 3", "drain_grace_s: 15").replace(
    "openai:\n", f"openai:\n    models: {{{SCARCE}: {{concurrent_requests: 2}}}}\n"
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, ExitStack]]:
    """The scheduler's worker and two for providers; more may be started."""
    folder = tmp_path_factory.mktemp("rolling")
    with ExitStack() as workers:
        stack = workers.enter_context(run_stack(folder, "scheduler", configuration=CONFIGURED))
        for _ in range(2):
            workers.enter_context(stack.worker(*PROVIDERS))
        yield stack, workers


@pytest.fixture
def rolling(
    fleet: tuple[Stack, ExitStack], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Stack, ExitStack]]:
    """The same, with this process as its client."""
    fleet[0].simulator.reset()
    with client_of(fleet[0], monkeypatch):
        yield fleet


def many_levels() -> Workflow:
    agents = [
        Agent(
            name=f"l{level}_{place}",
            prompt_template=f"agent {level} {place} [[sim:output_tokens=15]]"
            + (f" after {{l{level - 1}_{place}}}" if level else ""),
            llm_config={"model": MODELS[place % 2], "max_tokens": 20},
            dependencies=[f"l{level - 1}_{place}"] if level else [],
        )
        for level in range(LEVELS)
        for place in range(WIDTH)
    ]
    return Workflow(name="rolling", agents=agents, max_parallel_agents=60)


def ended_after_s(worker: Worker) -> float:
    """Ask a worker to end; returns the seconds until it has."""
    started_s = time.monotonic()
    worker.process.terminate()
    assert worker.process.wait(scaled(30)) == 0
    return time.monotonic() - started_s


def served(stack: Stack) -> list[dict[str, Any]]:
    return list(stack.simulator.ledger())


def assert_nothing_was_repeated(stack: Stack, run: Run, calls: int) -> None:
    prompts = Counter(record["prompt_hash"] for record in served(stack))
    assert (len(prompts), max(prompts.values())) == (calls, 1)
    odd = stack.sql(
        """
        SELECT a.name, a.retries, a.recoveries, t.outcome
        FROM agent_runs a JOIN attempts t ON t.agent_run_id = a.id
        WHERE a.run_id = %s
            AND (t.outcome NOT IN ('completed', 'handed_back') OR a.retries + a.recoveries > 0)
        """,
        run.id,
    )
    assert odd == []
    entries = stack.sql("SELECT * FROM cost_entries WHERE run_id = %s", run.id)
    assert {entry["kind"] for entry in entries} == {"actual"}
    assert_ledgers_agree(entries, served(stack))
    assert {result.status for result in run.results.values()} == {"completed"}


def test_a_rolling_restart_of_all_workers_repeats_no_call(
    rolling: tuple[Stack, ExitStack],
) -> None:
    stack, workers = rolling
    leaving = [worker for worker in stack.workers if worker.process.poll() is None]
    # Started before the run, so that also on a slow machine the restart is within it.
    for queues in (("scheduler",), PROVIDERS, PROVIDERS):
        workers.enter_context(stack.worker(*queues))
    stack.simulator.configure(latency_s=LATENCY_S, jitter_s=JITTER_S)
    run = enqueue(many_levels())
    wait_until(
        lambda: len(served(stack)) >= WIDTH, timeout_s=scaled(30), what="the run is under way"
    )

    seconds = [ended_after_s(worker) for worker in leaving]
    under_way = not run.status.is_final
    ended = run.wait(scaled(60))

    print("handed over in", *(f"{each:.1f}" for each in seconds), "s")  # noqa: T201  pytest -s
    assert under_way, "the restart was over before the run"
    assert ended is WorkflowStatus.COMPLETED
    assert_nothing_was_repeated(stack, run, LEVELS * WIDTH)
    assert max(seconds) < LATENCY_S + JITTER_S + at_this_pace(END_S)


def test_what_waits_at_a_worker_that_is_told_to_end_goes_on_elsewhere_at_once(
    rolling: tuple[Stack, ExitStack],
) -> None:
    stack, _ = rolling
    stack.simulator.configure(latency_s=SLOW_S)
    agents = [
        Agent(
            name=f"a{number}",
            prompt_template=f"agent {number}",
            llm_config={"model": SCARCE, "max_tokens": 20},
        )
        for number in range(4)
    ]
    run = enqueue(Workflow(name="slow", agents=agents))
    wait_until(lambda: stack.simulator.summary()["in_flight"] == 2 and len(owners(stack)) == 4)
    (name,) = set(owners(stack))
    leaving = next(w for w in stack.workers if w.process.pid == pid_of(name))

    leaving.process.terminate()
    told_s = time.monotonic()
    wait_until(lambda: sum(owner != name for owner in owners(stack)) == 2, timeout_s=scaled(SLOW_S))
    taken_over_s = time.monotonic() - told_s
    ended = run.wait(scaled(40))

    print(f"taken over in {taken_over_s:.2f} s")  # noqa: T201  pytest -s
    assert taken_over_s < at_this_pace(1.5)
    assert ended is WorkflowStatus.COMPLETED
    assert_nothing_was_repeated(stack, run, len(agents))


def owners(stack: Stack) -> list[str]:
    """The worker of each agent that is in progress."""
    rows = stack.sql("SELECT worker FROM agent_runs WHERE status = 'running'")
    return [row["worker"] for row in rows]

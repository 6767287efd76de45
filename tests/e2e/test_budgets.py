"""Budgets under load: hundreds of agents on four worker processes, never a cent too much."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from app import Agent, Run, Workflow, WorkflowStatus, enqueue
from tests.stack import Stack
from tests.waiting import wait_until

AGENTS = 500
PROMPT = "[[sim:output_tokens=20]] Say something."
LATENCY_S = 0.1
END_S = 60.0


@dataclass(frozen=True)
class Sizes:
    """What each of the calls costs, and what is held for it."""

    cost_usd: Decimal
    worst_usd: Decimal

    def budget_for(self, calls: int) -> Decimal:
        """The smallest budget that so many calls fit into, one after the other."""
        return (calls - 1) * self.cost_usd + self.worst_usd


@dataclass
class Samples:
    """What was seen of the budgets while agents ran: the highest share and every excess."""

    count: int = 0
    excesses: list[Any] = field(default_factory=list)


def agent(name: str, **fields: Any) -> Agent:
    return Agent(
        name=name,
        prompt_template=PROMPT,
        llm_config={"model": "gpt-4o-mini", "max_tokens": 20},
        **fields,
    )


def many(**fields: Any) -> list[Agent]:
    return [agent(f"a{index}", **fields) for index in range(AGENTS)]


@pytest.fixture
def sizes(stack: Stack) -> Sizes:
    """Measured with one call of the same size."""
    stack.simulator.configure(latency_s=0.5)
    run = enqueue(Workflow(name="one", agents=[agent("one")]))
    (hold,) = wait_until(lambda: stack.sql("SELECT amount_usd FROM holds"))
    run.wait(END_S)
    return Sizes(cost_usd=run.cost, worst_usd=hold["amount_usd"])


@pytest.fixture
def four_workers(stack: Stack) -> Iterator[Stack]:
    """The stack with three more worker processes."""
    with ExitStack() as workers:
        for _ in range(3):
            workers.enter_context(stack.worker("openai"))
        stack.simulator.configure(latency_s=LATENCY_S)
        yield stack


@pytest.fixture
def standing(stack: Stack) -> Iterator[Stack]:
    """The stack, from which standing budgets are removed when the test is over."""
    yield stack
    stack.sql("DELETE FROM standing_budgets")


@contextmanager
def sampling(stack: Stack) -> Iterator[Samples]:
    """Look at all budgets, again and again, in a thread."""
    samples, over = Samples(), threading.Event()
    address = make_url(stack.urls.database_url).set(drivername="postgresql")

    def sample() -> None:
        text = address.render_as_string(hide_password=False)
        with psycopg.connect(text, autocommit=True) as connection:
            while not over.is_set():
                samples.count += 1
                samples.excesses += connection.execute(
                    "SELECT scope, subject, spent_usd, held_usd, limit_usd FROM budgets"
                    " WHERE spent_usd + held_usd > limit_usd OR overdrawn_usd > 0"
                ).fetchall()

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def statuses(stack: Stack, run: Run) -> dict[str, int]:
    rows = stack.sql(
        "SELECT status, count(*) AS agents FROM agent_runs WHERE run_id = %s GROUP BY 1", run.id
    )
    return {row["status"]: row["agents"] for row in rows}


def set_budget(stack: Stack, *words: str) -> None:
    done = stack.python("-m", "app.cli", "budgets", "set", *words)
    assert done.returncode == 0, done.stderr


def test_a_run_makes_exactly_the_calls_that_its_budget_fits(
    four_workers: Stack, sizes: Sizes
) -> None:
    stack = four_workers
    stack.simulator.configure(latency_s=LATENCY_S)
    budget = sizes.budget_for(137)

    with sampling(stack) as samples:
        run = enqueue(
            Workflow(
                name="many",
                agents=many(),
                cost_budget=float(budget),
                max_parallel_agents=AGENTS,
            )
        )
        ended = run.wait(END_S)

    calls = (budget - sizes.worst_usd) // sizes.cost_usd + 1
    assert calls == 137
    assert ended is WorkflowStatus.FAILED  # more than half of its agents
    assert statuses(stack, run) == {"completed": 137, "budget_exceeded": AGENTS - 137}
    assert run.cost == 137 * sizes.cost_usd
    assert samples.count > 100
    assert samples.excesses == []

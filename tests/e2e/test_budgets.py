"""Budgets under load: hundreds of agents on four worker processes, and never overspent."""

import json
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
from app.domain.money import aligned_dollars, dollars
from tests.support.commands import printed
from tests.support.pace import at_this_pace, scaled
from tests.support.stack import Stack
from tests.support.waiting import wait_until

AGENTS = 500
PROMPT = "[[sim:output_tokens=20]] Say something."
LATENCY_S = 0.1
#: A look without a pause would take a core from the workers.
SAMPLE_S = 0.005
END_S = scaled(60.0)


@dataclass(frozen=True)
class Sizes:
    """The cost of each of the calls, and the money held for it."""

    cost_usd: Decimal
    worst_usd: Decimal

    def budget_for(self, calls: int) -> Decimal:
        """The smallest budget for this number of calls, one after the other."""
        return (calls - 1) * self.cost_usd + self.worst_usd


@dataclass
class Samples:
    """Observations of the budgets while agents ran: the highest share and every excess."""

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
    """The stack; standing budgets are removed after the test."""
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
            while not over.wait(SAMPLE_S):
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
    done = stack.command("budgets", "set", *words)
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

    assert (budget - sizes.worst_usd) // sizes.cost_usd + 1 == 137
    assert budget // sizes.worst_usd < 137  # so some had to wait until others had settled
    assert ended is WorkflowStatus.FAILED  # more than half of its agents
    assert statuses(stack, run) == {"completed": 137, "budget_exceeded": AGENTS - 137}
    assert run.cost == 137 * sizes.cost_usd
    assert samples.count > 100
    assert samples.excesses == []


def test_overlapping_budgets_are_all_kept_and_the_narrowest_is_used_up(
    four_workers: Stack, standing: Stack, sizes: Sizes
) -> None:
    stack = four_workers
    stack.simulator.configure(latency_s=LATENCY_S)
    set_budget(stack, "all", "--limit", str(sizes.budget_for(130)), "--period", "day")
    set_budget(stack, "module", "A", "--limit", str(sizes.budget_for(60)))
    set_budget(stack, "tenant", "acme", "--limit", str(sizes.budget_for(70)), "--period", "month")
    agents = [
        agent(f"a{index}", module="AB"[index % 2], cost_limit=float(sizes.worst_usd))
        for index in range(AGENTS // 2)
    ]

    with sampling(stack) as samples:
        runs = [
            enqueue(
                Workflow(
                    name=f"overlapping_{tenant}",
                    agents=agents,
                    cost_budget=float(sizes.budget_for(90)),
                    max_parallel_agents=AGENTS,
                ),
                tenant=tenant,
            )
            for tenant in ("acme", "umbrella")
        ]
        for run in runs:
            run.wait(END_S)

    calls = stack.sql(
        # On a busy machine a call may fail, and is made again; the failure costs nothing.
        "SELECT tenant, module FROM cost_entries WHERE run_id = ANY(%s::uuid[]) AND cost_usd > 0",
        [run.id for run in runs],
    )
    assert len(calls) == 130
    assert sum(call["module"] == "A" for call in calls) <= 60
    assert sum(call["tenant"] == "acme" for call in calls) <= 70
    assert samples.excesses == []
    assert sum(statuses(stack, run)["completed"] for run in runs) == 130
    assert sum(statuses(stack, run)["budget_exceeded"] for run in runs) == AGENTS - 130
    assert_refusals_were_needed(stack, runs, sizes)


def assert_refusals_were_needed(stack: Stack, runs: list[Run], sizes: Sizes) -> None:
    """Each budget that refused an agent has no room for another call."""
    accounts = stack.sql("SELECT * FROM budgets WHERE held_usd = 0")
    full = {
        (row["scope"], row["subject"])
        for row in accounts
        if row["spent_usd"] + sizes.worst_usd > row["limit_usd"]
    }
    refused = stack.sql(
        "SELECT error FROM agent_runs WHERE status = 'budget_exceeded'"
        " AND run_id = ANY(%s::uuid[])",
        [run.id for run in runs],
    )
    named = {row["error"].split("budget of ")[1].split(" is $")[0] for row in refused}
    for name in named:
        scope, _, subject = name.partition(" per ")[0].partition(" ")
        assert (scope, subject) in full, name


def test_a_raised_limit_sets_waiting_agents_free(standing: Stack, sizes: Sizes) -> None:
    stack = standing
    stack.simulator.configure(latency_s=8)
    limit = sizes.worst_usd + sizes.cost_usd
    set_budget(stack, "module", "Slow", "--limit", str(limit))

    run = enqueue(Workflow(name="raised", agents=[agent(f"a{i}", module="Slow") for i in (1, 2)]))
    wait_until(lambda: stack.sql("SELECT 1 FROM hold_queue"))
    set_budget(stack, "module", "Slow", "--limit", str(2 * sizes.worst_usd))

    wait_until(lambda: stack.simulator.summary()["in_flight"] == 2, timeout_s=scaled(6))
    assert run.wait(END_S) is WorkflowStatus.COMPLETED


def test_who_waits_for_money_is_woken_when_it_becomes_free(stack: Stack, sizes: Sizes) -> None:
    stack.simulator.configure(latency_s=0.2)
    agents = [agent(f"a{index}") for index in range(8)]
    budget = sizes.budget_for(8)

    run = enqueue(Workflow(name="woken", agents=agents, cost_budget=float(budget)))

    assert run.wait(END_S) is WorkflowStatus.COMPLETED
    started_at, finished_at = run.record.started_at, run.record.finished_at
    assert started_at is not None
    assert finished_at is not None
    # Five fit at once, then two, then one. An agent that polled would look 0.75 s later, twice.
    assert (finished_at - started_at).total_seconds() < at_this_pace(3 * 0.2 + 2 * 0.75)


def test_thresholds_are_told_in_the_history_of_the_run(standing: Stack, sizes: Sizes) -> None:
    stack = standing
    set_budget(
        *(stack, "tenant", "tiny", "--limit", str(4 * sizes.cost_usd)),
        *("--soft", "--thresholds", "25,75"),
    )
    agents = [agent("first"), agent("second", dependencies=["first"])]

    run = enqueue(Workflow(name="told", agents=agents), tenant="tiny")
    run.wait(END_S)

    told = [event.data for event in run.events() if event.type == "budget_threshold"]
    assert [(data["scope"], data["subject"], data["share"]) for data in told] == [
        ("tenant", "tiny", 0.25)
    ]


def test_the_command_lists_shows_and_removes_budgets(standing: Stack, sizes: Sizes) -> None:
    stack = standing
    set_budget(stack, "tenant", "shown", "--limit", "1", "--period", "day", "--soft")
    run = enqueue(Workflow(name="shown", agents=[agent("one")]), tenant="shown")
    run.wait(END_S)

    (listed,) = json.loads(budgets(stack, "--json"))
    shown = json.loads(budgets(stack, "show", "tenant", "shown", "--json"))
    page = budgets(stack, "show", "tenant", "shown")
    removed = budgets(stack, "remove", "tenant", "shown")

    assert (listed["scope"], listed["subject"], listed["period"]) == ("tenant", "shown", "day")
    assert Decimal(listed["spent_usd"]) == sizes.cost_usd
    assert Decimal(listed["left_usd"]) == 1 - sizes.cost_usd
    assert shown["current"] == [listed]
    assert [Decimal(step["spent_usd"]) for step in shown["burn_down"]["day"]] == [sizes.cost_usd]
    assert "budget of tenant shown per day since" in page
    assert removed == "removed: budget of tenant shown per day\n"
    assert json.loads(budgets(stack, "--json")) == []
    assert len(json.loads(budgets(stack, "show", "tenant", "shown", "--json"))["past"]) == 1


@pytest.mark.usefixtures("standing")
def test_the_command_says_from_when_a_budget_counts_and_when_it_is_spent(
    sizes: Sizes,
) -> None:
    words = ("tenant", "counted", "--limit", "1", "--period", "month")
    nothing = printed("budgets", "set", *words)
    printed("budgets", "remove", "tenant", "counted")
    enqueue(Workflow(name="counted", agents=[agent("one")]), tenant="counted").wait(END_S)

    later = printed("budgets", "set", *words)
    facts = json.loads(printed("budgets", "set", *words, "--json"))
    from_start = printed("budgets", "set", *words, "--from-start")
    kept = printed("budgets", "set", *words)
    (forecast,) = json.loads(printed("budgets", "--forecast", "--json"))
    table = printed("budgets", "--forecast")

    spent = dollars(sizes.cost_usd)
    assert nothing.splitlines()[0] == "budget of tenant counted per month: $1.00, $1.00 left"
    assert "It counts the calls from now on; nothing else was spent since " in nothing
    assert f"It counts the calls from now on; the other {spent} that were spent since " in later
    assert "are not counted (--from-start counts them)." in later
    assert Decimal(facts["uncounted_usd"]) == sizes.cost_usd
    assert Decimal(facts["spent_usd"]) == 0
    assert f", {dollars(1 - sizes.cost_usd)} left" in from_start
    assert from_start.endswith(f" UTC, {spent} so far.\n")
    assert f"It keeps the {spent} that it has counted so far; nothing else was spent" in kept
    assert Decimal(forecast["spent_usd"]) == Decimal(forecast["last_hour_usd"]) == sizes.cost_usd
    assert "spent up (UTC)" in table
    assert aligned_dollars(sizes.cost_usd) in table


def budgets(stack: Stack, *words: str) -> str:
    done = stack.command("budgets", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_budget_that_is_refused_says_what_to_do(stack: Stack) -> None:
    lines = [
        stack.command("budgets", *words.split()).stderr
        for words in (
            "set all everything --limit 1",
            "set module --limit 1",
            "set module Finance --limit much",
            "remove tenant nobody",
        )
    ]

    assert [line.partition(" (see ")[0].strip() for line in lines] == [
        "agentchord: a budget of all has no subject: leave out 'everything'",
        "agentchord: a budget of a module needs its name, such as: module Finance",
        "agentchord: Invalid value: --limit 'much' is not an amount: give dollars, such as 50",
        "agentchord: there is no budget of tenant nobody: see `agentchord budgets`",
    ]

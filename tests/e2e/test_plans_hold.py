"""Laws of plans, on real workers and the simulator: the bound holds, the expectation is near."""

import json
import math
import random
import statistics
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app import Agent, Run, Workflow, enqueue
from app.bootstrap import call_planner
from app.client.process import process
from app.configuration.settings import load_settings
from app.domain.earlier import Earlier
from app.domain.money import round_up
from app.planning.figures import Forecast
from app.planning.forecast import forecast
from app.storage.earlier import read_earlier
from tests.support.commands import answer, cli
from tests.support.pace import scaled
from tests.support.planned_runs import long_list, random_input, random_workflow
from tests.support.stack import Stack

WAIT_S = scaled(300.0)
WORKFLOWS = 40


def planned(workflow: Workflow, run_input: dict[str, Any], earlier: Earlier = {}) -> Forecast:  # noqa: B006
    planner = call_planner(load_settings())
    return forecast(workflow, run_input, planner=planner, output_tokens=300, earlier=earlier)


def cost_of(stack: Stack, run: Run) -> Decimal:
    """The cost of a run and its inner runs in the ledger; there must be no retry."""
    assert run.wait(timeout=WAIT_S) in ("completed", "partially_completed"), run.error
    ((row),) = stack.sql(
        "SELECT coalesce(sum(c.cost_usd), 0) AS usd, coalesce(max(c.attempt), 1) AS attempts "
        "FROM cost_entries c JOIN runs r ON r.id = c.run_id "
        "WHERE r.id = %s OR %s = ANY(r.ancestors)",
        run.id,
        run.id,
    )
    assert row["attempts"] == 1
    return Decimal(row["usd"])


@pytest.mark.timeout(600)
def test_no_run_without_retries_costs_more_than_the_bound_of_its_plan(stack: Stack) -> None:
    rng = random.Random(18)
    cases = [(random_workflow(rng, f"bound {n}"), random_input(rng)) for n in range(WORKFLOWS)]
    cases.append((long_list(), {"rows": [{"text": "x"}] * 40}))

    bounds = [planned(workflow, given).bounds.once_usd for workflow, given in cases]
    runs = [enqueue(workflow, given) for workflow, given in cases]
    costs = [cost_of(stack, run) for run in runs]

    above = [
        (workflow.name, cost, bound)
        for (workflow, _), cost, bound in zip(cases, costs, bounds, strict=True)
        if cost > bound
    ]
    assert above == []
    # The bounds are bounds of these runs, and not only their budgets.
    looseness = [float(b / c) for b, c in zip(bounds, costs, strict=True) if c]
    assert statistics.median(looseness) < 20


def agent(name: str, prompt: str, *dependencies: str, **fields: Any) -> Agent:
    config = {"model": "gpt-4o-mini", "max_tokens": 4000}
    length = fields.pop("length", f"lengths.{name}")
    return Agent(
        name=name,
        prompt_template=f"{prompt} [[sim:output_tokens={{{length}}}]]",
        llm_config=config,
        dependencies=dependencies,
        **fields,
    )


INNER = Workflow(
    name="expected inner",
    agents=[
        agent("read", "Read {item.text}", length="item.length"),
        agent("judge", "Judge {read}", "read", length="item.second"),
    ],
)
EXPECTED = [
    Workflow(
        name="expected chain",
        agents=[
            agent("a", "Write about {topic}"),
            agent("b", "Go on: {a}", "a"),
            agent("c", "Go on: {a} {b} {a}", "a", "b"),
            agent("d", "Sum up {topic}"),
            agent("e", "Compare {c} {d}", "c", "d"),
        ],
    ),
    Workflow(
        name="expected list",
        agents=[
            agent("each", "Screen {item.text}", length="item.length", for_each="input.rows"),
            agent("a", "Rank {each} {each[0]}", "each"),
        ],
    ),
    Workflow(
        name="expected inner runs",
        agents=[
            Agent(name="inner", kind="workflow", config={"workflow": INNER}, for_each="input.few"),
            agent("a", "Rank {inner}", "inner"),
        ],
    ),
    Workflow(
        name="expected answered list",
        agents=[
            Agent(
                name="find",
                prompt_template="Find. [[sim:reply={found}]]",
                llm_config={"model": "gpt-4o-mini", "max_tokens": 4000},
            ),
            agent("each", "Screen {item}", "find", length="item.length", for_each="find.rows"),
            agent("a", "Rank {each}", "each"),
        ],
    ),
    Workflow(
        name="expected condition",
        agents=[
            agent("a", "Write about {topic}"),
            agent("b", "Go on: {a}", "a", condition="input.lengths.a > 60"),
            agent("c", "Go on: {a} {b}", "b", "a"),
            agent("d", "Sum up {topic}", length="item.length", for_each="input.rows"),
        ],
    ),
]
EARLIER, MEASURED = 20, 40


def lengths_from(rng: random.Random) -> dict[str, Any]:
    """An input that makes the lengths of all answers lognormal, with sigma 0.6."""

    def length() -> int:
        return max(min(round(math.exp(rng.gauss(math.log(80), 0.6))), 3000), 1)

    rows = [
        {"text": "word " * rng.randint(5, 30), "length": length(), "second": length()}
        for _ in range(rng.randint(6, 12))
    ]
    found = json.dumps({"rows": [{"length": length()} for _ in range(rng.randint(5, 9))]})
    return {
        "topic": "tides " * rng.randint(5, 30),
        "rows": rows,
        "few": rows[:6],
        "found": found,
        "lengths": {name: length() for name in "abcde"},
    }


def earlier_of(workflow: Workflow) -> Earlier:
    read = partial(read_earlier, workflow=workflow)
    return process().run(lambda client: client.transaction(read))


@pytest.mark.timeout(900)
def test_the_expectation_from_earlier_runs_is_near_the_cost_of_the_next_runs(
    stack: Stack, tmp_path: Path
) -> None:
    rng = random.Random(18)
    inputs = {
        each.name: [lengths_from(rng) for _ in range(EARLIER + MEASURED)] for each in EXPECTED
    }
    before = [enqueue(each, given) for each in EXPECTED for given in inputs[each.name][:EARLIER]]
    for run in before:
        cost_of(stack, run)
    known = {each.name: earlier_of(each) for each in EXPECTED}

    cases = [(each, given) for each in EXPECTED for given in inputs[each.name][EARLIER:]]
    plans = [planned(each, given, known[each.name]) for each, given in cases]
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(cases[0][0].definition() | {"input": cases[0][1]}))
    shown, told = answer(stack, "plan", str(file)), cli(stack, "plan", str(file)).stdout
    costs = [cost_of(stack, run) for run in [enqueue(each, given) for each, given in cases]]

    assert Decimal(str(shown["cost_usd"]["expected"])) == round_up(plans[0].expected_usd)
    assert shown["earlier_runs"] == EARLIER
    assert "in 9 of 10 runs" in told
    assert f"answers as long as in {EARLIER} earlier runs" in told
    errors: dict[str, list[float]] = {}
    within = 0
    for (each, _), plan, cost in zip(cases, plans, costs, strict=True):
        errors.setdefault(each.name, []).append(abs(float(plan.expected_usd / cost) - 1))
        assert plan.range_usd is not None
        within += plan.range_usd[0] <= cost <= plan.range_usd[1]
    medians = {name: statistics.median(found) for name, found in errors.items()}
    everything = [error for found in errors.values() for error in found]
    assert len(everything) >= 200
    assert statistics.median(everything) < 0.20, medians
    assert within / len(cases) >= 0.75


def in_a_row(number: int, budget_usd: Decimal, output_tokens: int) -> Workflow:
    names = "abcd"
    agents = [
        Agent(
            name=name,
            prompt_template=f"Go on: {{topic}} {{{before}}} [[sim:output_tokens={output_tokens}]]"
            if before
            else f"Begin: {{topic}} [[sim:output_tokens={output_tokens}]]",
            llm_config={"model": "gpt-4o-mini", "max_tokens": 400},
            dependencies=[before] if before else [],
        )
        for name, before in zip(names, ["", *names], strict=False)
    ]
    return Workflow(name=f"stops {number}", agents=agents, cost_budget=float(budget_usd))


def test_the_plan_names_the_agent_that_the_budget_will_stop(stack: Stack) -> None:
    rng = random.Random(18)
    given = {"topic": "tides " * 40}
    free = forecast(
        in_a_row(0, Decimal(1), 300),
        given,
        planner=call_planner(load_settings()),
        output_tokens=300,
    )
    budgets = [free.expected_usd * Decimal(rng.uniform(0.2, 1.6)) for _ in range(24)]
    workflows = [in_a_row(number, usd, 300) for number, usd in enumerate(budgets, 1)]
    plans = [planned(workflow, given) for workflow in workflows]

    runs = [enqueue(workflow, given) for workflow in workflows]
    stopped = []
    for run in runs:
        run.wait(timeout=WAIT_S)
        ends = {name: str(result.status) for name, result in run.results.items()}
        stopped.append(next((name for name in "abcd" if ends[name] == "budget_exceeded"), None))

    said = [plan.stops[0].agent if plan.stops else None for plan in plans]
    # The simulator's count of a prompt differs from the plan's by some tokens.
    differ = [pair for pair in zip(said, stopped, strict=True) if pair[0] != pair[1]]
    assert len(differ) <= 1, (said, stopped)
    assert {None, "b", "d"} <= set(stopped)

"""Expectations of a plan: lengths from earlier runs, the range of the cost, budgets that stop."""

import math
import random
from decimal import Decimal
from typing import Any

import pytest

from app.costs.pricing import Pricing
from app.domain.agent import Agent
from app.domain.earlier import Earlier, EarlierAgent
from app.domain.workflow import Workflow
from app.planning.calls import CallPlanner
from app.planning.figures import Forecast
from app.planning.forecast import forecast
from app.planning.spread import range_of, variance_of

MINI = {"model": "gpt-4o-mini", "max_tokens": 1000}
PLANNER = CallPlanner(Pricing(), default_max_tokens=4096)
TOKEN_USD = 1e-6


def agent(name: str, *dependencies: str, prompt: str = "x" * 400, **fields: Any) -> Agent:
    fields.setdefault("llm_config", MINI)
    return Agent(name=name, prompt_template=prompt, dependencies=dependencies, **fields)


def before(output: float = 200.0, **figures: float) -> EarlierAgent:
    given: dict[str, Any] = {
        "runs": 20,
        "answers": 20,
        "executions": 1.0,
        "executions_sd": 0.0,
        "calls": 1.0,
        "input_tokens": 100.0,
        "output_tokens": output,
        "output_sd": output / 2,
        "reasoning_tokens": 0.0,
    }
    return EarlierAgent(**given | figures)


def planned(*agents: Agent, earlier: Earlier | None = None, **fields: Any) -> Forecast:
    given = fields.pop("given", {})
    workflow = Workflow(name="w", agents=agents, **fields)
    return forecast(workflow, given, planner=PLANNER, output_tokens=100, earlier=earlier or {})


def test_lengths_of_earlier_runs_replace_the_assumed_lengths() -> None:
    earlier = {("w", "a"): before(200, reasoning_tokens=150), ("other", "b"): before(999)}

    found = planned(agent("a"), agent("b", "a", prompt="{a}"), earlier=earlier)

    a, b = found.agents
    assert a.calls[0].usage.output_tokens == 200
    assert b.calls[0].usage.output_tokens == 100
    # Reasoning is no part of the text that the next agent reads.
    assert b.calls[0].usage.input_tokens == 1 + 50 + 4
    assert (a.earlier_runs, b.earlier_runs, found.earlier_runs) == (20, 0, 0)
    assert found.range_usd is None


def test_a_list_of_another_agent_is_as_long_as_it_was_before() -> None:
    lists = agent("each", "a", prompt="{item}", for_each="a.rows")
    earlier = {("w", name): before() for name in "ab"}
    earlier["w", "each"] = before(executions=7.0, executions_sd=2.0, answers=140)

    found = planned(agent("a"), lists, agent("b", "each", prompt="{each}"), earlier=earlier)

    _, each, b = found.agents
    assert (len(each.calls), each.per_element, each.label) == (7, False, "each x 7")
    assert b.calls[0].usage.input_tokens == pytest.approx(7 * 200, rel=0.05)
    assert found.range_usd is not None
    assert found.range_usd[0] < found.expected_usd < found.range_usd[1]


def test_an_agent_that_a_condition_skips_costs_its_share() -> None:
    always = planned(agent("a"), earlier={("w", "a"): before()}).expected_usd
    half = planned(agent("a"), earlier={("w", "a"): before(executions=0.5)}).expected_usd

    assert half == always / 2


def test_a_conversation_has_as_many_calls_as_before() -> None:
    known = before(300, calls=3.0, input_tokens=1500.0)

    (a,) = planned(agent("a", tools=["search"]), earlier={("w", "a"): known}).agents

    assert len(a.calls) == 3
    assert sum(call.usage.input_tokens for call in a.calls) == 1500
    assert sum(call.usage.output_tokens for call in a.calls) == 300


def test_nine_of_ten_sums_of_lognormal_lengths_are_in_the_range() -> None:
    rng = random.Random(5)
    sigma, answers = 0.6, 8
    mean = 100 * math.exp(sigma**2 / 2)
    known = before(mean, answers=10**6, output_sd=mean * math.sqrt(math.expm1(sigma**2)))

    low, high = range_of(mean * answers * TOKEN_USD, variance_of(known, answers, TOKEN_USD))
    sums = [
        sum(100 * math.exp(rng.gauss(0, sigma)) for _ in range(answers)) * TOKEN_USD
        for _ in range(5000)
    ]

    assert 0.87 < sum(low <= each <= high for each in sums) / len(sums) < 0.93


def test_few_earlier_answers_make_the_range_wider() -> None:
    ranges = [
        planned(agent("a"), earlier={("w", "a"): before(answers=answers)}).range_usd
        for answers in (5, 500)
    ]

    assert ranges[0] is not None
    assert ranges[1] is not None
    assert ranges[0][0] < ranges[1][0] < ranges[1][1] < ranges[0][1]


def test_a_budget_that_holds_all_calls_stops_nothing() -> None:
    assert planned(agent("a"), agent("b", "a", prompt="{a}")).stops == ()


def test_the_first_call_that_the_budget_refuses_is_named_with_the_money_before_it() -> None:
    free = planned(agent("a"), agent("b"), agent("c"))
    one, hold = free.agents[0].expected_usd, free.agents[0].calls[0].hold_usd
    budget = one * 2 + hold * Decimal("0.99")

    (stop,) = planned(agent("a"), agent("b"), agent("c"), cost_budget=float(budget)).stops

    assert (stop.agent, stop.budget) == ("c", "cost_budget")
    assert stop.spent_usd == 2 * one
    assert stop.hold_usd == hold
    # The whole run would cost less than the budget, because a hold is the worst case.
    assert free.expected_usd < budget


def test_a_cost_limit_stops_its_own_agent_once_for_all_elements_and_in_sub_workflows() -> None:
    each = agent("each", prompt="{item}", for_each="rows", cost_limit=0.0001)
    inner = Workflow(name="inner", agents=[agent("deep", cost_limit=0.0001)])
    outer = Agent(name="outer", kind="workflow", config={"workflow": inner}, for_each="rows")

    stops = planned(each, outer, given={"rows": ["a", "b", "c"]}).stops

    assert [(stop.agent, stop.budget) for stop in stops] == [
        ("each", "cost_limit"),
        ("outer/deep", "cost_limit"),
    ]


def test_the_outputs_of_lists_and_sub_workflows_count_with_all_elements() -> None:
    each = agent("each", prompt="{item}", for_each="rows")
    inner = Workflow(name="inner", agents=[agent("one"), agent("two")])
    outer = Agent(name="outer", kind="workflow", config={"workflow": inner})
    rows = {"rows": ["x"] * 40}

    *_, all_, both = planned(
        each,
        outer,
        agent("all", "each", prompt="{each}"),
        agent("both", "outer", prompt="{outer}"),
        given=rows,
    ).agents

    assert all_.calls[0].usage.input_tokens == pytest.approx(40 * 100, rel=0.05)
    assert both.calls[0].usage.input_tokens == pytest.approx(2 * 100, rel=0.1)
    bound = planned(each, agent("all", "each", prompt="{each}"), given=rows).bounds.once_usd
    short = planned(each, agent("all", "each", prompt="{each[0]}"), given=rows).bounds.once_usd
    longest_usd = 39 * 1000 * 4 * Decimal("0.15e-6")
    assert bound - short > longest_usd

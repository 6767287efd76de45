"""The expected cost and the worst case of agents whose provider runs programs."""

from decimal import Decimal
from typing import Any

import pytest

from app import Agent, Workflow
from app.costs.pricing import Pricing
from app.planning.calls import CallPlanner
from app.planning.figures import AgentForecast
from app.planning.forecast import forecast

PLANNER = CallPlanner(Pricing(), default_max_tokens=4096)
OPENAI = {"model": "gpt-4o-mini", "max_tokens": 1000}
ANTHROPIC = {"model": "claude-haiku-4-5", "max_tokens": 1000}


def agent(**fields: Any) -> Agent:
    return Agent(name="a", prompt_template="x" * 400, **fields)


def planned(one: Agent) -> AgentForecast:
    workflow = Workflow(name="w", agents=[one])
    return forecast(workflow, {}, planner=PLANNER, output_tokens=100).agents[0]


@pytest.mark.parametrize(
    ("config", "fees_usd"),
    [
        # Two calls, of which the first runs a program: 6 minutes, or 21 minutes of each call,
        # because OpenAI makes a container for each.
        (ANTHROPIC, ["0.005", "0"]),
        (OPENAI, ["0.0315", "0.0315"]),
    ],
)
def test_a_plan_expects_a_program_with_the_fee_that_is_booked(
    config: dict[str, Any], fees_usd: list[str]
) -> None:
    program = {"server": "code_execution"}
    found = planned(agent(llm_config=config, tools=[program, "look_up"]))
    without = planned(agent(llm_config=config, tools=["look_up"]))

    price = PLANNER.price_of(agent(llm_config=config))
    fees = [price.containers_usd(call.usage.container_seconds) for call in found.calls]
    assert fees == [Decimal(usd) for usd in fees_usd]
    assert found.expected_usd - without.expected_usd > sum(fees)


def test_a_single_call_with_programs_is_planned_with_its_hold() -> None:
    tools = [{"server": "code_execution"}]
    one = agent(llm_config=ANTHROPIC, tools=tools, max_turns=1, cost_limit=50.0)

    held = PLANNER.plan(one, [{"role": "user", "content": "x" * 400}], tools).worst_usd

    assert planned(one).worst_usd == held

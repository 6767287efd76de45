"""The plan of lists that are walked together, and of groups of agents."""

from typing import Any

from app.costs.pricing import Pricing
from app.domain.agent import Agent
from app.domain.workflow import Workflow
from app.planning.calls import CallPlanner
from app.planning.figures import Forecast
from app.planning.forecast import forecast

PLANNER = CallPlanner(Pricing(), default_max_tokens=4096)
MODEL = {"model": "gpt-4o-mini", "max_tokens": 1000}


def agent(name: str, *dependencies: str, prompt: str, **fields: Any) -> Agent:
    return Agent(
        name=name, prompt_template=prompt, llm_config=MODEL, dependencies=dependencies, **fields
    )


def planned(*agents: Agent, **given: Any) -> Forecast:
    workflow = Workflow(name="w", agents=agents)
    return forecast(workflow, given, planner=PLANNER, output_tokens=100)


def test_lists_that_are_walked_together_are_counted_by_the_one_in_the_input() -> None:
    together = {"mail": "input.mails", "triage": "triage"}
    found = planned(
        agent("triage", prompt="{item}", for_each="mails"),
        agent("reply", "triage", prompt="{mail} {triage}", for_each=together),
        mails=["a", "b", "c"],
    )

    assert [row.elements for row in found.agents] == [3, 3]


def test_a_group_of_agents_is_planned_for_each_element() -> None:
    group = Agent(
        name="handled",
        for_each="mails",
        agents=[agent("one", prompt="{item}"), agent("two", "one", prompt="{one} {item}")],
    )
    found = planned(group, mails=["a", "b", "c"])

    assert [(row.name, len(row.calls)) for row in found.agents] == [
        ("handled/one", 3),
        ("handled/two", 3),
    ]

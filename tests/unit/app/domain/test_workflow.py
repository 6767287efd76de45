import json
from typing import Any

import pytest

from app.domain.agent import Agent, AgentResult
from app.domain.status import AgentStatus, WorkflowStatus
from app.domain.workflow import Workflow


def agent(name: str, *dependencies: str, **fields: Any) -> Agent:
    return Agent(
        name=name,
        prompt_template="Work.",
        llm_config={"model": "gpt-4o-mini"},
        dependencies=list(dependencies),
        **fields,
    )


def workflow(*agents: Agent, **fields: Any) -> Workflow:
    return Workflow(name="invoices", agents=agents, **fields)


def test_a_workflow_has_the_documented_defaults() -> None:
    invoices = workflow(agent("extract"))

    assert invoices.max_parallel_agents == 10
    assert invoices.cost_budget == 100.0
    assert invoices.timeout == 3600.0
    assert invoices.allow_partial_completion
    assert invoices.status is WorkflowStatus.PENDING
    assert invoices.total_cost == 0


def test_agents_are_found_by_name() -> None:
    extract = agent("extract")
    invoices = workflow(extract)

    assert invoices.get_agent_by_name("extract") is extract
    assert invoices.get_agent_by_name("nobody") is None


def test_ready_agents_come_by_priority_and_then_in_order_of_definition() -> None:
    invoices = workflow(
        agent("low", priority=1),
        agent("first"),
        agent("second"),
        agent("urgent", priority=9),
        agent("later", "low"),
    )

    ready = [one.name for one in invoices.get_ready_agents()]

    assert ready == ["urgent", "first", "second", "low"]


def test_an_agent_is_ready_when_its_dependencies_completed() -> None:
    invoices = workflow(agent("extract"), agent("report", "extract"))
    invoices.agents[0].status = AgentStatus.COMPLETED

    ready = [one.name for one in invoices.get_ready_agents()]

    assert ready == ["report"]


def test_levels_hold_the_agents_themselves() -> None:
    extract, check, report = agent("extract"), agent("check"), agent("report", "extract", "check")

    levels = workflow(report, extract, check).get_levels()

    assert levels == [[extract, check], [report]]


def test_statistics_count_agents_and_what_they_used() -> None:
    invoices = workflow(
        agent("extract", module="Finance"), agent("check", module="Finance"), agent("report")
    )
    invoices.total_cost = 0.25
    for one, status in zip(
        invoices.agents,
        [AgentStatus.COMPLETED, AgentStatus.BUDGET_EXCEEDED, AgentStatus.PENDING],
        strict=True,
    ):
        one.status = status
    invoices.agents[0].result = AgentResult(
        agent_id="1", status=AgentStatus.COMPLETED, tokens_used=120
    )

    statistics = invoices.get_statistics()

    assert statistics == {
        "total_agents": 3,
        "by_status": {"completed": 1, "budget_exceeded": 1, "pending": 1},
        "by_module": {"Finance": 2, "General": 1},
        "completed": 1,
        "failed": 1,
        "total_cost": 0.25,
        "total_tokens": 120,
    }


def test_a_definition_survives_the_way_through_json() -> None:
    invoices = workflow(agent("extract"), agent("report", "extract"), cost_budget=5, priority=7)

    restored = Workflow.from_definition(json.loads(json.dumps(invoices.definition())))

    assert restored.definition() == invoices.definition()
    assert restored.content_hash() == invoices.content_hash()


def test_the_state_of_a_run_is_no_part_of_the_version() -> None:
    invoices = workflow(agent("extract"))
    before = invoices.content_hash()

    invoices.status = WorkflowStatus.COMPLETED
    invoices.agents[0].status = AgentStatus.COMPLETED

    assert invoices.content_hash() == before
    assert invoices.to_dict()["status"] == "completed"
    assert invoices.to_dict()["agents"][0]["status"] == "completed"


@pytest.mark.parametrize("change", [{"cost_budget": 6}, {"description": "x"}, {"priority": 6}])
def test_any_change_of_the_definition_is_a_new_version(change: dict[str, Any]) -> None:
    before = workflow(agent("extract")).content_hash()

    after = workflow(agent("extract"), **change).content_hash()

    assert after != before


def test_changing_the_list_given_does_not_change_the_workflow() -> None:
    agents = [agent("extract")]
    invoices = Workflow(name="invoices", agents=agents)

    agents.append(agent("report"))

    assert len(invoices.agents) == 1

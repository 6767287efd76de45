"""The examples agree with the documentation, and fit their documents."""

import pytest

from app.costs.pricing import Pricing
from app.domain.input_validation import validate_input
from app.domain.workflow import Workflow
from app.examples import basic, erp, parallel
from app.examples.tools import check_total
from app.planning.calls import CallPlanner
from app.planning.worst_case import worst_case

ALL = [
    (basic.workflow(), basic.INPUT),
    (erp.workflow(), erp.INPUT),
    *((workflow, parallel.INPUT) for workflow in parallel.workflows()),
]


@pytest.mark.parametrize(("workflow", "given"), ALL, ids=lambda value: getattr(value, "name", ""))
def test_an_example_accepts_its_documents_and_knows_its_prices(
    workflow: Workflow, given: dict[str, str]
) -> None:
    validate_input(workflow, given)

    bounds = worst_case(workflow, given, CallPlanner(Pricing(), default_max_tokens=4096))

    assert 0 < bounds.once_usd < bounds.limit_usd <= workflow.cost_budget


def test_the_erp_example_spans_modules_and_providers() -> None:
    workflow = erp.workflow()
    module_of = {agent.name: agent.module for agent in workflow.agents}

    crossing = [
        (name, agent.name)
        for agent in workflow.agents
        for name in agent.dependencies
        if module_of[name] != agent.module
    ]

    assert len(workflow.agents) >= 11
    assert {"HR", "Finance", "Inventory", "Compliance"} <= set(module_of.values())
    assert {agent.provider for agent in workflow.agents} == {"openai", "anthropic"}
    assert len(crossing) >= 5


def test_the_basic_example_has_three_agents_one_with_a_tool() -> None:
    workflow = basic.workflow()

    assert [agent.name for agent in workflow.agents] == [
        "data_extractor",
        "data_validator",
        "report_generator",
    ]
    assert list(workflow.agents[1].tools) == [check_total]


def test_the_parallel_example_has_eight_workflows_with_35_agents_or_more() -> None:
    found = parallel.workflows()

    assert len({workflow.name for workflow in found}) == 8
    assert sum(len(workflow.agents) for workflow in found) >= 35


@pytest.mark.parametrize(("total", "correct"), [(636.0, True), (640.0, False)])
def test_the_tool_checks_the_arithmetic(total: float, correct: bool) -> None:
    assert check_total(quantity=24, unit_price=26.5, total=total) == {
        "expected_total": 636.0,
        "stated_total": total,
        "correct": correct,
    }

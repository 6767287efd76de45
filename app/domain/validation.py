"""The rules that a workflow must pass before anything is stored or sent.

Every refusal is a WorkflowError that names the agent, shows the value and says what to do.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from app.domain.agent import Agent
from app.domain.agent_validation import MAX_NAME_CHARS, schema_problem, validate_agent
from app.domain.bounds import MAX_DOLLARS, YEAR_S, Bounds, find_problem
from app.domain.data_flow import DataFlow
from app.domain.data_flow_validation import validate_data_flow
from app.domain.dependencies import DependencyResolver
from app.domain.json_values import find_text_problem
from app.domain.labels import check_labels
from app.domain.mistakes import refuse_all
from app.domain.suggestions import shortened
from app.errors import WorkflowError

BOUNDS = {
    "priority": Bounds(low=1, high=10, whole=True),
    "max_parallel_agents": Bounds(low=1, high=1_000_000, whole=True),
    "cost_budget": Bounds(high=MAX_DOLLARS),
    "timeout": Bounds(high=YEAR_S, positive=True),
}


class Definition(Protocol):
    """The attributes of a workflow that this module reads; BOUNDS names further attributes."""

    name: str
    description: str
    agents: Sequence[Agent]
    allow_partial_completion: bool
    input_schema: Any
    labels: Mapping[str, str]
    data_flow: DataFlow


def validate_workflow(workflow: Definition) -> DataFlow:
    """Check everything that can be known about a workflow before the workflow runs.

    Args:
        workflow: The workflow, which may be incomplete, because this check runs while the workflow
            is constructed.

    Returns:
        The data flow between the agents of the workflow.

    Raises:
        WorkflowError: If the workflow breaks a rule. The message names the agent. The error has the
            path of the field. If several agents break a rule, the error is a ``SeveralMistakes``.
    """
    _validate_fields(workflow)
    refuse_all(partial(_validate_one, agent, i) for i, agent in enumerate(workflow.agents))
    resolver = DependencyResolver(workflow.agents)
    flow = DataFlow(workflow.agents, resolver)
    validate_data_flow(workflow.agents, resolver, flow)
    return flow


def _validate_one(agent: object, index: int) -> None:
    if not isinstance(agent, Agent):
        raise WorkflowError(
            f"agents[{index}] is {shortened(agent)}: give an Agent(...)", field=f"agents[{index}]"
        )
    validate_agent(agent, index)


def _validate_fields(workflow: Definition) -> None:
    for field in ("name", "description"):
        if problem := find_text_problem(getattr(workflow, field)):
            raise WorkflowError(f"the workflow's {field} {problem}", field=field)
    if not workflow.name.strip() or len(workflow.name) > MAX_NAME_CHARS:
        raise WorkflowError(
            f"the workflow's name is {shortened(workflow.name)}: "
            f"give a string of 1 to {MAX_NAME_CHARS} characters",
            field="name",
        )
    found = find_problem(vars(workflow), BOUNDS)
    if not found and not isinstance(workflow.allow_partial_completion, bool):
        value = shortened(workflow.allow_partial_completion)
        found = "allow_partial_completion", f"is {value}: give True or False"
    if not found and not workflow.agents:
        found = "agents", "is empty: give at least one agent"
    if not found and workflow.input_schema is not None:
        found = schema_problem("input_schema", workflow.input_schema)
    if found:
        field, problem = found
        raise WorkflowError(f"workflow {workflow.name!r}: {field} {problem}", field=field)
    check_labels(workflow.labels)

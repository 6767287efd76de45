"""The rules that a workflow and a run's input must pass before anything is stored or sent.

Every refusal is a WorkflowError that names the agent, shows the value and says what to do.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from app.domain.agent import Agent
from app.domain.agent_validation import MAX_NAME_CHARS, validate_agent
from app.domain.attachments import templates_of, value_problem
from app.domain.bounds import MAX_DOLLARS, YEAR_S, Bounds, find_problem
from app.domain.data_flow import DataFlow
from app.domain.data_flow_validation import PROMPT, read_from_input, validate_data_flow
from app.domain.dependencies import DependencyResolver
from app.domain.for_each import list_problem
from app.domain.json_values import find_json_problem, find_text_problem
from app.domain.prompt import INDEX, INDEX_STEP, Placeholder, look_up, placeholders
from app.domain.suggestions import did_you_mean, listed, shortened
from app.errors import MissingInput, WorkflowError

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
            path of the field.
    """
    _validate_fields(workflow)
    for index, agent in enumerate(workflow.agents):
        if not isinstance(agent, Agent):
            raise WorkflowError(
                f"agents[{index}] is {shortened(agent)}: give an Agent(...)",
                field=f"agents[{index}]",
            )
        validate_agent(agent, index)
    resolver = DependencyResolver(workflow.agents)
    flow = DataFlow(workflow.agents, resolver)
    validate_data_flow(workflow.agents, resolver, flow)
    return flow


def validate_input(workflow: Definition, run_input: Mapping[str, Any]) -> None:
    """Check that a run's input is JSON and has a value for each placeholder of the prompts.

    Args:
        workflow: The workflow of the run.
        run_input: JSON values by key.

    Raises:
        WorkflowError: If the input is refused; the message names the key, or the agent whose
            placeholder has no value.
    """
    if not isinstance(run_input, dict):
        raise WorkflowError(
            f"the input is {shortened(run_input)} ({type(run_input).__name__}): "
            "give a dict with one key per placeholder",
            field="input",
        )
    if found := find_json_problem(run_input, "input"):
        raise WorkflowError(" ".join(found), field=found[0])
    flow = workflow.data_flow
    names = {agent.name for agent in workflow.agents}
    written = {*names, *flow.writers}
    if taken := next((key for key in flow.writers if key in run_input), None):
        writer = flow.writers[taken][0].agent
        raise WorkflowError(
            f"the input has the key {taken!r}, which agent {writer!r} writes into the context: "
            "rename one of them",
            field="input",
        )
    parsed: dict[int, Any] = {}
    for index, agent in enumerate(workflow.agents):
        _check_for_each(agent, index, run_input, written)
        _check_condition(agent, index, run_input, flow)
        for field, placeholder in read_from_input(agent):
            if placeholder.root in flow.writers:
                continue
            if problem := _input_problem(agent, placeholder, run_input, names, parsed):
                named = "" if field == PROMPT else f"{field}: "
                raise WorkflowError(
                    f"agent {agent.name!r}: {named}{problem}", field=f"agents[{index}].{field}"
                )
        _check_attachments(agent, index, run_input, parsed)


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
    if found:
        field, problem = found
        raise WorkflowError(f"workflow {workflow.name!r}: {field} {problem}", field=field)


def _check_for_each(
    agent: Agent, index: int, run_input: Mapping[str, Any], names: Collection[str]
) -> None:
    """Check the list of a for_each if the list is in the input."""
    error = list_problem(agent, run_input, names)
    if error is not None:
        raise WorkflowError(
            f"agent {agent.name!r}: {error}", field=f"agents[{index}].for_each"
        ) from error


def _check_condition(
    agent: Agent, index: int, run_input: Mapping[str, Any], flow: DataFlow
) -> None:
    """Check the names of an element in the condition of an agent without a for_each.

    Inside a group of agents for each element, these names are keys of the input.
    """
    condition = flow.condition(agent)
    if condition is None or agent.for_each is not None:
        return
    if missing := sorted(condition.elements - run_input.keys()):
        raise WorkflowError(
            f"agent {agent.name!r}: condition uses {missing[0]!r}, the element of a for_each, but "
            "the agent has no for_each: add for_each, or read the input as input.key",
            field=f"agents[{index}].condition",
        )


def _check_attachments(
    agent: Agent, index: int, run_input: Mapping[str, Any], parsed: dict[int, Any]
) -> None:
    """Check the attachments that the input gives; make only the checks that read no file."""
    for field, template in templates_of(agent):
        places = placeholders(template)
        if len(places) == 1 and places[0].text == template and places[0].root in run_input:
            if places[0].root in agent.input_mapping:
                continue
            problem = value_problem(look_up(places[0], run_input, parsed))
            if problem:
                raise WorkflowError(
                    f"agent {agent.name!r}: {field}: the value of {template} {problem}",
                    field=f"agents[{index}].{field}",
                )


def _input_problem(
    agent: Agent,
    placeholder: Placeholder,
    run_input: Mapping[str, Any],
    names: Collection[str],
    parsed: dict[int, Any],
) -> str | None:
    root = placeholder.root
    if INDEX_STEP in placeholder.path:
        if agent.for_each is None and INDEX not in run_input:
            return (
                f"placeholder {placeholder.text} uses [index], but the agent has no for_each: give "
                "a number, such as [0], or add for_each"
            )
        placeholder = replace(
            placeholder, path=placeholder.path[: placeholder.path.index(INDEX_STEP)]
        )
    if root in names:
        if root not in run_input:
            return None
        return (
            f"placeholder {{{root}}} could mean the agent's output or the input's key of that "
            f"name: rename the input's key {root!r}"
        )
    if root not in run_input:
        in_prompt = placeholder.text.startswith("{")
        literal = ", or double the braces to have it as literal text" if in_prompt else ""
        return (
            f"placeholder {placeholder.text} has no value: {root!r} is neither a key of the input "
            f"({listed(run_input)}) nor a dependency: give it in the input"
            f"{literal}{did_you_mean(root, [*run_input, *names])}"
        )
    try:
        look_up(placeholder, run_input, parsed)
    except MissingInput as error:
        return str(error)
    return None

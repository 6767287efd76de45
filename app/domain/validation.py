"""What a workflow and the input of a run must satisfy before anything is stored or sent.

Every refusal is a WorkflowError that names the agent, shows the value and says what to do.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from app.domain.agent import Agent
from app.domain.agent_validation import MAX_NAME_CHARS, validate_agent
from app.domain.bounds import MAX_DOLLARS, YEAR_S, Bounds, find_problem
from app.domain.dependencies import DependencyResolver
from app.domain.for_each import ITEM_NAMES, items_of, roots_read, source_of
from app.domain.json_values import MAX_VALUES, find_json_problem, find_text_problem
from app.domain.prompt import Placeholder, look_up, placeholders
from app.domain.suggestions import did_you_mean, listed, shortened
from app.errors import MissingInput, WorkflowError

if TYPE_CHECKING:
    from app.domain.workflow import Workflow

BOUNDS = {
    "priority": Bounds(low=1, high=10, whole=True),
    "max_parallel_agents": Bounds(low=1, high=1_000_000, whole=True),
    "cost_budget": Bounds(high=MAX_DOLLARS),
    "timeout": Bounds(high=YEAR_S, positive=True),
}


def validate_workflow(workflow: "Workflow") -> None:
    """Check everything about a workflow that can be known before it runs.

    Args:
        workflow: The workflow, not necessarily complete yet: this runs while it is constructed.

    Raises:
        WorkflowError: Naming the offending agent and carrying the path of the field.
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
    _validate_placeholders(workflow, resolver)


def validate_input(workflow: "Workflow", run_input: Mapping[str, Any]) -> None:
    """Check that a run's input is JSON and has what the prompts ask of it.

    Args:
        workflow: The workflow of the run.
        run_input: JSON values by key.

    Raises:
        WorkflowError: Naming the offending key, or the agent whose placeholder has no value.
    """
    if not isinstance(run_input, dict):
        raise WorkflowError(
            f"the input is {shortened(run_input)} ({type(run_input).__name__}): "
            "give a dict with one key per placeholder",
            field="input",
        )
    if found := find_json_problem(run_input, "input"):
        raise WorkflowError(" ".join(found), field=found[0])
    names = {agent.name for agent in workflow.agents}
    parsed: dict[int, Any] = {}
    for index, agent in enumerate(workflow.agents):
        _check_for_each(agent, index, run_input, names)
        for placeholder in placeholders(agent.prompt_template):
            if agent.for_each is not None and placeholder.root in ITEM_NAMES:
                continue
            if problem := _input_problem(placeholder, run_input, names, parsed):
                raise WorkflowError(
                    f"agent {agent.name!r}: {problem}", field=f"agents[{index}].prompt_template"
                )


def _validate_fields(workflow: "Workflow") -> None:
    for field in ("name", "description"):
        if problem := find_text_problem(getattr(workflow, field)):
            raise WorkflowError(f"the workflow's {field} {problem}", field=field)
    if not workflow.name.strip() or len(workflow.name) > MAX_NAME_CHARS:
        raise WorkflowError(
            f"the workflow's name is {shortened(workflow.name)}: "
            f"give a text of 1 to {MAX_NAME_CHARS} characters",
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


def _validate_placeholders(workflow: "Workflow", resolver: DependencyResolver) -> None:
    """Refuse prompts that ask for an output that is not sure to be there by then."""
    index_of = {agent.name: index for index, agent in enumerate(workflow.agents)}
    indirect: dict[str, list[str]] = {}
    for agent in workflow.agents:
        roots = roots_read(agent, index_of)
        others = [root for root in roots if root in index_of and root not in agent.dependencies]
        if agent.for_each is not None and (taken := [n for n in ITEM_NAMES if n in index_of]):
            raise WorkflowError(
                f"agent {taken[0]!r}: {taken[0]!r} is what prompts with a for_each call an element "
                f"(agent {agent.name!r}): rename the agent",
                field=f"agents[{index_of[taken[0]]}].name",
            )
        if others:
            indirect[agent.name] = others
    for name, other in resolver.find_independent(indirect):
        problem = (
            f"its prompt uses {{{other}}}, its own output: remove the placeholder"
            if name == other
            else f"its prompt uses {{{other}}}, the output of an agent that it does not depend on: "
            f"add {other!r} to its dependencies"
        )
        raise WorkflowError(
            f"agent {name!r}: {problem}", field=f"agents[{index_of[name]}].prompt_template"
        )


def _check_for_each(
    agent: Agent, index: int, run_input: Mapping[str, Any], names: Collection[str]
) -> None:
    """A list that is in the input can be looked at before anything is stored."""
    if agent.for_each is None or source_of(agent.for_each, names).root in names:
        return
    try:
        # How long it may be is the workers' to say.
        items_of(agent, run_input, agents=names, max_items=MAX_VALUES)
    except MissingInput as error:
        raise WorkflowError(
            f"agent {agent.name!r}: {error}", field=f"agents[{index}].for_each"
        ) from error


def _input_problem(
    placeholder: Placeholder,
    run_input: Mapping[str, Any],
    names: Collection[str],
    parsed: dict[int, Any],
) -> str | None:
    root = placeholder.root
    if root in names:
        if root not in run_input:
            return None
        return (
            f"placeholder {{{root}}} could mean the agent's output or the input's key of that "
            f"name: rename the input's key {root!r}"
        )
    if root not in run_input:
        return (
            f"placeholder {placeholder.text} has no value: {root!r} is neither a key of the input "
            f"({listed(run_input)}) nor an agent it depends on: give it in the input, or double "
            f"the braces to have it as literal text{did_you_mean(root, [*run_input, *names])}"
        )
    try:
        look_up(placeholder, run_input, parsed)
    except MissingInput as error:
        return str(error)
    return None

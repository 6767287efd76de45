"""Sub-workflows: a workflow that runs as one agent of another, and how deep they may be nested.

A workflow that an agent of the kind ``workflow`` names is replaced by its definition when the outer
workflow is stored. So a version of the outer one fixes versions of all inner ones, a new version
changes no run under way, and no cycle can come about later.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from app.domain.agent import Agent
from app.domain.workflow import Workflow
from app.errors import WorkflowError


def embedded(agent: Agent) -> Workflow | None:
    """Return the workflow that an agent runs; None for other kinds, and if it is only named.

    Raises:
        WorkflowError: If it is a definition that cannot be accepted.
    """
    given = agent.sub_workflow
    if isinstance(given, Workflow):
        return given
    if not isinstance(given, Mapping):
        return None
    try:
        return Workflow.from_definition(given)
    except (TypeError, KeyError, WorkflowError) as error:
        raise WorkflowError(f"agent {agent.name!r}: config.workflow: {error}") from error


def named_workflows(workflow: Workflow) -> set[str]:
    """Return the names that are to be replaced by their workflows, at any depth."""
    found: set[str] = set()
    for agent in workflow.agents:
        if isinstance(agent.sub_workflow, str):
            found.add(agent.sub_workflow)
        elif (inner := embedded(agent)) is not None:
            found |= named_workflows(inner)
    return found


def with_embedded(workflow: Workflow, known: Mapping[str, Mapping[str, Any]]) -> Workflow:
    """Return a workflow with definitions in the place of names.

    Args:
        workflow: The outer one.
        known: Stored definitions by name, without names in them.

    Raises:
        WorkflowError: If a name is not known.
    """
    agents = []
    for index, agent in enumerate(workflow.agents):
        inner = embedded(agent)
        if isinstance(agent.sub_workflow, str):
            if agent.sub_workflow not in known:
                raise WorkflowError(
                    f"agent {agent.name!r}: no workflow is stored as {agent.sub_workflow!r}: "
                    "register it first, or give the workflow itself",
                    field=f"agents[{index}].config.workflow",
                )
            inner = Workflow.from_definition(known[agent.sub_workflow])
        agents.append(agent if inner is None else _around(agent, with_embedded(inner, known)))
    return replace(workflow, agents=agents)


def check_nesting(workflow: Workflow, *, max_depth: int) -> None:
    """Refuse workflows in workflows that are too deep, or of one name.

    Args:
        workflow: The outer one.
        max_depth: Sub-workflows that may be inside each other.

    Raises:
        WorkflowError: With the path of names; also if a workflow is inside one of its own name.
    """
    for path in _paths(workflow):
        if len(set(path)) < len(path):
            raise WorkflowError(
                f"a workflow would contain itself: {' > '.join(path)}: give the inner one "
                "another name, or take it out"
            )
        if len(path) - 1 > max_depth:
            raise WorkflowError(
                f"sub-workflows are nested {len(path) - 1} deep ({' > '.join(path)}), "
                f"engine.max_depth is {max_depth}: nest less, or raise the setting"
            )


def all_workflows(workflow: Workflow) -> Iterator[Workflow]:
    """Yield a workflow and all that are in it, each as often as it is there."""
    yield workflow
    for agent in workflow.agents:
        if (inner := embedded(agent)) is not None:
            yield from all_workflows(inner)


def transformed(workflow: Workflow, change: Callable[[Workflow], Workflow]) -> Workflow:
    """Change a workflow and all that are in it, the innermost first."""
    agents = [
        agent if (inner := embedded(agent)) is None else _around(agent, transformed(inner, change))
        for agent in workflow.agents
    ]
    if any(new is not old for new, old in zip(agents, workflow.agents, strict=True)):
        workflow = replace(workflow, agents=agents)
    return change(workflow)


def _around(agent: Agent, inner: Workflow) -> Agent:
    """Return the agent with the definition of this workflow as its own."""
    return replace(agent, config={**agent.config, "workflow": inner.definition()})


def _paths(workflow: Workflow) -> Iterator[tuple[str, ...]]:
    """Yield the names from the outermost workflow to each innermost one."""
    inners = [inner for agent in workflow.agents if (inner := embedded(agent)) is not None]
    if not inners:
        yield (workflow.name,)
    for inner in inners:
        for path in _paths(inner):
            yield (workflow.name, *path)

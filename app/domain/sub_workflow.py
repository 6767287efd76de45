"""Sub-workflows (workflows that run as agents of other workflows), and the limit of the nesting.

If an agent of the kind ``workflow`` has only the name of a workflow, the name is replaced by the
definition when the outer workflow is stored. So each version of the outer workflow has fixed
versions of all inner workflows. A new version of an inner workflow does not change runs that are
under way. No cycle can arise later.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from app.domain.agent import Agent
from app.domain.workflow import Workflow
from app.errors import WorkflowError


def embedded(agent: Agent) -> Workflow | None:
    """Return the workflow inside an agent; None if the agent has no workflow or only a name.

    Raises:
        WorkflowError: If the agent has a definition that cannot be accepted.
    """
    given = agent.sub_workflow
    if isinstance(given, Workflow):
        return given
    if not isinstance(given, Mapping):
        return None
    try:
        return Workflow.from_definition(given)
    except (TypeError, AttributeError, LookupError, ValueError) as error:
        missing = f"the key {error} is missing: add it"
        problem = missing if isinstance(error, KeyError) else str(error)
        raise WorkflowError(f"agent {agent.name!r}: config.workflow: {problem}") from error


def named_workflows(workflow: Workflow) -> set[str]:
    """Return the names of workflows, at any depth; definitions must replace these names."""
    found: set[str] = set()
    for agent in workflow.agents:
        if isinstance(agent.sub_workflow, str):
            found.add(agent.sub_workflow)
        elif (inner := embedded(agent)) is not None:
            found |= named_workflows(inner)
    return found


def with_embedded(workflow: Workflow, known: Mapping[str, Mapping[str, Any]]) -> Workflow:
    """Return a copy of a workflow in which definitions replace the names of sub-workflows.

    Args:
        workflow: The outer workflow.
        known: Stored definitions by name; in these definitions all names are already replaced.

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
    """Refuse sub-workflows that are nested too deeply, or that contain themselves.

    Args:
        workflow: The outer workflow.
        max_depth: Largest number of sub-workflows that may be inside each other.

    Raises:
        WorkflowError: If the nesting is too deep, or if a workflow is inside a workflow with the
            same name. The message has the path of names.
    """
    for path in _paths(workflow):
        if len(set(path)) < len(path):
            raise WorkflowError(
                f"a workflow would contain itself: {' > '.join(path)}: rename the "
                "inner workflow, or take it out"
            )
        if len(path) - 1 > max_depth:
            raise WorkflowError(
                f"sub-workflows are nested {len(path) - 1} deep ({' > '.join(path)}), "
                f"engine.max_depth is {max_depth}: nest less, or raise the setting"
            )


def all_workflows(workflow: Workflow) -> Iterator[Workflow]:
    """Yield a workflow and all its sub-workflows; a repeated sub-workflow is yielded repeatedly."""
    yield workflow
    for agent in workflow.agents:
        if (inner := embedded(agent)) is not None:
            yield from all_workflows(inner)


def transformed(workflow: Workflow, change: Callable[[Workflow], Workflow]) -> Workflow:
    """Change a workflow and all sub-workflows in it; the innermost sub-workflows come first."""
    agents = [
        agent if (inner := embedded(agent)) is None else _around(agent, transformed(inner, change))
        for agent in workflow.agents
    ]
    if any(new is not old for new, old in zip(agents, workflow.agents, strict=True)):
        workflow = replace(workflow, agents=agents)
    return change(workflow)


def _around(agent: Agent, inner: Workflow) -> Agent:
    """Return a copy of the agent; the config of the copy has the workflow's definition."""
    return replace(agent, config={**agent.config, "workflow": inner.definition()})


def _paths(workflow: Workflow) -> Iterator[tuple[str, ...]]:
    """Yield a path for each innermost workflow: all names from the outermost workflow on."""
    inners = [inner for agent in workflow.agents if (inner := embedded(agent)) is not None]
    if not inners:
        yield (workflow.name,)
    for inner in inners:
        for path in _paths(inner):
            yield (workflow.name, *path)

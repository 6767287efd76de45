"""Refuses names that could mean two things, such as a list of the input and an agent."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.domain.agent import Agent
from app.domain.data_flow import DataFlow
from app.domain.for_each import INPUT, ITEM_NAMES, element_names, lists_of
from app.domain.mistakes import Mistake
from app.errors import WorkflowError


def find_clashes(
    agents: Sequence[Agent], flow: DataFlow, index_of: Mapping[str, int]
) -> Iterator[Mistake]:
    """Yield a mistake for each name with two meanings; the message says what to rename.

    Args:
        agents: The agents of a workflow.
        flow: Their data flow.
        index_of: The place of each agent, by its name.
    """
    yield from _in_elements(agents, flow, index_of)
    for agent in agents:
        yield from _in_group(agent, index_of[agent.name])
    if INPUT in index_of:
        yield from _of_the_input(agents, flow, index_of)
        return
    for agent in agents:
        for name, path in lists_of(agent, (INPUT,)).items():
            if path.root != INPUT:
                continue
            field = f"for_each.{name}" if isinstance(agent.for_each, Mapping) else "for_each"
            if problem := _taken(str(path.path[0]), flow, index_of):
                yield WorkflowError(
                    f"agent {agent.name!r}: its {field} uses {path.text.strip('{}')!r}, but "
                    f"{problem}",
                    field=f"agents[{index_of[agent.name]}].{field}",
                )


def _taken(key: str, flow: DataFlow, index_of: Mapping[str, int]) -> str | None:
    """Return why a key cannot be read from the input."""
    if key in index_of:
        return f"{key!r} is the name of an agent: rename the agent {key!r}"
    if key in flow.writers:
        writer = flow.writers[key][0].agent
        return f"agent {writer!r} writes the key {key!r} into the context: rename one of them"
    return None


def _of_the_input(
    agents: Sequence[Agent], flow: DataFlow, index_of: Mapping[str, int]
) -> Iterator[Mistake]:
    """Refuse an agent with the name ``input`` if a path or a condition may mean the run's input."""
    for agent in agents:
        condition = flow.condition(agent)
        walks = any(path.root == INPUT for path in lists_of(agent, (INPUT,)).values())
        if walks or (condition and condition.reads_input):
            field = "for_each" if walks else "condition"
            yield WorkflowError(
                f"agent {INPUT!r}: {INPUT!r} names the run's input in the {field} of agent "
                f"{agent.name!r}: rename the agent {INPUT!r}",
                field=f"agents[{index_of[INPUT]}].name",
            )
            return


def _in_elements(
    agents: Sequence[Agent], flow: DataFlow, index_of: Mapping[str, int]
) -> Iterator[Mistake]:
    """Refuse agents and keys with the names ``item`` or ``index`` if there is a for_each."""
    lists = [agent.name for agent in agents if agent.for_each is not None]
    for name in ITEM_NAMES if lists else ():
        if name in index_of:
            yield WorkflowError(
                f"agent {name!r}: {name!r} is reserved for the elements of a for_each "
                f"(agent {lists[0]!r}): rename the agent",
                field=f"agents[{index_of[name]}].name",
            )
        if name in flow.writers:
            writer = flow.writers[name][0].agent
            yield WorkflowError(
                f"agent {writer!r}: output_mapping writes the key {name!r}, which is reserved for "
                f"the elements of a for_each (agent {lists[0]!r}): rename the key",
                field=f"agents[{index_of[writer]}].output_mapping",
            )


def _in_group(agent: Agent, index: int) -> Iterator[Mistake]:
    """Refuse inner agents with a name of the outer element, which they could not read any more."""
    own = () if agent.input_mapping else element_names(agent)
    for place, name in enumerate(_names_inside(agent.sub_workflow) if own else ()):
        if name in own:
            yield WorkflowError(
                f"agent {agent.name!r}: config.workflow: agent {name!r} has the name of an element "
                "of the for_each: rename the agent",
                field=f"agents[{index}].config.workflow.agents[{place}].name",
            )


def _names_inside(workflow: Any) -> list[Any]:
    """Return the names of a sub-workflow's agents; an odd definition is refused later."""
    if not isinstance(workflow, Mapping):
        return [agent.name for agent in getattr(workflow, "agents", ())]
    agents = workflow.get("agents")
    known = agents if isinstance(agents, list | tuple) else ()
    return [each.get("name") if isinstance(each, Mapping) else None for each in known]

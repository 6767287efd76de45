"""``for_each``: one agent run per element of a list, and the names by which prompts know it.

The list is ``documents`` or ``input.documents``, a path into the run's input, or ``reader`` or
``reader.items``, a path into the output of an agent that comes before.
"""

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

from app.domain.agent import Agent
from app.domain.prompt import Placeholder, look_up, parsed_text, placeholders
from app.domain.suggestions import shortened
from app.errors import MissingInput, TooManyItems, WorkflowError

INPUT = "input"
#: The names in prompts of a for_each agent for its element, and for its index from 0.
ITEM, INDEX = "item", "index"
ITEM_NAMES = (ITEM, INDEX)


def agent_of(name: str) -> str:
    """Return the agent's name of an agent run's, such as ``screen[3]``; it has no brackets."""
    return name.partition("[")[0]


def source_of(for_each: str, agents: Container[str]) -> Placeholder:
    """Return the path of the list; it begins with an agent's name or a key of the run's input.

    Args:
        for_each: As written.
        agents: Names of the workflow's agents.

    Raises:
        WorkflowError: If it is no path.
    """
    found = placeholders(f"{{{for_each}}}")
    if len(found) != 1 or found[0].text != f"{{{for_each}}}":
        raise WorkflowError(
            f"is {shortened(for_each)}: give the path of a list, such as 'documents', "
            "'input.documents', 'reader' or 'reader.items'"
        )
    (source,) = found
    if source.root != INPUT or source.root in agents:
        return source
    first = source.path[0] if source.path else None
    if not isinstance(first, str):
        raise WorkflowError(
            "is 'input', which is an object: name the list in it, 'input.documents'"
        )
    return replace(source, root=first, path=source.path[1:])


def items_of(
    agent: Agent, values: Mapping[str, Any], *, agents: Container[str], max_items: int
) -> list[Any]:
    """Return the elements of the list that an agent runs over.

    Args:
        agent: The agent, with a ``for_each``.
        values: The run's input, and outputs by agent. A text that is a JSON list counts as one,
            because models answer lists so.
        agents: Names of the workflow's agents.
        max_items: How many elements there may be.

    Raises:
        MissingInput: If there is no list.
        TooManyItems: If it is longer.
    """
    assert agent.for_each is not None, "only called for agents with a for_each"
    found = look_up(source_of(agent.for_each, agents), values)
    if isinstance(found, str):
        found = parsed_text(found)
    if not isinstance(found, list | tuple):
        raise MissingInput(
            f"for_each {agent.for_each!r} is {shortened(found)}, not a list: "
            "give a list in the input, or have the agent answer a JSON list"
        )
    if len(found) > max_items:
        raise TooManyItems(
            f"for_each {agent.for_each!r} has {len(found):,} elements, engine.max_items is "
            f"{max_items:,}: give fewer, or raise the setting"
        )
    return list(found)

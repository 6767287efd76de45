"""``for_each``: one agent run per element of a list, and the names of the element in prompts.

The path of the list leads into the run's input, such as ``documents`` or ``input.documents``, or
into the output of an earlier agent, such as ``reader`` or ``reader.items``.
"""

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

from app.domain.agent import Agent
from app.domain.json_values import find_json_problem
from app.domain.prompt import Placeholder, look_up, parsed_text, placeholders
from app.domain.suggestions import shortened
from app.errors import MissingInput, TooManyItems, WorkflowError

INPUT = "input"
#: The prompt of an agent with a for_each reads the element as ``item``, and the index of the
#: element, which starts at 0, as ``index``.
ITEM, INDEX = "item", "index"
ITEM_NAMES = (ITEM, INDEX)


def agent_of(name: str) -> str:
    """Return the name of the agent that an agent run belongs to.

    The agent run ``screen[3]`` belongs to the agent ``screen``, because names of agents have no
    brackets.
    """
    return name.partition("[")[0]


def element_of(value: Any, index: int) -> dict[str, Any]:
    """Return an element and its index, by the names in prompts."""
    return {ITEM: value, INDEX: index}


def source_of(for_each: str, agents: Container[str]) -> Placeholder:
    """Return the path of the list, which begins with an agent's name or a key of the input.

    Args:
        for_each: The path as its author wrote it.
        agents: Names of the workflow's agents.

    Raises:
        WorkflowError: If ``for_each`` is not a path.
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
            "is 'input', which is an object: name a list in it, such as 'input.documents'"
        )
    return replace(source, root=first, path=source.path[1:])


def items_of(
    agent: Agent, values: Mapping[str, Any], *, agents: Container[str], max_items: int
) -> list[Any]:
    """Return the elements of the list that an agent runs over.

    Args:
        agent: The agent, with a ``for_each``.
        values: The run's input, and the outputs by agents' names. A string that contains a JSON
            list counts as a list, because models return lists in this form.
        agents: Names of the workflow's agents.
        max_items: Largest number of elements that the list may have.

    Raises:
        MissingInput: If the path does not lead to a list, or if the list comes from a string and
            contains a value that cannot be stored.
        TooManyItems: If the list has more than ``max_items`` elements.
    """
    assert agent.for_each is not None, "only called for agents with a for_each"
    parsed: dict[int, Any] = {}
    found = look_up(source_of(agent.for_each, agents), values, parsed)
    if isinstance(found, str):
        found = parsed_text(found, parsed)
    if not isinstance(found, list | tuple):
        raise MissingInput(
            f"for_each {agent.for_each!r} is {shortened(found)}, not a list: "
            "give a list in the input, or let the agent return a JSON list"
        )
    if len(found) > max_items:
        raise TooManyItems(
            f"for_each {agent.for_each!r} has {len(found):,} elements, and engine.max_items is "
            f"{max_items:,}: give fewer elements, or raise the setting"
        )
    # Values of the input and of outputs were checked before they were stored. A part of a string
    # was not checked.
    if parsed and (problem := find_json_problem(found, agent.for_each)):
        raise MissingInput(f"for_each {agent.for_each!r}: {' '.join(problem)}")
    return list(found)

"""``for_each``: one agent run per element of a list, and the names of the element in prompts.

The path of the list leads into the run's input, such as ``documents`` or ``input.documents``, or
into the output of an earlier agent, such as ``reader`` or ``reader.items``. A mapping of names to
paths, such as ``{"mail": "input.mails", "triage": "triage"}``, walks several lists together: the
first elements of all lists, then the second elements, and so on.
"""

from collections.abc import Collection, Container, Mapping
from dataclasses import replace
from typing import Any

from app.domain.agent import Agent
from app.domain.counts import counted
from app.domain.json_values import find_json_problem
from app.domain.prompt import INDEX, INDEX_STEP, Placeholder, look_up, parsed_text, placeholders
from app.domain.suggestions import shortened
from app.errors import MissingInput, TooManyItems, WorkflowError

INPUT = "input"
#: The prompt of an agent with a for_each reads the element as ``item``, and the index of the
#: element, which starts at 0, as ``index``.
ITEM = "item"
ITEM_NAMES = (ITEM, INDEX)


def agent_of(name: str) -> str:
    """Return the name of the agent that an agent run belongs to.

    The agent run ``screen[3]`` belongs to the agent ``screen``, because names of agents have no
    brackets.
    """
    return name.partition("[")[0]


def element_names(agent: Agent) -> Collection[str]:
    """Return the names of an agent's element in prompts and conditions.

    The names are ``item``, ``index`` and the names of lists that are walked together; there is no
    name if the agent has no for_each.
    """
    if agent.for_each is None:
        return ()
    return (*ITEM_NAMES, *(agent.for_each if isinstance(agent.for_each, Mapping) else ()))


def element_of(agent: Agent, value: Any, index: int) -> dict[str, Any]:
    """Return an element and its index, by the names in prompts.

    Args:
        agent: The agent, with a ``for_each``.
        value: The element. If several lists are walked together, this is a dict with one element
            of each list.
        index: The index of the element, from 0.
    """
    together = value if isinstance(agent.for_each, Mapping) else {}
    return {**together, ITEM: value, INDEX: index}


def lists_of(agent: Agent, agents: Container[str]) -> dict[str, Placeholder]:
    """Return the path of each list that an agent walks over, by the name of the list's element.

    Raises:
        WorkflowError: If a value of ``for_each`` is not a path.
    """
    if agent.for_each is None:
        return {}
    paths = agent.for_each if isinstance(agent.for_each, Mapping) else {ITEM: agent.for_each}
    return {name: source_of(path, agents) for name, path in paths.items()}


def source_of(for_each: str, agents: Container[str]) -> Placeholder:
    """Return the path of the list, which begins with an agent's name or a key of the input.

    Args:
        for_each: The path as its author wrote it.
        agents: Names of the workflow's agents.

    Raises:
        WorkflowError: If ``for_each`` is not a path.
    """
    found = placeholders(f"{{{for_each}}}")
    if len(found) != 1 or found[0].text != f"{{{for_each}}}" or INDEX_STEP in found[0].path:
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
    """Return the elements that an agent runs over.

    If several lists are walked together, each element is a dict with one element of each list.

    Args:
        agent: The agent, with a ``for_each``.
        values: The run's input, and the outputs by agents' names. A string that contains a JSON
            list counts as a list, because models return lists in this form.
        agents: Names of the workflow's agents.
        max_items: Largest number of elements that a list may have.

    Raises:
        MissingInput: If a path does not lead to a list, if the lists have different lengths, or if
            a list comes from a string and contains a value that cannot be stored.
        TooManyItems: If a list has more than ``max_items`` elements.
    """
    assert agent.for_each is not None, "only called for agents with a for_each"
    parsed: dict[int, Any] = {}
    paths = lists_of(agent, agents)
    lists = {name: _list_at(path, values, parsed, max_items) for name, path in paths.items()}
    # Values of the input and of outputs were checked before they were stored. A part of a string
    # was not checked.
    for name, found in lists.items() if parsed else ():
        text = paths[name].text.strip("{}")
        if problem := find_json_problem(found, text):
            raise MissingInput(f"for_each {text!r}: {' '.join(problem)}")
    if not isinstance(agent.for_each, Mapping):
        return lists[ITEM]
    if len({len(found) for found in lists.values()}) > 1:
        lengths = ", ".join(
            f"{name!r} has {counted(len(found), 'element')}" for name, found in lists.items()
        )
        raise MissingInput(
            f"for_each walks lists of different lengths together: {lengths}: give lists of the "
            "same length"
        )
    return [dict(zip(lists, each, strict=True)) for each in zip(*lists.values(), strict=True)]


def _list_at(
    path: Placeholder, values: Mapping[str, Any], parsed: dict[int, Any], max_items: int
) -> list[Any]:
    shown = path.text.strip("{}")
    found = look_up(path, values, parsed)
    if isinstance(found, str):
        found = parsed_text(found, parsed)
    if not isinstance(found, list | tuple):
        raise MissingInput(
            f"for_each {shown!r} is {shortened(found)}, not a list: "
            "give a list in the input, or let the agent return a JSON list"
        )
    if len(found) > max_items:
        raise TooManyItems(
            f"for_each {shown!r} has {counted(len(found), 'element')}, and engine.max_items is "
            f"{max_items:,}: give fewer elements, or raise the setting"
        )
    return list(found)

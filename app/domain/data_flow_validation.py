"""Refuses workflows in which an agent reads a value that may not exist when the agent starts."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise

from app.domain.agent import Agent
from app.domain.condition import INPUT
from app.domain.data_flow import DataFlow, templates
from app.domain.dependencies import DependencyResolver
from app.domain.for_each import element_names, lists_of
from app.domain.mistakes import refuse, refuse_all
from app.domain.name_clashes import find_clashes
from app.domain.prompt import Placeholder, placeholders
from app.errors import WorkflowError

PROMPT, ATTACHMENTS = "prompt_template", "attachments"
Reference = tuple[str, str]  # a field, and a root that the field uses


def validate_data_flow(
    agents: Sequence[Agent], resolver: DependencyResolver, flow: DataFlow
) -> None:
    """Check prompts, mappings and conditions against the graph.

    Raises:
        WorkflowError: If an agent reads a value that may not exist when the agent starts. The
            message names the agent. The error has the path of the field.
    """
    index_of = {agent.name: index for index, agent in enumerate(agents)}
    _validate_keys(flow, index_of)
    references: dict[str, list[Reference]] = {}
    refuse_all(partial(_note_references, agent, flow, index_of, references) for agent in agents)
    refuse(find_clashes(agents, flow, index_of))
    indirect: dict[str, list[str]] = {}
    for agent in agents:
        known = dict.fromkeys(root for _, root in references[agent.name] if root in index_of)
        others = [root for root in known if root not in agent.dependencies]
        if others:
            indirect[agent.name] = others
    refuse(
        [
            *_not_depended_on(resolver, references, indirect, index_of),
            *_not_seen(agents, flow, references, index_of),
        ]
    )


def _note_references(
    agent: Agent,
    flow: DataFlow,
    index_of: dict[str, int],
    references: dict[str, list[Reference]],
) -> None:
    references[agent.name] = list(_references(agent, flow, index_of))


def _not_depended_on(
    resolver: DependencyResolver,
    references: Mapping[str, Sequence[Reference]],
    indirect: Mapping[str, Sequence[str]],
    index_of: Mapping[str, int],
) -> Iterator[WorkflowError]:
    for name, other in resolver.find_independent(indirect):
        field = next(field for field, root in references[name] if root == other)
        yield WorkflowError(
            f"agent {name!r}: {_problem(field, name, other)}",
            field=f"agents[{index_of[name]}].{field}",
        )


def _not_seen(
    agents: Sequence[Agent],
    flow: DataFlow,
    references: Mapping[str, Sequence[Reference]],
    index_of: Mapping[str, int],
) -> Iterator[WorkflowError]:
    for agent in agents:
        for field, root in dict.fromkeys(references[agent.name]):
            if root in flow.writers and root not in flow.seen_writers(agent):
                writer = flow.writers[root][-1].agent
                yield WorkflowError(
                    f"agent {agent.name!r}: its {_noun(field)} uses {root!r}, which agent "
                    f"{writer!r} writes into the context: add {writer!r} to its dependencies",
                    field=f"agents[{index_of[agent.name]}].{field}",
                )


def read_from_input(agent: Agent) -> Iterator[tuple[str, Placeholder]]:
    """Yield each placeholder that can refer to the run's input, with the name of the field.

    Conditions are left out, because a condition reads the input as ``input.key`` and can test by
    itself whether a key exists.
    """
    own = element_names(agent)
    for name, source in DataFlow.sources(agent).items():
        if source.root not in own:
            yield f"input_mapping.{name}", source
    for field, template in templates(agent):
        for place in placeholders(template):
            if place.root not in agent.input_mapping and place.root not in own:
                yield field, place


def read_from_element(agent: Agent) -> Iterator[tuple[str, Placeholder]]:
    """Yield each place that reads the element of the agent's list, with the name of the field."""
    own = element_names(agent)
    for name, source in DataFlow.sources(agent).items():
        if source.root in own:
            yield f"input_mapping.{name}", source
    for field, template in templates(agent):
        for place in placeholders(template):
            if place.root in own and place.root not in agent.input_mapping:
                yield field, place


def _noun(field: str) -> str:
    return "prompt" if field == PROMPT else field


def _references(agent: Agent, flow: DataFlow, index_of: dict[str, int]) -> Iterator[Reference]:
    own = element_names(agent)
    for field, template in templates(agent):
        for place in placeholders(template):
            if place.root not in agent.input_mapping and place.root not in own:
                yield field, place.root
    for source in DataFlow.sources(agent).values():
        if source.root not in own:
            yield "input_mapping", source.root
    for source in lists_of(agent, index_of).values():
        yield "for_each", source.root
    try:
        condition = flow.condition(agent)
    except WorkflowError as error:
        raise WorkflowError(
            f"agent {agent.name!r}: condition {error}",
            field=f"agents[{index_of[agent.name]}].condition",
        ) from error
    if condition:
        for root in sorted(condition.agents | condition.keys):
            yield "condition", root


def _validate_keys(flow: DataFlow, index_of: dict[str, int]) -> None:
    for key, writers in flow.writers.items():
        writer = writers[0].agent
        problem = None
        if key in index_of:
            problem = f"writes the key {key!r}, which is the name of an agent: rename the key"
        elif key == INPUT:
            problem = f"writes the key {key!r}, which names the run's input: rename the key"
        for one, other in pairwise(writers):
            if one.level == other.level:
                writer = one.agent
                problem = (
                    f"writes the key {key!r}, as agent {other.agent!r} does, and the two may run "
                    f"at the same time: rename a key, or let one agent depend on the other"
                )
        if problem:
            raise WorkflowError(
                f"agent {writer!r}: output_mapping {problem}",
                field=f"agents[{index_of[writer]}].output_mapping",
            )


def _problem(field: str, name: str, other: str) -> str:
    in_template = field == PROMPT or field.startswith(ATTACHMENTS)
    written = f"{{{other}}}" if in_template else repr(other)
    noun = _noun(field)
    # A condition reads a key of the input as input.key, so only other fields can mean one.
    or_rename = (
        "" if field == "condition" else ", or rename the agent if a key of the input is meant"
    )
    if name == other:
        remedy = "remove the placeholder" if in_template else "remove it"
        return f"its {noun} uses {written}, its own output: {remedy}{or_rename}"
    return (
        f"its {noun} uses {written}, the output of an agent that it does not depend on: "
        f"add {other!r} to its dependencies{or_rename}"
    )

"""Finds paths to parts that no output can have, before the output costs money.

An agent with an ``output_schema`` tells the fields of its output, a sub-workflow has one field for
each inner agent, and an ``input_schema`` tells the fields of the input. Prompts, attachments,
mappings, conditions and the paths of lists are checked. The values of an input are checked when
they are given.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from app.domain.agent import Agent
from app.domain.condition import INPUT, paths_in
from app.domain.data_flow import DataFlow, templates
from app.domain.for_each import ITEM, lists_of
from app.domain.mistakes import Mistake, inside
from app.domain.output_shapes import (
    Fields,
    Schema,
    Shape,
    find_missing,
    input_shape,
    is_no_list,
    keys_of,
    part_of_shape,
    shape_of,
)
from app.domain.paths import WHOLE, parse_output_path
from app.domain.prompt import INDEX, Placeholder, placeholders
from app.domain.sub_workflow import embedded
from app.domain.workflow import Workflow
from app.errors import WorkflowError

INDEX_SHAPE = Schema(part={"type": "integer"}, whole={})
#: A place that reads a value: the field, and the path.
Place = tuple[str, Placeholder]


def find_missing_parts(
    workflow: Workflow, given: Mapping[str, Shape] = MappingProxyType({})
) -> Iterator[Mistake]:
    """Yield a mistake for each path that leads to a part which an output cannot have.

    Args:
        workflow: The workflow, with its sub-workflows.
        given: Shapes of values of the input; for a sub-workflow, the outputs of outer agents.
    """
    outputs = {agent.name: shape_of(agent) for agent in workflow.agents}
    whole = input_shape(workflow)
    given = {**keys_of(whole), **given}
    for index, agent in enumerate(workflow.agents):
        seen = {**given, **outputs, **_context(workflow.data_flow, agent, outputs)}
        element = _element(agent, seen)
        in_condition = {**seen, **element, INPUT: whole}
        mapped = {
            name: part_of_shape({**seen, **element}.get(source.root), source.path)
            for name, source in DataFlow.sources(agent).items()
        }
        for field, place, shapes in (
            *((field, place, {**seen, **element}) for field, place in _sources(agent)),
            *((field, place, {**seen, **element, **mapped}) for field, place in _prompts(agent)),
            *(("condition", place, in_condition) for place in _in_condition(workflow, agent)),
            *(("output_mapping", place, _own(agent)) for place in _written(agent)),
        ):
            name = agent.name if place.root == WHOLE else place.root
            if problem := find_missing(shapes.get(place.root), place.path, name):
                yield WorkflowError(
                    f"agent {agent.name!r}: {field} uses {place.text}: {problem}",
                    field=f"agents[{index}].{field}",
                )
        if problem := _no_list(agent, seen):
            yield WorkflowError(
                f"agent {agent.name!r}: for_each {problem}", field=f"agents[{index}].for_each"
            )
        if (inner := embedded(agent)) is not None:
            names = {each.name for each in inner.agents}
            below = mapped if agent.input_mapping else {**seen, **element}
            below = {name: shape for name, shape in below.items() if name not in names}
            found = find_missing_parts(inner, below)
            yield from inside(found, agent.name, f"agents[{index}].config.workflow")


def _context(flow: DataFlow, agent: Agent, outputs: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shapes of the keys of the context; a key of several writers is not known."""
    return {
        key: part_of_shape(outputs[writers[0].agent], writers[0].path.path)
        if len(writers) == 1
        else None
        for key, writers in flow.seen_writers(agent).items()
    }


def _element(agent: Agent, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shapes of the names of an agent's element; empty if the agent has no list."""
    found = {
        name: part_of_shape(shapes.get(path.root), (*path.path, 0))
        for name, path in lists_of(agent, shapes).items()
    }
    if isinstance(agent.for_each, Mapping):
        found[ITEM] = Fields(shapes=dict(found))
    return {**found, INDEX: INDEX_SHAPE} if found else {}


def _sources(agent: Agent) -> Iterator[Place]:
    for name, source in DataFlow.sources(agent).items():
        yield f"input_mapping.{name}", source


def _prompts(agent: Agent) -> Iterator[Place]:
    for field, template in templates(agent):
        for place in dict.fromkeys(placeholders(template)):
            yield field, place


def _in_condition(workflow: Workflow, agent: Agent) -> Iterator[Placeholder]:
    condition = workflow.data_flow.condition(agent)
    if condition is None:
        return
    aliases = dict(condition.aliases)
    for place in paths_in(condition.text):
        yield replace(place, root=aliases.get(place.root, place.root))


def _own(agent: Agent) -> dict[str, Shape]:
    return {WHOLE: shape_of(agent)}


def _written(agent: Agent) -> Iterator[Placeholder]:
    parsed = (parse_output_path(path) for path in agent.output_mapping)
    yield from (path for path in parsed if path is not None)


def _no_list(agent: Agent, shapes: Mapping[str, Shape]) -> str | None:
    for source in lists_of(agent, shapes).values():
        text, shape = source.text.strip("{}"), shapes.get(source.root)
        if problem := find_missing(shape, source.path, source.root):
            return f"{text!r}: {problem}"
        if is_no_list(part_of_shape(shape, source.path)):
            return f"{text!r} is no list: give the path of a list"
    return None

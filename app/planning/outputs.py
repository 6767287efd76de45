"""Texts that stand for outputs which no model has generated yet, and the elements of lists.

The text for an output is as long as the output itself would be in a prompt. The output of a list
has the outputs of all elements, and the output of a sub-workflow has the outputs of all inner
agents. In a prompt, both are JSON, in which quotes and line breaks take two bytes.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from app.configuration.sections import EngineSettings
from app.domain.agent import Agent
from app.domain.data_flow import DataFlow
from app.domain.for_each import ITEM, element_of, items_of, lists_of
from app.domain.json_values import MAX_VALUES
from app.domain.kinds import LLM, WORKFLOW
from app.domain.sub_workflow import embedded
from app.domain.workflow import Workflow
from app.planning.calls import CallPlanner

#: Assumed length of a generated token. Few tokens are longer. If longer tokens make a run too
#: expensive, the run's budgets stop the run.
BYTES_PER_TOKEN = 4
#: Bytes of JSON around an output in a list or in an object, besides the key.
AROUND_BYTES = 4


class Unknown(str):
    """A text that stands for an output that no model has generated yet."""

    __slots__ = ()


class UnknownList(Unknown):
    """A text that stands for a list of outputs of equal length.

    Attributes:
        elements: Number of outputs.
    """

    elements: int = 1

    def element(self) -> Unknown:
        """Return a text that stands for one of the outputs."""
        return Unknown(self[: len(self) // max(self.elements, 1)])


class Unbounded(Unknown):
    """A text that stands for an output whose length has no known bound."""

    __slots__ = ()


#: Is longer than any other text here, so that it counts if one of several agents gives a value.
UNBOUNDED = Unbounded("x" * (EngineSettings().max_output_bytes + 1))


class Sizes(Protocol):
    """The sizes of outputs that a plan assumes."""

    @property
    def escape_factor(self) -> float:
        """Length of a generated text inside JSON, divided by the length of the text."""

    def tokens(self, workflow: str, agent: Agent) -> int | None:
        """Return the tokens of an output of an agent without inner agents; None if unbounded."""

    def elements(self, workflow: str, agent: Agent) -> int | None:
        """Return the length of a list that another agent will return; None if it is not known."""

    def elements_otherwise(self) -> int | None:
        """Return the length of a list whose length is not known; None if unbounded."""


@dataclass(frozen=True, slots=True)
class Longest:
    """The sizes of the longest outputs.

    Args:
        planner: The planner of calls, which knows the limits of models.
    """

    planner: CallPlanner
    escape_factor: float = 2.0

    def tokens(self, _: str, agent: Agent) -> int | None:
        """Return the largest number of tokens that the output may have."""
        if agent.kind == LLM:
            return self.planner.max_tokens(agent)
        if agent.kind == WORKFLOW:  # only the name of the sub-workflow is given
            return None
        return EngineSettings().max_output_bytes // BYTES_PER_TOKEN

    def elements(self, _: str, __: Agent) -> int | None:
        """Return None, because the longest possible list is not known."""
        return None

    def elements_otherwise(self) -> int | None:
        """Return None, because nothing bounds the list."""
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Elements:
    """The values of an agent's executions; a for_each has one execution per element.

    Attributes:
        values: The values by name, for each execution.
        counted: Whether the list is in the input. If another agent will return the list, there are
            as many elements here as ``Sizes.elements`` says, or one element, which is as large as
            the whole output of that agent.
        known: Whether the number of elements is known, or taken from earlier runs.
    """

    values: Sequence[Mapping[str, Any]]
    counted: bool = True
    known: bool = True


def outputs_of(
    workflow: Workflow, run_input: Mapping[str, Any], sizes: Sizes
) -> dict[str, Unknown]:
    """Return a text for the output of each agent, by name.

    Args:
        workflow: The workflow.
        run_input: The run's input, already checked.
        sizes: The assumed sizes.
    """
    names = {agent.name for agent in workflow.agents}
    # An agent may read agents of earlier levels only.
    outputs: dict[str, Unknown] = dict.fromkeys(names, Unknown())
    for level in workflow.get_levels():
        for agent in level:
            executions: Sequence[Mapping[str, Any]] = [{}]
            if agent.kind == WORKFLOW or agent.for_each is not None:
                values = {**run_input, **outputs}
                count = sizes.elements(workflow.name, agent)
                found = elements_of(agent, workflow.data_flow, names, run_input, values, count)
                executions = found.values
                if not found.known and sizes.elements_otherwise() is None:
                    outputs[agent.name] = UNBOUNDED
                    continue
            lengths = [_length(workflow, agent, each, sizes) for each in executions]
            outputs[agent.name] = _text(agent, lengths, sizes.escape_factor)
    return outputs


def _text(agent: Agent, lengths: Sequence[int | None], escape_factor: float) -> Unknown:
    known = [length for length in lengths if length is not None]
    if len(known) < len(lengths):
        return UNBOUNDED
    if agent.for_each is None and agent.kind != WORKFLOW:
        return Unknown("x" * sum(known))
    text = "x" * round(sum(known) * escape_factor + AROUND_BYTES * (1 + len(known)))
    if agent.kind == WORKFLOW:  # the outputs of inner runs may differ in length
        return Unknown(text)
    outputs = UnknownList(text)
    outputs.elements = len(known)
    return outputs


def _length(
    workflow: Workflow, agent: Agent, values: Mapping[str, Any], sizes: Sizes
) -> int | None:
    """Return the bytes of the output of one execution; None if they are not bounded."""
    inner = embedded(agent)
    if inner is None:
        tokens = sizes.tokens(workflow.name, agent)
        return None if tokens is None else tokens * BYTES_PER_TOKEN
    outputs = outputs_of(inner, input_of(inner, values), sizes)
    if any(isinstance(output, Unbounded) for output in outputs.values()):
        return None
    return sum(len(name) + len(output) + AROUND_BYTES for name, output in outputs.items())


def elements_of(
    agent: Agent,
    flow: DataFlow,
    agents: Container[str],
    run_input: Mapping[str, Any],
    values: Mapping[str, Any],
    count: int | None = None,
) -> Elements:
    """Return the values of each execution of an agent.

    Args:
        agent: The agent.
        flow: The data flow of the agent's workflow.
        agents: Names of the workflow's agents.
        run_input: The run's input, already checked.
        values: The run's input, and for each agent a text with the length of that agent's output.
        count: Assumed length of a list that another agent will return; None means one element.
    """
    if agent.for_each is None:
        return Elements(values=[flow.assumed(agent, values)])
    lists = lists_of(agent, agents)
    assumed = flow.assumed(agent, values)
    # In the input of a sub-workflow, outputs of outer agents stand for lists.
    unknown = {
        name: assumed.get(path.root, Unknown())
        for name, path in lists.items()
        if isinstance(run_input.get(path.root, Unknown()), Unknown)
    }
    together = isinstance(agent.for_each, Mapping)
    if len(unknown) == len(lists):
        parts = {name: _element_of(whole, count) for name, whole in unknown.items()}
        element = element_of(agent, parts if together else parts[ITEM], 0)
        one = flow.assumed(agent, {**values, **element})
        return Elements(
            values=[one] * (1 if count is None else count),
            counted=False,
            known=count is not None,
        )
    known = {n: path.text.strip("{}") for n, path in lists.items() if n not in unknown}
    walked = replace(agent, for_each=known) if unknown else agent
    found = items_of(walked, run_input, agents=agents, max_items=MAX_VALUES)
    parts = {name: _element_of(whole, len(found)) for name, whole in unknown.items()}
    items = [{**parts, **item} for item in found] if together else found
    elements = ({**values, **element_of(agent, item, n)} for n, item in enumerate(items))
    return Elements(values=[flow.assumed(agent, each) for each in elements])


def _element_of(whole: Any, count: int | None) -> Any:
    """Return the text that stands for one element of a list that another agent will return."""
    if not count or isinstance(whole, Unbounded):
        return whole
    return Unknown(whole[: len(whole) // count])


def input_of(inner: Workflow, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input of a sub-workflow.

    The input has the values of the outer agent, except values with the name of an inner agent.
    """
    names = {agent.name for agent in inner.agents}
    return {key: value for key, value in values.items() if key not in names}

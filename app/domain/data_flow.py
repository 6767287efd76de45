"""Data flow between agents: the run's shared context, and the values that each agent sees.

The context is not stored. The context is computed from the run's input, and from the outputs and
the ``output_mapping`` of each completed agent. So an output and the values that it adds to the
context are accepted in one transaction. If an agent runs again, the output and these values are
replaced. An agent sees the values from the agents that it depends on, directly or indirectly. If
two of these agents write the same key, the agent sees the value from the later level.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from app.domain.agent import Agent
from app.domain.attachments import templates_of
from app.domain.condition import Condition, read_condition
from app.domain.dependencies import DependencyResolver
from app.domain.for_each import ITEM_NAMES, element_names, lists_of
from app.domain.kinds import LLM
from app.domain.paths import parse_output_path, parse_path, part_of, reason_of
from app.domain.prompt import Placeholder, look_up, placeholders
from app.errors import MissingInput


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """An agent that writes a key of the context, and the value's path in the agent's output."""

    agent: str
    level: int
    path: Placeholder


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """The part of a run that one agent sees.

    Attributes:
        values: The input, outputs, keys of the context and parameters, by name.
        inputs: The inputs of an agent without a prompt: the agent's parameters, or all ``values``
            if the agent has no parameters.
        absent: Names without a value, because the agent that writes the value was skipped or
            failed. Every path that begins with such a name leads to null.
    """

    values: Mapping[str, Any]
    inputs: Mapping[str, Any]
    absent: AbstractSet[str]


class DataFlow:
    """The data flow of a workflow: the writers of the context's keys, and the agents that read.

    Args:
        agents: The agents; their mappings must have passed ``validate_agent``.
        resolver: The graph of these agents.
    """

    def __init__(self, agents: Sequence[Agent], resolver: DependencyResolver) -> None:
        self._agents = agents
        self._resolver = resolver
        self._names = {agent.name for agent in agents}
        self._level = {
            name: level
            for level, names in enumerate(resolver.get_execution_levels())
            for name in names
        }
        self.writers: dict[str, list[Writer]] = defaultdict(list)
        for agent in agents:
            for path, key in agent.output_mapping.items():
                parsed = parse_output_path(path)
                assert parsed is not None, "validate_agent lets no other path pass"
                level = self._level[agent.name]
                self.writers[key].append(Writer(agent=agent.name, level=level, path=parsed))
        for writers in self.writers.values():
            writers.sort(key=lambda writer: -writer.level)
        self._seen: dict[str, dict[str, list[Writer]]] = {}
        self._conditions: dict[str, Condition] = {}
        self._read: frozenset[str] | None = None

    def condition(self, agent: Agent) -> Condition | None:
        """Return an agent's condition, in which all names are known; None if there is no condition.

        Raises:
            WorkflowError: If the condition is malformed or uses an unknown name.
        """
        if agent.condition is None:
            return None
        found = self._conditions.get(agent.name)
        if found is None:
            found = read_condition(
                agent.condition,
                agents=self._names,
                keys=self.writers,
                own=agent.name,
                # In a group of agents for each element, the element is in the run's input.
                elements=element_names(agent) or {*ITEM_NAMES} - self._names - {*self.writers},
            )
            self._conditions[agent.name] = found
        return found

    def seen_writers(self, agent: Agent) -> Mapping[str, Sequence[Writer]]:
        """Return, for each key of the context that an agent uses, the writers of the key.

        All writers are agents that the given agent depends on; writers of later levels come first.
        """
        if not self.writers:
            return {}
        seen = self._seen.get(agent.name)
        if seen is None:
            sees_all = agent.kind != LLM and not agent.input_mapping
            keys = self.writers.keys() & (self.writers if sees_all else self._named(agent))
            before = set(self._resolver.get_dependency_chain(agent.name)) if keys else set()
            ours = {key: [w for w in self.writers[key] if w.agent in before] for key in keys}
            seen = self._seen[agent.name] = {key: found for key, found in ours.items() if found}
        return seen

    def _named(self, agent: Agent) -> set[str]:
        """Return the roots that an agent uses: agents, keys of the context, keys of the input."""
        named = self._named_by_items(agent)
        named |= {source.root for source in lists_of(agent, self._names).values()}
        if condition := self.condition(agent):
            named |= condition.agents | condition.keys
        return named

    def _named_by_items(self, agent: Agent) -> set[str]:
        """Return the roots that an agent uses for each element; the names of the element are none.

        For an agent without a for_each, these are the roots of its prompt and its mappings.
        """
        named = {
            place.root
            for _, template in templates(agent)
            for place in placeholders(template)
            if place.root not in agent.input_mapping
        }
        named |= {place.root for place in self.sources(agent).values()}
        condition = self.condition(agent)
        if condition and condition.elements:
            named |= condition.agents | condition.keys
        return named - {*element_names(agent)}

    @staticmethod
    def sources(agent: Agent) -> dict[str, Placeholder]:
        """Return the path of each parameter of an agent."""
        parsed = {name: parse_path(path) for name, path in agent.input_mapping.items()}
        return {name: path for name, path in parsed.items() if path is not None}

    def reads(self, agent: Agent) -> set[str]:
        """Return the names of the agents whose outputs an agent needs."""
        return self._read_by(agent, self._named(agent), set(agent.dependencies))

    def is_read(self, name: str) -> bool:
        """Return whether any agent reads the output of the agent with this name."""
        if self._read is None:
            self._read = frozenset[str]().union(*(self.reads(agent) for agent in self._agents))
        return name in self._read

    def reads_by_items(self, agent: Agent) -> set[str]:
        """Return the names of the agents whose outputs each item of a for_each needs.

        The agent that returns the list is left out, unless the items name that agent. If ten
        thousand items each read the whole list, the items would read a hundred million elements in
        total.
        """
        assert agent.for_each is not None, "only called for agents with a for_each"
        lists = {source.root for source in lists_of(agent, self._names).values()}
        return self._read_by(agent, self._named_by_items(agent), {*agent.dependencies} - lists)

    def _read_by(self, agent: Agent, named: set[str], else_: set[str]) -> set[str]:
        sees_all = agent.kind != LLM and not agent.input_mapping
        # An agent without a prompt and without a mapping gets all values that it can see.
        read = named & self._names | (else_ if sees_all else set())
        return read.union(
            *(
                {writer.agent for writer in found}
                for key, found in self.seen_writers(agent).items()
                if sees_all or key in named
            )
        )

    def view(
        self,
        agent: Agent,
        run_input: Mapping[str, Any],
        outputs: Mapping[str, Any],
        element: Mapping[str, Any] = MappingProxyType({}),
    ) -> "View":
        """Build the view of one agent.

        Args:
            agent: The agent.
            run_input: The run's input.
            outputs: Outputs of the agents that ``reads`` returns; None for an agent without an
                output.
            element: The element of the agent's list and the index of the element, by the names that
                prompts use; empty for an agent without a list.

        Raises:
            MissingInput: If the source of a parameter has no value.
        """
        values = {**run_input, **outputs, **element}
        absent = {name for name, output in outputs.items() if output is None}
        if not self.writers and not agent.input_mapping:
            return View(values=values, inputs=values, absent=absent)
        given = self._context(self.seen_writers(agent), outputs)
        values |= given
        absent |= {key for key, value in given.items() if value is None}
        parsed: dict[int, Any] = {}
        parameters: dict[str, Any] = {}
        for name, source in self.sources(agent).items():
            is_absent = source.root in absent
            parameters[name] = None if is_absent else _source(name, source, values, parsed)
        nothing = {name for name in parameters if self.sources(agent)[name].root in absent}
        return View(
            values=values | parameters,
            inputs=parameters or values,
            absent=absent - parameters.keys() | nothing,
        )

    def assumed(self, agent: Agent, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that an estimate assumes for an agent; paths are not followed.

        Args:
            agent: The agent.
            values: The run's input, and a string for each agent's output.
        """
        seen = {**values}
        for key, writers in self.seen_writers(agent).items():
            seen[key] = max((values[writer.agent] for writer in writers), key=len)
        return seen | {name: seen.get(path.root, "") for name, path in self.sources(agent).items()}

    def judged(
        self,
        agent: Agent,
        run_input: Mapping[str, Any],
        outputs: Mapping[str, Any],
        element: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return what a condition sees in addition to the input: outputs, context and element."""
        around = {name: run_input[name] for name in ITEM_NAMES if name in run_input}
        return {
            **around,
            **outputs,
            **self._context(self.seen_writers(agent), outputs),
            **element,
        }

    def context(self, run_input: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the whole shared context: the input, and the values from a run's outputs.

        Args:
            run_input: The run's input.
            outputs: Outputs of the completed agents, by the agents' names.
        """
        given = self._context(self.writers, outputs)
        return {**run_input, **{key: value for key, value in given.items() if value is not None}}

    def _context(
        self, writers: Mapping[str, Sequence[Writer]], outputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {key: _first_given(ours, outputs) for key, ours in writers.items()}


def templates(agent: Agent) -> Iterator[tuple[str, str]]:
    """Yield each template whose placeholders an agent reads, with the path of the field."""
    yield "prompt_template", agent.prompt_template
    yield from templates_of(agent)


def _source(
    name: str, source: Placeholder, values: Mapping[str, Any], parsed: dict[int, Any]
) -> Any:
    try:
        return look_up(source, values, parsed)
    except MissingInput as error:
        raise MissingInput(f"input_mapping of {name!r}: {reason_of(error)}") from error


def _first_given(writers: Sequence[Writer], outputs: Mapping[str, Any]) -> Any:
    for writer in writers:
        output = outputs.get(writer.agent)
        if output is None:
            continue
        try:
            return part_of(output, writer.path)
        except MissingInput:
            # This happens only if the output was accepted before the agent had the mapping.
            continue
    return None

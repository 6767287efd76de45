"""The rules that the input of a run must pass before the run is stored.

The checks read the placeholders of all prompts, mappings and attachments. The elements of a list in
the input are checked one by one, and so is the input that an agent of the kind ``workflow`` would
give to its sub-workflow. Values of outputs are not known before the run, so they are left out.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.domain.agent import Agent
from app.domain.attachments import templates_of, value_problem
from app.domain.counts import counted
from app.domain.data_flow_validation import PROMPT, read_from_element, read_from_input
from app.domain.for_each import INPUT, ITEM, element_names, element_of, items_of, lists_of
from app.domain.json_values import MAX_VALUES, find_json_problem
from app.domain.mistakes import Mistake, inside, refuse
from app.domain.paths import reason_of, written
from app.domain.prompt import INDEX, INDEX_STEP, Placeholder, look_up, placeholders
from app.domain.sub_workflow import embedded
from app.domain.suggestions import did_you_mean, listed, shortened
from app.domain.workflow import Workflow
from app.errors import MissingInput, WorkflowError


def validate_input(workflow: Workflow, run_input: Mapping[str, Any]) -> None:
    """Check that a run's input is JSON and has a value for each placeholder of the prompts.

    Args:
        workflow: The workflow of the run.
        run_input: JSON values by key.

    Raises:
        WorkflowError: If the input is refused; the message names the key, or the agent whose
            placeholder has no value. Several mistakes are raised as ``SeveralMistakes``.
    """
    if not isinstance(run_input, dict):
        raise WorkflowError(
            f"the input is {shortened(run_input)} ({type(run_input).__name__}): "
            "give a dict with one key per placeholder",
            field="input",
        )
    if found := find_json_problem(run_input, "input"):
        raise WorkflowError(" ".join(found), field=found[0])
    refuse(_Check(workflow, run_input).mistakes())


@dataclass(frozen=True, kw_only=True, slots=True)
class _List:
    """The elements of an agent's lists that are in the input.

    Attributes:
        elements: The values of each element, by the names in prompts.
        paths: Path of each list in the input, by the name of the list's element.
        unknown: Names of the element whose values are not known, because another agent will return
            the list.
    """

    elements: Sequence[Mapping[str, Any]]
    paths: Mapping[str, str]
    unknown: Collection[str]


class _Check:
    """The checks of one workflow and its input.

    Args:
        workflow: The workflow.
        run_input: The values of the input that are known.
        unknown: Names of values that the input will have, but that are not known before the run.
    """

    def __init__(
        self, workflow: Workflow, run_input: Mapping[str, Any], unknown: Collection[str] = ()
    ) -> None:
        self._workflow = workflow
        self._input = run_input
        self._unknown = unknown
        self._names = {agent.name for agent in workflow.agents}
        self._written = {*self._names, *workflow.data_flow.writers}
        self._parsed: dict[int, Any] = {}

    def mistakes(self) -> Iterator[Mistake]:
        """Yield all mistakes, in the order of the agents."""
        writers = self._workflow.data_flow.writers
        if taken := next((key for key in writers if key in self._input), None):
            writer = writers[taken][0].agent
            yield WorkflowError(
                f"the input has the key {taken!r}, which agent {writer!r} writes into the context: "
                "rename one of them",
                field="input",
            )
        for index, agent in enumerate(self._workflow.agents):
            try:
                found = self._list_of(agent)
            except MissingInput as error:
                yield WorkflowError(
                    f"agent {agent.name!r}: {error}", field=f"agents[{index}].for_each"
                )
                continue
            yield from self._in_list(agent, index)
            yield from self._in_condition(agent, index)
            yield from self._in_placeholders(agent, index)
            yield from self._in_attachments(agent, index)
            if found is not None:
                yield from self._in_elements(agent, index, found)
            yield from self._in_sub_workflow(agent, index, found)

    def _list_of(self, agent: Agent) -> _List | None:
        """Return the lists of an agent's for_each; None if no list is in the known input."""
        lists = lists_of(agent, self._written)
        known = {
            name: path
            for name, path in lists.items()
            if path.root not in self._written and path.root not in self._unknown
        }
        if not known:
            return None
        walked = agent
        if len(known) < len(lists):
            walked = replace(agent, for_each={n: p.text.strip("{}") for n, p in known.items()})
        # The length is not checked here, because the largest length is a setting of the workers.
        found = items_of(walked, self._input, agents=self._written, max_items=MAX_VALUES)
        return _List(
            elements=[element_of(walked, item, place) for place, item in enumerate(found)],
            paths={name: f"input.{p.root}{written(p.path)}" for name, p in known.items()},
            unknown={*lists, ITEM} - known.keys() if walked is not agent else set(),
        )

    def _in_list(self, agent: Agent, index: int) -> Iterator[Mistake]:
        """Refuse the path of a list that begins with a name of an agent and of the input."""
        for path in lists_of(agent, self._names).values():
            if path.root in self._names and path.root in self._input:
                yield WorkflowError(
                    f"agent {agent.name!r}: for_each {path.text.strip('{}')!r} could mean the "
                    f"agent's output or the input's key of that name: rename the input's key "
                    f"{path.root!r}",
                    field=f"agents[{index}].for_each",
                )

    def _in_condition(self, agent: Agent, index: int) -> Iterator[Mistake]:
        """Check the names of an element in the condition of an agent without a for_each.

        Inside a group of agents for each element, these names are keys of the input.
        """
        condition = self._workflow.data_flow.condition(agent)
        if condition is None or agent.for_each is not None:
            return
        if missing := sorted(condition.elements - self._input.keys() - {*self._unknown}):
            yield WorkflowError(
                f"agent {agent.name!r}: condition uses {missing[0]!r}, the element of a for_each, "
                "but the agent has no for_each: add for_each, or read the input as input.key",
                field=f"agents[{index}].condition",
            )

    def _in_placeholders(self, agent: Agent, index: int) -> Iterator[Mistake]:
        for field, placeholder in read_from_input(agent):
            if placeholder.root in self._workflow.data_flow.writers:
                continue
            if problem := self._index_problem(agent, placeholder) or self._problem(placeholder):
                named = "" if field == PROMPT else f"{field}: "
                yield WorkflowError(
                    f"agent {agent.name!r}: {named}{problem}", field=f"agents[{index}].{field}"
                )

    def _index_problem(self, agent: Agent, placeholder: Placeholder) -> str | None:
        if INDEX_STEP not in placeholder.path or agent.for_each is not None:
            return None
        if INDEX in self._input or INDEX in self._unknown:
            return None
        return (
            f"placeholder {placeholder.text} uses [index], but the agent has no for_each: "
            "give a number, such as [0], or add for_each"
        )

    def _problem(self, placeholder: Placeholder) -> str | None:
        root = placeholder.root
        if INDEX_STEP in placeholder.path:
            end = placeholder.path.index(INDEX_STEP)
            placeholder = replace(placeholder, path=placeholder.path[:end])
        if root in self._unknown:
            return None
        if root in self._names:
            if root not in self._input:
                return None
            return (
                f"placeholder {{{root}}} could mean the agent's output or the input's key of that "
                f"name: rename the input's key {root!r}"
            )
        if root not in self._input:
            return self._unknown_key(placeholder)
        try:
            look_up(placeholder, self._input, self._parsed)
        except MissingInput as error:
            return str(error)
        return None

    def _unknown_key(self, placeholder: Placeholder) -> str:
        root, first = placeholder.root, next(iter(placeholder.path), None)
        if root == INPUT and first in self._input:
            plain = placeholder.text.replace(f"{INPUT}.", "", 1)
            return (
                f"placeholder {placeholder.text} has no value: the keys of the input have no "
                f"{INPUT!r} before them here: write {plain}"
            )
        in_prompt = placeholder.text.startswith("{")
        literal = ", or double the braces to have it as literal text" if in_prompt else ""
        known = [*self._input, *self._unknown]
        return (
            f"placeholder {placeholder.text} has no value: {root!r} is neither a key of the "
            f"input ({listed(known)}) nor a dependency: give it in the input"
            f"{literal}{did_you_mean(root, [*known, *self._names])}"
        )

    def _in_attachments(self, agent: Agent, index: int) -> Iterator[Mistake]:
        """Check the attachments that the input gives; make only the checks that read no file."""
        for field, template in templates_of(agent):
            places = placeholders(template)
            if len(places) != 1 or places[0].text != template:
                continue
            if places[0].root in agent.input_mapping or places[0].root not in self._input:
                continue
            try:
                problem = value_problem(look_up(places[0], self._input, self._parsed))
            except MissingInput:
                continue  # the check of the placeholders names this mistake
            if problem:
                yield WorkflowError(
                    f"agent {agent.name!r}: {field}: the value of {template} {problem}",
                    field=f"agents[{index}].{field}",
                )

    def _in_elements(self, agent: Agent, index: int, found: _List) -> Iterator[Mistake]:
        """Check that each element has the parts that the agent reads from its element."""
        for field, placeholder in read_from_element(agent):
            if placeholder.root in found.unknown:
                continue
            path = found.paths.get(placeholder.root, next(iter(found.paths.values())))
            parsed: dict[int, Any] = {}
            lacking = 0
            first: tuple[int, str] | None = None
            for place, element in enumerate(found.elements):
                try:
                    look_up(placeholder, element, parsed)
                except MissingInput as error:
                    lacking += 1
                    first = first or (place, reason_of(error))
            if first is None:
                continue
            place, reason = first
            total = len(found.elements)
            verb = "lacks" if lacking == 1 else "lack"
            is_prompt = lacking == total  # if all elements lack a part, the path is probably wrong
            yield WorkflowError(
                f"agent {agent.name!r}: {field} uses {placeholder.text}, which {lacking:,} of "
                f"{counted(total, 'element')} of {path} {verb}; {path}[{place}]: {reason}",
                field=f"agents[{index}].{field}" if is_prompt else f"{path}[{place}]",
            )

    def _in_sub_workflow(self, agent: Agent, index: int, found: _List | None) -> Iterator[Mistake]:
        """Check the input that an agent gives to its sub-workflow, for the first bad element."""
        inner = embedded(agent)
        if inner is None:
            return
        elements: Sequence[Mapping[str, Any]] = [{}] if found is None else found.elements
        flow = self._workflow.data_flow
        is_list = agent.for_each is not None
        unknown = {*self._unknown, *flow.seen_writers(agent)}
        unknown |= flow.reads_by_items(agent) if is_list else flow.reads(agent)
        unknown |= {*(element_names(agent) if found is None else found.unknown)}
        names = {each.name for each in inner.agents}
        for element in elements:
            known = {name: part for name, part in element.items() if name not in unknown}
            values = {**self._input, **known}
            if agent.input_mapping:
                values, unknown = _mapped(flow.sources(agent), values)
            # An output hides the key of the input with the same name.
            given = {k: value for k, value in values.items() if k not in names | unknown}
            mistakes = list(_Check(inner, given, unknown - names).mistakes())
            if mistakes:
                yield from inside(mistakes, agent.name, f"agents[{index}].config.workflow")
                return


def _mapped(
    sources: Mapping[str, Placeholder], values: Mapping[str, Any]
) -> tuple[dict[str, Any], set[str]]:
    """Return the parameters whose values are known, and the names of the other parameters."""
    known: dict[str, Any] = {}
    for name, source in sources.items():
        try:
            known[name] = look_up(source, values)
        except MissingInput:
            continue
    return known, set(sources) - known.keys()

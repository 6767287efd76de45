"""The highest cost of a run, computed before the run starts."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from app.configuration.sections import EngineSettings
from app.domain.agent import Agent
from app.domain.attachments import Source, sources_of, templates_of
from app.domain.data_flow import DataFlow
from app.domain.for_each import element_of, items_of, lists_of
from app.domain.json_values import MAX_VALUES
from app.domain.kinds import LLM, WORKFLOW
from app.domain.prompt import placeholders, render
from app.domain.server_tools import is_server_tool
from app.domain.sub_workflow import embedded
from app.domain.workflow import Workflow
from app.llm.parts import Part
from app.planning.calls import CallPlanner

#: Returns the parts of attachments, or None if the attachments cannot be read on this machine.
Read = Callable[[Sequence[Source]], list[Part] | None]
#: Assumed length of a generated token. Few tokens are longer. If longer tokens make a run too
#: expensive, the run's budgets stop the run.
BYTES_PER_TOKEN = 4
#: Tokens of the message that tells a model why its answer does not fit the schema.
REPAIR_TOKENS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Elements:
    """The values of an agent's executions; a for_each has one execution per element.

    Attributes:
        values: The values by name, for each execution.
        counted: Whether the list is in the input. If another agent will return the list, there is
            one element here, which is as large as the whole output of that agent.
    """

    values: Sequence[Mapping[str, Any]]
    counted: bool = True


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """Bounds of a run's cost.

    Attributes:
        once_usd: Cost if every agent answers at the first try and uses all the tokens that it may
            use. For an agent with tools, the cost limit of the agent counts instead. The cost limit
            also counts for an agent with ``on_cut: continue``, and for an agent with attachments
            that cannot be read before the run. The tools may belong to the agent or to the
            provider. Results of tools have no bound. Attachments that cannot be read have no bound
            either. Each continued answer is sent again.
        limit_usd: Cost, including all retries, at which the agents' cost limits and the run's
            budget stop the run.
    """

    once_usd: Decimal
    limit_usd: Decimal


class Unknown(str):
    """A text that stands for an output that no model has generated yet."""

    __slots__ = ()


def read_nothing(sources: Sequence[Source]) -> list[Part] | None:
    """Read no attachments, so that all attachments are unknown."""
    return None if sources else []


def worst_case(
    workflow: Workflow,
    run_input: Mapping[str, Any],
    planner: CallPlanner,
    read: Read = read_nothing,
) -> WorstCase:
    """Compute the bounds of one run.

    Args:
        workflow: The workflow.
        run_input: The run's input.
        planner: The planner of calls, which plans in the same way as the workers.
        read: Returns the parts of attachments, or None if the attachments cannot be read here.

    Raises:
        UnknownModel: If a model has no price.
    """
    answers = {agent.name: max_tokens_of(agent, planner) for agent in workflow.agents}
    values = {**run_input, **texts(answers)}
    once, limits = Decimal(0), Decimal(0)
    budget = Decimal(str(workflow.cost_budget))
    for agent in workflow.agents:
        elements = elements_of(agent, workflow.data_flow, answers, run_input, values)
        if not elements.counted:
            once = limits = budget  # the length of the list is not known
            break
        once += sum(
            (worst_case_of(agent, each, planner, read) for each in elements.values), Decimal(0)
        )
        if agent.kind in (LLM, WORKFLOW):
            limits += Decimal(str(agent.cost_limit)) * len(elements.values)
    return WorstCase(once_usd=min(once, budget), limit_usd=min(limits, budget))


def worst_case_of(
    agent: Agent, values: Mapping[str, Any], planner: CallPlanner, read: Read = read_nothing
) -> Decimal:
    """Return the highest cost of an agent's first attempt, in dollars.

    If the agent has fallbacks, this is the cost of the most expensive option.

    Args:
        agent: The agent.
        values: The agent's values by name; the value of every other agent is a string with the
            length of that agent's longest output.
        planner: The planner of calls, which plans in the same way as the workers.
        read: As in ``worst_case``.
    """
    if agent.kind not in (LLM, WORKFLOW):
        return Decimal(0)
    limit_usd = Decimal(str(agent.cost_limit))
    if agent.kind == WORKFLOW:
        inner = embedded(agent)
        if inner is None:
            return limit_usd
        inner_case = worst_case(inner, input_of(inner, values), planner, read)
        return min(inner_case.once_usd, limit_usd)
    attached = attached_to(agent, values, read)
    if attached is None or agent.takes_turns:
        return limit_usd
    options = agent.options()
    worst_usd = max(_worst_option(option, values, planner, attached) for option in options)
    return min(worst_usd, limit_usd)


def _worst_option(
    option: Agent, values: Mapping[str, Any], planner: CallPlanner, attached: Sequence[Part]
) -> Decimal:
    plan = planner.plan(option, messages_of(option, values, attached), specs_of(option))
    if option.output_schema is None:
        return plan.worst_usd
    # If an answer does not fit its schema, the model gets back the answer once, with the reason.
    repair = plan.bound_tokens + plan.max_tokens * BYTES_PER_TOKEN + REPAIR_TOKENS
    return plan.worst_usd + plan.worst_usd_of(repair)


def elements_of(
    agent: Agent,
    flow: DataFlow,
    agents: Container[str],
    run_input: Mapping[str, Any],
    values: Mapping[str, Any],
) -> Elements:
    """Return the values of each execution of an agent.

    Args:
        agent: The agent.
        flow: The data flow of the agent's workflow.
        agents: Names of the workflow's agents.
        run_input: The run's input, already checked.
        values: The run's input, and for each agent a string with the length of that agent's output.
    """
    if agent.for_each is None:
        return Elements(values=[flow.assumed(agent, values)])
    assumed = flow.assumed(agent, values)
    lists = lists_of(agent, agents)
    # Without a look at the outputs, each element is as long as its whole list.
    whole = {name: assumed.get(p.root, "") for name, p in lists.items() if p.root not in run_input}
    known = {name: path.text.strip("{}") for name, path in lists.items() if path.root in run_input}
    single = not isinstance(agent.for_each, Mapping)
    found: Sequence[Any] = [whole if not single else next(iter(whole.values()), "")]
    if known:
        walked = agent if single else replace(agent, for_each=known)
        items = items_of(walked, run_input, agents=agents, max_items=MAX_VALUES)
        found = items if single else [{**whole, **item} for item in items]
    each = ({**values, **element_of(agent, item, index)} for index, item in enumerate(found))
    return Elements(values=[flow.assumed(agent, one) for one in each], counted=bool(known))


def input_of(inner: Workflow, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input of a sub-workflow.

    The input has the values of the outer agent, except values with the name of an inner agent.
    """
    names = {agent.name for agent in inner.agents}
    return {key: value for key, value in values.items() if key not in names}


def texts(tokens: Mapping[str, int]) -> dict[str, str]:
    """Make, for each name, a string that is as long as the name's number of tokens."""
    return {name: Unknown("x" * (count * BYTES_PER_TOKEN)) for name, count in tokens.items()}


def attached_to(agent: Agent, values: Mapping[str, Any], read: Read) -> list[Part] | None:
    """Return the parts of an agent's attachments; None if the parts are not known before the run.

    Args:
        agent: The agent.
        values: The agent's values by name.
        read: As in ``worst_case``.
    """
    roots = {place.root for _, template in templates_of(agent) for place in placeholders(template)}
    # The paths of mappings are not followed before a run.
    if any(isinstance(values.get(root), Unknown) or root in agent.input_mapping for root in roots):
        return None
    return read(sources_of(agent, values))


def messages_of(
    agent: Agent, values: Mapping[str, Any], attached: Sequence[Part] = ()
) -> list[dict[str, Any]]:
    """Return the messages of the first request.

    Each placeholder is filled with the whole value of its root.

    Args:
        agent: The agent.
        values: The agent's values by name.
        attached: The parts of the agent's attachments.
    """
    prompt = _filled(agent, values)
    content = [*attached, {"type": "text", "text": prompt}] if attached else prompt
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if system := agent.llm_config.get("system"):
        messages.append({"role": "system", "content": str(system)})
    return messages


def specs_of(agent: Agent) -> list[dict[str, Any]]:
    """Return the specifications of an agent's tools, except tools that are given only by name."""
    return [
        tool if is_server_tool(tool) else tool.reference()
        for tool in agent.tools
        if is_server_tool(tool) or hasattr(tool, "reference")
    ]


def _filled(agent: Agent, values: Mapping[str, Any]) -> str:
    template = agent.prompt_template
    for place in placeholders(template):
        template = template.replace(place.text, f"{{{place.root}}}")
    return render(template, values)


def max_tokens_of(agent: Agent, planner: CallPlanner) -> int:
    """Return the largest number of tokens that the answer of an agent may have.

    For a sub-workflow, this is the sum over the answers of all inner agents. An agent without a
    model has no max_tokens, so the largest allowed output counts instead.
    """
    if (inner := embedded(agent)) is not None:
        return sum(max_tokens_of(one, planner) for one in inner.agents)
    if agent.kind not in (LLM, WORKFLOW):
        return EngineSettings().max_output_bytes // BYTES_PER_TOKEN
    # If only the name of a sub-workflow is given, the default max_tokens counts.
    return planner.max_tokens(agent)

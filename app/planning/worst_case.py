"""The highest cost of a run, computed before the run starts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from app.domain.agent import Agent
from app.domain.attachments import Source, sources_of, templates_of
from app.domain.kinds import LLM, WORKFLOW
from app.domain.prompt import placeholders, render
from app.domain.server_tools import is_server_tool
from app.domain.sub_workflow import embedded
from app.domain.workflow import Workflow
from app.llm.parts import Part
from app.planning.calls import CallPlanner
from app.planning.outputs import (
    BYTES_PER_TOKEN,
    Longest,
    Unbounded,
    Unknown,
    UnknownList,
    elements_of,
    input_of,
    outputs_of,
)

#: Returns the parts of attachments, or None if the attachments cannot be read on this machine.
Read = Callable[[Sequence[Source]], list[Part] | None]
#: Tokens of the message that tells a model why its answer does not fit the schema.
REPAIR_TOKENS = 1000


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
    values = {**run_input, **outputs_of(workflow, run_input, Longest(planner))}
    names = {agent.name for agent in workflow.agents}
    once, limits = Decimal(0), Decimal(0)
    budget = Decimal(str(workflow.cost_budget))
    for agent in workflow.agents:
        elements = elements_of(agent, workflow.data_flow, names, run_input, values)
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
    if attached is None or agent.takes_turns or reads_unbounded(agent, values):
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


def reads_unbounded(agent: Agent, values: Mapping[str, Any]) -> bool:
    """Whether the prompt of an agent has an output whose length has no known bound."""
    return any(
        isinstance(values.get(place.root), Unbounded)
        for place in placeholders(agent.prompt_template)
    )


def messages_of(
    agent: Agent, values: Mapping[str, Any], attached: Sequence[Part] = ()
) -> list[dict[str, Any]]:
    """Return the messages of the first request.

    Each placeholder is filled with the whole value of its root, or with a whole element of a list.

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
    elements = {}
    for place in placeholders(template):
        root, value = place.root, values.get(place.root)
        if isinstance(value, UnknownList) and place.path and isinstance(place.path[0], int):
            root = f"{root}_element"
            elements[root] = value.element()
        template = template.replace(place.text, f"{{{root}}}")
    return render(template, {**values, **elements})

"""What a run may cost, told before it starts."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from app.configuration.sections import EngineSettings
from app.domain.agent import Agent
from app.domain.data_flow import DataFlow
from app.domain.for_each import INDEX, ITEM, items_of, source_of
from app.domain.json_values import MAX_VALUES
from app.domain.kinds import LLM, WORKFLOW
from app.domain.prompt import placeholders, render
from app.domain.sub_workflow import embedded
from app.domain.workflow import Workflow
from app.planning.calls import CallPlanner

#: A generated token is rarely longer, and what is, is stopped by the budgets.
BYTES_PER_TOKEN = 4
#: What a model is told of an answer that does not fit its schema.
REPAIR_TOKENS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Elements:
    """With what values an agent runs: once, or once for each element of its list.

    Attributes:
        values: The values of each.
        counted: Whether the list is in the input; if an agent is to answer it, there is one
            element here, as large as the whole answer.
    """

    values: Sequence[Mapping[str, Any]]
    counted: bool = True


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """Bounds of a run's cost.

    Attributes:
        once_usd: Every agent answers at the first try, with all the tokens it may use; one with
            tools uses up its cost limit, for what its tools say to the model has no bound.
        limit_usd: Where the agents' cost limits and the run's budget stop it, retries included.
    """

    once_usd: Decimal
    limit_usd: Decimal


def worst_case(
    workflow: Workflow,
    run_input: Mapping[str, Any],
    planner: CallPlanner,
) -> WorstCase:
    """The bounds of one run.

    Args:
        workflow: What is to be run.
        run_input: Its input.
        planner: Plans calls, as the workers do.

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
            once = limits = budget  # nobody knows how long the list will be
            break
        once += sum((worst_case_of(agent, each, planner) for each in elements.values), Decimal(0))
        if agent.kind in (LLM, WORKFLOW):
            limits += Decimal(str(agent.cost_limit)) * len(elements.values)
    return WorstCase(once_usd=min(once, budget), limit_usd=min(limits, budget))


def worst_case_of(agent: Agent, values: Mapping[str, Any], planner: CallPlanner) -> Decimal:
    """The most that an answer at one agent's first attempt costs, in dollars.

    With fallbacks it is that of the dearest of them.

    Args:
        agent: The agent.
        values: What it sees by name, with the longest text that each agent may answer.
        planner: Plans calls, as the workers do.
    """
    if agent.kind not in (LLM, WORKFLOW):
        return Decimal(0)
    limit_usd = Decimal(str(agent.cost_limit))
    if agent.kind == WORKFLOW:
        inner = embedded(agent)
        if inner is None:
            return limit_usd
        given = input_of(inner, values)
        return min(worst_case(inner, given, planner).once_usd, limit_usd)
    worst_usd = max(_worst_option(option, values, planner) for option in agent.options())
    return limit_usd if agent.tools and agent.max_turns > 1 else min(worst_usd, limit_usd)


def _worst_option(option: Agent, values: Mapping[str, Any], planner: CallPlanner) -> Decimal:
    plan = planner.plan(option, messages_of(option, values), specs_of(option))
    if option.output_schema is None:
        return plan.worst_usd
    # An answer that does not fit goes back with the reason, for one repair.
    repair = plan.bound_tokens + plan.max_tokens * BYTES_PER_TOKEN + REPAIR_TOKENS
    return plan.worst_usd + plan.worst_usd_of(repair)


def elements_of(
    agent: Agent,
    flow: DataFlow,
    agents: Container[str],
    run_input: Mapping[str, Any],
    values: Mapping[str, Any],
) -> Elements:
    """The elements that an agent runs over.

    Args:
        agent: The agent.
        flow: How data flows in its workflow.
        agents: Names of the workflow's agents.
        run_input: The run's input, already checked.
        values: The input, and by agent a text of the size of its answer.
    """
    if agent.for_each is None:
        return Elements(values=[flow.assumed(agent, values)])
    root = source_of(agent.for_each, agents).root
    if root not in run_input:
        element = {ITEM: flow.assumed(agent, values).get(root, ""), INDEX: 0}
        return Elements(values=[flow.assumed(agent, {**values, **element})], counted=False)
    found = items_of(agent, run_input, agents=agents, max_items=MAX_VALUES)
    elements = ({**values, ITEM: item, INDEX: index} for index, item in enumerate(found))
    return Elements(values=[flow.assumed(agent, each) for each in elements])


def input_of(inner: Workflow, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a sub-workflow gets of what its agent reads."""
    names = {agent.name for agent in inner.agents}
    return {key: value for key, value in values.items() if key not in names}


def texts(tokens: Mapping[str, int]) -> dict[str, str]:
    """Texts of so many tokens."""
    return {name: "x" * (count * BYTES_PER_TOKEN) for name, count in tokens.items()}


def messages_of(agent: Agent, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first request's messages, every placeholder filled by the whole of what it leads into."""
    messages = [{"role": "user", "content": _filled(agent, values)}]
    if system := agent.llm_config.get("system"):
        messages.append({"role": "system", "content": str(system)})
    return messages


def specs_of(agent: Agent) -> list[dict[str, Any]]:
    """Specs of its tools; a tool that is given by its name only has none here to be counted."""
    return [tool.reference() for tool in agent.tools if hasattr(tool, "reference")]


def _filled(agent: Agent, values: Mapping[str, Any]) -> str:
    template = agent.prompt_template
    for place in placeholders(template):
        template = template.replace(place.text, f"{{{place.root}}}")
    return render(template, values)


def max_tokens_of(agent: Agent, planner: CallPlanner) -> int:
    """Tokens that an agent's answer may have; of a sub-workflow, all answers in it.

    One that asks no model has no max_tokens: its output is as large as an output may be.
    """
    if (inner := embedded(agent)) is not None:
        return sum(max_tokens_of(one, planner) for one in inner.agents)
    if agent.kind not in (LLM, WORKFLOW):
        return EngineSettings().max_output_bytes // BYTES_PER_TOKEN
    # A sub-workflow that is only named answers what an agent without a model of its own may.
    return planner.max_tokens(agent)

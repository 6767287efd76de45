"""A forecast of the calls, tokens and dollars of each agent of a run, without any call.

The forecast assumes that every agent answers at its first try, with an answer of a given size. The
forecast also assumes that an agent with tools requests tools once, and uses each tool of the
provider once. If the list of a for_each is in the input, the elements of the list are counted. If
another agent will return the list, the figures apply to one element. Agents of a sub-workflow
appear as ``agent/inner``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any

from app.domain.agent import Agent
from app.domain.kinds import LLM, WORKFLOW
from app.domain.providers import BUILT_IN, Provider
from app.domain.retry import RetryPolicy
from app.domain.server_tools import CODE_EXECUTION, WEB_SEARCH, server_tools_in
from app.domain.sub_workflow import embedded
from app.domain.usage import Usage
from app.domain.workflow import Workflow
from app.llm.parts import Part
from app.llm.tokens import expected_tokens
from app.planning.calls import CallPlanner
from app.planning.prompt_cache import CacheForecast, cache_forecast
from app.planning.worst_case import (
    Elements,
    Read,
    WorstCase,
    attached_to,
    elements_of,
    input_of,
    max_tokens_of,
    messages_of,
    read_nothing,
    specs_of,
    texts,
    worst_case,
    worst_case_of,
)

#: Assumed tokens of an attachment that is not known before the run: about a page.
UNREAD_TOKENS = 2000
#: Assumed tokens of the result when a tool of the provider is used once. Recorded results have
#: about as many tokens.
RESULT_TOKENS = 10_000
OUTPUT_OF_PROGRAM_TOKENS = 500
#: Assumed seconds of a call in which a program runs.
CALL_WITH_PROGRAM_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedCall:
    """One expected call.

    Attributes:
        usage: Tokens of the call.
        max_tokens: Largest number of tokens that the answer may have.
    """

    usage: Usage
    max_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentForecast:
    """The expected calls and costs of one agent.

    Attributes:
        name: Name of the agent.
        level: Level of the agent, from 0.
        provider: Provider name.
        model: Model name.
        calls: Expected calls of the agent, in order.
        most_calls: Largest number of calls that the agent may make, with all turns and all retries.
        expected_usd: Cost of ``calls``.
        worst_usd: Highest cost of the agent's first attempt, with the most expensive fallback; for
            an agent with a list, the sum over all elements.
        elements: Number of elements of the agent's list; None for an agent that runs once.
        per_element: Whether the length of the list is unknown, so that all figures are for one
            element.
        in_a_row: Number of the agent's calls that are made one after the other.
        unread: Whether the agent has attachments that are not known here, so that a usual size was
            assumed.
        cache: Break-even of the provider's prompt cache; None if the agent does not ask for the
            cache.
    """

    name: str
    level: int
    provider: str
    model: str
    calls: tuple[ExpectedCall, ...]
    most_calls: int
    expected_usd: Decimal
    worst_usd: Decimal
    elements: int | None = None
    per_element: bool = False
    in_a_row: int = 1
    unread: bool = False
    cache: CacheForecast | None = None

    @property
    def label(self) -> str:
        """Name of the agent, and the number of its elements."""
        if self.per_element:
            return f"{self.name} (per item)"
        return self.name if self.elements is None else f"{self.name} x {self.elements:,}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """The expected calls and costs of a run.

    Attributes:
        agents: Forecasts of the agents, by level, and within a level in order of definition.
        critical_path: The chain of agents that makes the most calls in a row.
        bounds: Bounds of the cost.
        in_a_row: Number of calls of the critical path.
    """

    agents: tuple[AgentForecast, ...]
    critical_path: tuple[str, ...]
    bounds: WorstCase
    in_a_row: int = 0

    @property
    def calls(self) -> int:
        """Number of calls of all agents."""
        return sum(len(agent.calls) for agent in self.agents)

    @property
    def most_calls(self) -> int:
        """Largest number of calls of all agents, with all turns and all retries."""
        return sum(agent.most_calls for agent in self.agents)

    @property
    def expected_usd(self) -> Decimal:
        """Expected cost of the run."""
        return sum((agent.expected_usd for agent in self.agents), Decimal(0))

    def levels(self) -> list[list[AgentForecast]]:
        """Return the agents level by level."""
        found: dict[int, list[AgentForecast]] = {}
        for agent in self.agents:
            found.setdefault(agent.level, []).append(agent)
        return list(found.values())


def forecast(
    workflow: Workflow,
    run_input: Mapping[str, Any],
    *,
    planner: CallPlanner,
    output_tokens: int,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008  immutable
    providers: Sequence[Provider] = BUILT_IN,
    read: Read = read_nothing,
) -> Forecast:
    """Estimate a run.

    Args:
        workflow: The workflow.
        run_input: The run's input, already checked.
        planner: The planner of calls, which plans calls in the same way as the workers do.
        output_tokens: Assumed tokens of each answer, unless the agent's max_tokens is smaller.
        retry: Retry policy of agents that have no retry policy of their own.
        providers: All providers.
        read: Returns the parts of attachments, or None if the attachments cannot be read here.

    Raises:
        UnknownModel: If a model has no price.
        AttachmentRefused: If an attachment certainly cannot be sent.
    """
    bounds = worst_case(workflow, run_input, planner, read)
    longest = {agent.name: max_tokens_of(agent, planner) for agent in workflow.agents}
    answers = {
        agent.name: min(output_tokens * _answers_in(agent), longest[agent.name])
        for agent in workflow.agents
    }
    expected = {**run_input, **texts(answers)}
    most = {**run_input, **texts(longest)}
    again = partial(
        forecast,
        planner=planner,
        output_tokens=output_tokens,
        retry=retry,
        providers=providers,
        read=read,
    )
    agents: list[AgentForecast] = []
    in_a_row: dict[str, int] = {}
    for level, members in enumerate(workflow.get_levels()):
        for agent in members:
            elements = elements_of(agent, workflow.data_flow, answers, run_input, expected)
            largest = elements_of(agent, workflow.data_flow, answers, run_input, most)
            if agent.kind == WORKFLOW:
                inner = embedded(agent)
                # If only the name of a sub-workflow is given, the inner agents are not known here.
                runs = [again(inner, input_of(inner, each)) for each in elements.values if inner]
                in_a_row[agent.name] = max((run.in_a_row for run in runs), default=0)
                agents += _inner_rows(agent, level, runs, elements)
                continue
            attached = [attached_to(agent, values, read) for values in elements.values]
            calls = [
                _calls(agent, values, parts, answers[agent.name], longest[agent.name], planner)
                for values, parts in zip(elements.values, attached, strict=True)
            ]
            in_a_row[agent.name] = max((len(each) for each in calls), default=0)
            made = _forecast_agent(
                agent,
                level,
                elements,
                calls=tuple(call for each in calls for call in each),
                worst_usd=sum(
                    (worst_case_of(agent, values, planner, read) for values in largest.values),
                    Decimal(0),
                ),
                planner=planner,
                retry=retry,
                providers=providers,
            )
            unread = None in attached
            agents.append(replace(made, in_a_row=in_a_row[agent.name], unread=unread))
    path = _critical_path(workflow, in_a_row)
    return Forecast(
        agents=tuple(agents),
        critical_path=path,
        bounds=bounds,
        in_a_row=sum(in_a_row[name] for name in path),
    )


def _inner_rows(
    agent: Agent, level: int, runs: Sequence[Forecast], elements: Elements
) -> list[AgentForecast]:
    """Return a sub-workflow's agents, with sums over all elements of the outer agent."""
    return [
        replace(
            same[0],
            name=f"{agent.name}/{same[0].name}",
            level=level,
            calls=tuple(call for one in same for call in one.calls),
            most_calls=sum(one.most_calls for one in same),
            expected_usd=sum((one.expected_usd for one in same), Decimal(0)),
            worst_usd=sum((one.worst_usd for one in same), Decimal(0)),
            elements=same[0].elements if agent.for_each is None else len(elements.values),
            per_element=same[0].per_element or not elements.counted,
        )
        for same in zip(*(run.agents for run in runs), strict=True)
    ]


def _forecast_agent(
    agent: Agent,
    level: int,
    elements: Elements,
    *,
    calls: tuple[ExpectedCall, ...],
    worst_usd: Decimal,
    planner: CallPlanner,
    retry: RetryPolicy,
    providers: Sequence[Provider],
) -> AgentForecast:
    made = AgentForecast(
        name=agent.name,
        level=level,
        provider=agent.provider,
        model=agent.model,
        calls=calls,
        most_calls=0,
        expected_usd=Decimal(0),
        worst_usd=worst_usd,
        elements=None if agent.for_each is None else len(elements.values),
        per_element=not elements.counted,
    )
    if agent.kind != LLM:
        return made
    price = planner.price_of(agent)
    repairs = 0 if agent.output_schema is None else 1
    return replace(
        made,
        most_calls=((agent.max_turns if agent.takes_turns else 1) + repairs)
        * len(agent.options())
        * (1 + agent.policy(retry).max_retries)
        * len(elements.values),
        expected_usd=sum((price.cost(call.usage) for call in calls), Decimal(0)),
        cache=cache_forecast(agent, price, providers),
    )


def _answers_in(agent: Agent) -> int:
    inner = embedded(agent)
    return 1 if inner is None else sum(_answers_in(one) for one in inner.agents)


def _calls(
    agent: Agent,
    values: Mapping[str, Any],
    attached: Sequence[Part] | None,
    answer: int,
    max_tokens: int,
    planner: CallPlanner,
) -> tuple[ExpectedCall, ...]:
    if agent.kind != LLM:
        return ()
    messages = messages_of(agent, values, attached or ())
    prompt = expected_tokens(messages, specs_of(agent), model=agent.model)
    if attached is None:
        prompt += UNREAD_TOKENS * len(agent.attachments)
    at_provider = server_tools_in(agent.tools)
    turns = 2 if len(agent.tools) > len(at_provider) and agent.max_turns > 1 else 1
    # After each use of a tool of the provider, the model reads the prompt again.
    results = [
        OUTPUT_OF_PROGRAM_TOKENS if tool.name == CODE_EXECUTION else RESULT_TOKENS
        for tool in at_provider
    ]
    again = sum(prompt + sum(results[: use + 1]) for use in range(len(results)))
    searches = sum(tool.name == WEB_SEARCH for tool in at_provider)
    # With every turn the conversation grows by the request for tools and by the tools' results.
    return tuple(
        ExpectedCall(
            usage=Usage(
                input_tokens=prompt + 2 * turn * answer + (sum(results) if turn else again),
                output_tokens=answer,
                web_searches=0 if turn else searches,
                container_seconds=planner.container_seconds(
                    agent, CALL_WITH_PROGRAM_S, ran=turn == 0
                ),
            ),
            max_tokens=max_tokens,
        )
        for turn in range(turns)
    )


def _critical_path(workflow: Workflow, calls: Mapping[str, int]) -> tuple[str, ...]:
    """Return the chain with the most calls; the keys of ``calls`` must be in order of level."""
    dependencies = {agent.name: agent.dependencies for agent in workflow.agents}
    length: dict[str, int] = {}
    before: dict[str, str | None] = {}
    for agent, own in calls.items():
        names = dependencies[agent]
        last = max(names, key=length.__getitem__) if names else None
        before[agent] = last
        length[agent] = own + (length[last] if last else 0)
    path: list[str] = []
    name: str | None = max(length, key=length.__getitem__, default=None)
    while name is not None:
        path.append(name)
        name = before[name]
    return tuple(reversed(path))

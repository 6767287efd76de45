"""What a run will probably need: calls, tokens and dollars by agent, without making a call.

It assumes that every agent answers at its first try with an answer of a stated size, and that one
with tools asks for them once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from app.cli.cache_forecast import CacheForecast, cache_forecast
from app.cli.worst_case import (
    BYTES_PER_TOKEN,
    WorstCase,
    max_tokens_of,
    messages_of,
    worst_case,
    worst_case_of,
)
from app.costs.pricing import Pricing
from app.domain.agent import Agent
from app.domain.providers import BUILT_IN, Provider
from app.domain.retry import RetryPolicy
from app.domain.usage import Usage
from app.domain.workflow import Workflow
from app.llm.tokens import expected_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedCall:
    """One call as it will probably be.

    Attributes:
        usage: Its tokens.
        max_tokens: Tokens that its answer may have.
    """

    usage: Usage
    max_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentForecast:
    """What one agent will probably need.

    Attributes:
        name: The agent.
        level: Its level, from 0.
        provider: Provider name.
        model: Model name.
        calls: Its calls, one after the other.
        most_calls: Calls it may make with all turns and all retries.
        expected_usd: What ``calls`` cost.
        worst_usd: The most that its first attempt costs, with the dearest of its fallbacks.
        cache: When its provider's cache pays, if it asks for one.
    """

    name: str
    level: int
    provider: str
    model: str
    calls: tuple[ExpectedCall, ...]
    most_calls: int
    expected_usd: Decimal
    worst_usd: Decimal
    cache: CacheForecast | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a run will probably need.

    Attributes:
        agents: By level, and within a level in order of definition.
        critical_path: The chain of agents with the most calls in a row.
        bounds: Bounds of the cost.
    """

    agents: tuple[AgentForecast, ...]
    critical_path: tuple[str, ...]
    bounds: WorstCase

    @property
    def calls(self) -> int:
        """Calls of all agents."""
        return sum(len(agent.calls) for agent in self.agents)

    @property
    def most_calls(self) -> int:
        """Calls of all agents with all turns and retries."""
        return sum(agent.most_calls for agent in self.agents)

    @property
    def expected_usd(self) -> Decimal:
        """What the run will probably cost."""
        return sum((agent.expected_usd for agent in self.agents), Decimal(0))

    def levels(self) -> list[list[AgentForecast]]:
        """The agents level by level."""
        found: dict[int, list[AgentForecast]] = {}
        for agent in self.agents:
            found.setdefault(agent.level, []).append(agent)
        return list(found.values())


def forecast(
    workflow: Workflow,
    run_input: Mapping[str, Any],
    *,
    pricing: Pricing,
    default_max_tokens: int,
    output_tokens: int,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008  immutable
    providers: Sequence[Provider] = BUILT_IN,
) -> Forecast:
    """Estimate a run.

    Args:
        workflow: What is to be run.
        run_input: Its input, already checked.
        pricing: Prices.
        default_max_tokens: Tokens that an agent without a max_tokens may generate.
        output_tokens: Tokens of an answer, where the agent's max_tokens allows it.
        retry: Policy of agents without one of their own.
        providers: The providers there are.

    Raises:
        UnknownModel: If a model has no price.
    """
    bounds = worst_case(workflow, run_input, pricing=pricing, default_max_tokens=default_max_tokens)
    answers = {
        agent.name: min(output_tokens, max_tokens_of(agent, default_max_tokens))
        for agent in workflow.agents
    }
    expected = {**run_input, **_texts(answers)}
    longest = {agent.name: max_tokens_of(agent, default_max_tokens) for agent in workflow.agents}
    most = {**run_input, **_texts(longest)}
    agents = [
        _forecast_agent(
            agent,
            level,
            calls=_calls(agent, expected, answers[agent.name], longest[agent.name]),
            worst_usd=worst_case_of(agent, most, pricing, default_max_tokens),
            pricing=pricing,
            retry=retry,
            providers=providers,
        )
        for level, members in enumerate(workflow.get_levels())
        for agent in members
    ]
    return Forecast(
        agents=tuple(agents), critical_path=_critical_path(workflow, agents), bounds=bounds
    )


def _texts(tokens: Mapping[str, int]) -> dict[str, str]:
    return {name: "x" * (count * BYTES_PER_TOKEN) for name, count in tokens.items()}


def _forecast_agent(
    agent: Agent,
    level: int,
    *,
    calls: tuple[ExpectedCall, ...],
    worst_usd: Decimal,
    pricing: Pricing,
    retry: RetryPolicy,
    providers: Sequence[Provider],
) -> AgentForecast:
    price = pricing.price_of(agent.provider, agent.model, agent.llm_config)
    retries = agent.policy(retry).max_retries
    return AgentForecast(
        name=agent.name,
        level=level,
        provider=agent.provider,
        model=agent.model,
        calls=calls,
        most_calls=(agent.max_turns if agent.tools else 1) * len(agent.options()) * (1 + retries),
        expected_usd=sum((price.cost(call.usage) for call in calls), Decimal(0)),
        worst_usd=worst_usd,
        cache=cache_forecast(agent, price, providers),
    )


def _calls(
    agent: Agent, values: Mapping[str, Any], answer: int, max_tokens: int
) -> tuple[ExpectedCall, ...]:
    # A tool that is given by its name only has no schema here that could be counted.
    specs = [tool.reference() for tool in agent.tools if hasattr(tool, "reference")]
    prompt = expected_tokens(messages_of(agent, values), specs, model=agent.model)
    turns = 2 if agent.tools and agent.max_turns > 1 else 1
    # With every turn the conversation grows by the request for tools and by what they say.
    return tuple(
        ExpectedCall(
            usage=Usage(input_tokens=prompt + 2 * turn * answer, output_tokens=answer),
            max_tokens=max_tokens,
        )
        for turn in range(turns)
    )


def _critical_path(workflow: Workflow, agents: list[AgentForecast]) -> tuple[str, ...]:
    """The longest chain, counted in calls; the agents come by level."""
    dependencies = {agent.name: agent.dependencies for agent in workflow.agents}
    length: dict[str, int] = {}
    before: dict[str, str | None] = {}
    for agent in agents:
        names = dependencies[agent.name]
        last = max(names, key=length.__getitem__) if names else None
        before[agent.name] = last
        length[agent.name] = len(agent.calls) + (length[last] if last else 0)
    path: list[str] = []
    name: str | None = max(length, key=length.__getitem__, default=None)
    while name is not None:
        path.append(name)
        name = before[name]
    return tuple(reversed(path))

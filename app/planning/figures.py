"""The figures of a forecast: expected calls, costs and stops, by agent and for a whole run."""

from dataclasses import dataclass
from decimal import Decimal

from app.domain.usage import Usage
from app.planning.prompt_cache import CacheForecast
from app.planning.spread import range_of
from app.planning.worst_case import WorstCase


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedCall:
    """One expected call.

    Attributes:
        usage: Tokens of the call.
        max_tokens: Largest number of tokens that the answer may have.
        hold_usd: Dollars that a worker holds for the call.
    """

    usage: Usage
    max_tokens: int
    hold_usd: Decimal = Decimal(0)


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
        earlier_runs: Number of earlier runs from which the lengths come; 0 if they are assumed.
        variance: Variance of the cost, in square dollars, as far as earlier runs tell it.
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
    earlier_runs: int = 0
    variance: float = 0.0

    @property
    def label(self) -> str:
        """Name of the agent, and the number of its elements."""
        if self.per_element:
            return f"{self.name} (per item)"
        return self.name if self.elements is None else f"{self.name} x {self.elements:,}"


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetStop:
    """A call that a budget will refuse.

    Attributes:
        agent: Name of the agent that will end as ``budget_exceeded``.
        budget: ``cost_budget`` of the workflow, or ``cost_limit`` of the agent.
        limit_usd: Dollars of the budget.
        spent_usd: Dollars that are expected to be spent before the call.
        hold_usd: Worst case of the call, in dollars.
    """

    agent: str
    budget: str
    limit_usd: Decimal
    spent_usd: Decimal
    hold_usd: Decimal


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """The expected calls and costs of a run.

    Attributes:
        agents: Forecasts of the agents, by level, and within a level in order of definition.
        critical_path: The chain of agents that makes the most calls in a row.
        bounds: Bounds of the cost.
        in_a_row: Number of calls of the critical path.
        stops: The budgets that will stop the run if it costs what is expected; the first comes
            first.
    """

    agents: tuple[AgentForecast, ...]
    critical_path: tuple[str, ...]
    bounds: WorstCase
    in_a_row: int = 0
    stops: tuple[BudgetStop, ...] = ()

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

    @property
    def earlier_runs(self) -> int:
        """Number of earlier runs from which all lengths come; 0 if some lengths are assumed."""
        return min((agent.earlier_runs for agent in self.agents if agent.calls), default=0)

    @property
    def range_usd(self) -> tuple[Decimal, Decimal] | None:
        """The costs between which 9 of 10 runs will be; None if some lengths are assumed."""
        if not self.earlier_runs:
            return None
        variance = sum(agent.variance for agent in self.agents)
        low, high = range_of(float(self.expected_usd), variance)
        most = self.bounds.once_usd
        return min(Decimal(str(low)), most), min(Decimal(str(high)), most)

    def levels(self) -> list[list[AgentForecast]]:
        """Return the agents level by level."""
        found: dict[int, list[AgentForecast]] = {}
        for agent in self.agents:
            found.setdefault(agent.level, []).append(agent)
        return list(found.values())

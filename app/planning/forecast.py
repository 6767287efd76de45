"""A forecast of the calls, tokens and dollars of each agent of a run, without any call.

The forecast assumes that every agent answers at its first try. The lengths of answers and of lists
come from earlier runs of the same agents. Without enough earlier runs, an answer has a given size,
an agent with tools requests tools once and uses each tool of the provider once, and the figures of
an agent with a list that another agent will return apply to one element. If the list of a for_each
is in the input, its elements are counted. Agents of a sub-workflow appear as ``agent/inner``.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from app.domain.agent import Agent
from app.domain.earlier import Earlier
from app.domain.for_each import lists_of
from app.domain.kinds import LLM, WORKFLOW
from app.domain.providers import BUILT_IN, Provider
from app.domain.retry import RetryPolicy
from app.domain.sub_workflow import embedded
from app.domain.workflow import Workflow
from app.llm.parts import Part
from app.planning.budget_stops import Spending
from app.planning.calls import CallPlanner
from app.planning.expected import ExpectedSizes
from app.planning.expected_calls import calls_as_before, first_calls
from app.planning.figures import AgentForecast, ExpectedCall, Forecast
from app.planning.outputs import Elements, Longest, elements_of, input_of, outputs_of
from app.planning.prompt_cache import cache_forecast
from app.planning.spread import reads_of, usd_per_output_token, variance_of
from app.planning.worst_case import (
    Read,
    attached_to,
    messages_of,
    read_nothing,
    specs_of,
    worst_case,
    worst_case_of,
)


def forecast(
    workflow: Workflow,
    run_input: Mapping[str, Any],
    *,
    planner: CallPlanner,
    output_tokens: int,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008  immutable
    providers: Sequence[Provider] = BUILT_IN,
    read: Read = read_nothing,
    earlier: Earlier = MappingProxyType({}),
) -> Forecast:
    """Estimate a run.

    Args:
        workflow: The workflow.
        run_input: The run's input, already checked.
        planner: The planner of calls, which plans calls in the same way as the workers do.
        output_tokens: Assumed tokens of each answer without earlier runs, unless the agent's
            max_tokens is smaller.
        retry: Retry policy of agents that have no retry policy of their own.
        providers: All providers.
        read: Returns the parts of attachments, or None if the attachments cannot be read here.
        earlier: Figures of earlier runs of the agents.

    Raises:
        UnknownModel: If a model has no price.
        AttachmentRefused: If an attachment certainly cannot be sent.
    """
    sizes = ExpectedSizes(planner=planner, output_tokens=output_tokens, earlier=earlier)
    forecaster = _Forecaster(
        planner=planner, sizes=sizes, retry=retry, providers=providers, read=read
    )
    return forecaster.of(workflow, run_input)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Forecaster:
    """The assumptions of a forecast; see ``forecast``."""

    planner: CallPlanner
    sizes: ExpectedSizes
    retry: RetryPolicy
    providers: Sequence[Provider]
    read: Read

    def of(self, workflow: Workflow, run_input: Mapping[str, Any]) -> Forecast:
        """Estimate a run of a workflow or of a sub-workflow."""
        expected = {**run_input, **outputs_of(workflow, run_input, self.sizes)}
        longest = {**run_input, **outputs_of(workflow, run_input, Longest(self.planner))}
        agents: list[AgentForecast] = []
        stops = Spending(Decimal(str(workflow.cost_budget)))
        in_a_row: dict[str, int] = {}
        for level, members in enumerate(workflow.get_levels()):
            for agent in members:
                elements = self._elements(workflow, agent, run_input, expected)
                if agent.kind == WORKFLOW:
                    inner = embedded(agent)
                    # If only the name of a sub-workflow is given, its agents are not known here.
                    runs = [self.of(inner, input_of(inner, e)) for e in elements.values if inner]
                    in_a_row[agent.name] = max((run.in_a_row for run in runs), default=0)
                    rows = _inner_rows(agent, level, runs, elements)
                    stops.sub_workflow(agent, runs)
                else:
                    largest = self._elements(workflow, agent, run_input, longest)
                    made, calls = self._agent(workflow, agent, level, elements, largest)
                    in_a_row[agent.name] = made.in_a_row
                    rows = [made]
                    price = self.planner.price_of(agent) if agent.kind == LLM else None
                    stops.agent(agent, price, calls)
                agents += rows
        path = _critical_path(workflow, in_a_row)
        return Forecast(
            agents=tuple(self._with_variance(workflow, agents)),
            critical_path=path,
            bounds=worst_case(workflow, run_input, self.planner, self.read),
            in_a_row=sum(in_a_row[name] for name in path),
            stops=tuple(stops.found),
        )

    def _elements(
        self,
        workflow: Workflow,
        agent: Agent,
        run_input: Mapping[str, Any],
        values: Mapping[str, Any],
    ) -> Elements:
        names = {each.name for each in workflow.agents}
        count = self.sizes.elements(workflow.name, agent)
        return elements_of(agent, workflow.data_flow, names, run_input, values, count)

    def _agent(
        self,
        workflow: Workflow,
        agent: Agent,
        level: int,
        elements: Elements,
        largest: Elements,
    ) -> tuple[AgentForecast, list[tuple[ExpectedCall, ...]]]:
        attached = [attached_to(agent, values, self.read) for values in elements.values]
        calls = [
            self._calls(workflow, agent, values, parts)
            for values, parts in zip(elements.values, attached, strict=True)
        ]
        known = self.sizes.known(workflow.name, agent)
        share = 1.0 if known is None or agent.for_each is not None else min(known.executions, 1.0)
        made = _forecast_agent(
            agent,
            level,
            elements,
            calls=tuple(call for each in calls for call in each),
            worst_usd=sum(
                (worst_case_of(agent, each, self.planner, self.read) for each in largest.values),
                Decimal(0),
            ),
            planner=self.planner,
            retry=self.retry,
            providers=self.providers,
        )
        made = replace(
            made,
            expected_usd=made.expected_usd * Decimal(str(share)),
            in_a_row=max((len(each) for each in calls), default=0),
            unread=None in attached,
            earlier_runs=0 if known is None else known.runs,
        )
        return made, calls

    def _calls(
        self,
        workflow: Workflow,
        agent: Agent,
        values: Mapping[str, Any],
        attached: Sequence[Part] | None,
    ) -> tuple[ExpectedCall, ...]:
        if agent.kind != LLM:
            return ()
        planner = self.planner
        plan = planner.plan(
            agent,
            messages_of(agent, values, attached or ()),
            specs_of(agent),
            affordable_usd=Decimal(str(agent.cost_limit)),
        )
        answer = self.sizes.answer_tokens(workflow.name, agent)
        known = self.sizes.known(workflow.name, agent)
        if known is not None and agent.takes_turns:
            made = calls_as_before(known, answer, planner.max_tokens(agent))
        else:
            made = first_calls(agent, values, attached, answer, planner.max_tokens(agent), planner)
        return tuple(replace(call, hold_usd=plan.worst_usd) for call in made)

    def _with_variance(
        self, workflow: Workflow, agents: Sequence[AgentForecast]
    ) -> Iterator[AgentForecast]:
        """Yield the forecasts with the variances of their costs; inner agents have theirs."""
        by_name = {agent.name: agent for agent in workflow.agents if agent.kind == LLM}
        names = {agent.name for agent in workflow.agents}
        rows = {row.name: row for row in agents if row.name in by_name}
        prices = {name: self.planner.price_of(agent) for name, agent in by_name.items()}
        readers: dict[str, dict[str, float]] = {name: {} for name in names}
        for name, row in rows.items():
            agent = by_name[name]
            for other, times in reads_of(agent, workflow.data_flow, names).items():
                executions = 1 if _is_list_of(agent, other, names) else len(row.calls)
                readers[other][name] = float(times * executions)
        input_usd = {name: float(price.input) for name, price in prices.items()}
        for row in agents:
            agent_ = by_name.get(row.name)
            known = self.sizes.known(workflow.name, agent_) if agent_ else None
            if agent_ is None or known is None:
                yield row
                continue
            own_usd = float(prices[row.name].output)
            per_token = usd_per_output_token(own_usd, readers[row.name], input_usd)
            answers = max(len(row.calls) / max(known.calls, 1.0), 1.0)
            variance = variance_of(known, answers, per_token)
            if row.elements is None or not _counted(agent_, workflow):
                one_usd = float(row.expected_usd) / max(known.executions, 1e-9)
                variance += (known.executions_sd * one_usd) ** 2
            yield replace(row, variance=variance)


def _is_list_of(agent: Agent, other: str, names: Collection[str]) -> bool:
    return any(path.root == other for path in lists_of(agent, names).values())


def _counted(agent: Agent, workflow: Workflow) -> bool:
    """Whether the length of an agent's list is in the input."""
    names = {each.name for each in workflow.agents}
    written = {*names, *workflow.data_flow.writers}
    return any(path.root not in written for path in lists_of(agent, written).values())


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
            per_element=same[0].per_element or not elements.known,
            variance=sum(one.variance for one in same),
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
        per_element=not elements.known,
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

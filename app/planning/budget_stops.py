"""The budgets that will stop a run if the run costs what the plan expects.

A worker makes a call only if its worst case fits what is left of each budget. Therefore a budget
stops a run before the money is spent: at the call whose worst case, added to the costs so far, is
above the budget. Calls that are in flight at once only wait for each other.
"""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from app.costs.price import Price
from app.domain.agent import Agent
from app.planning.figures import BudgetStop, ExpectedCall, Forecast


class Spending:
    """The expected costs of one run, call by call, in the order of the levels.

    Args:
        budget_usd: The run's ``cost_budget``.

    Attributes:
        found: The calls that a budget will refuse: the first of each agent, and the first call that
            the run's budget will refuse.
    """

    def __init__(self, budget_usd: Decimal) -> None:
        self._budget_usd = budget_usd
        self._spent_usd = Decimal(0)
        self._is_stopped = False
        self.found: list[BudgetStop] = []

    def agent(
        self, agent: Agent, price: Price | None, executions: Sequence[Sequence[ExpectedCall]]
    ) -> None:
        """Spend the calls of an agent; each execution has the agent's own ``cost_limit``."""
        limit_usd = Decimal(str(agent.cost_limit))
        is_refused = False
        for calls in executions if price is not None else ():
            own_usd = Decimal(0)
            for call in calls:
                if not is_refused and own_usd + call.hold_usd > limit_usd:
                    self._refuse(agent.name, "cost_limit", limit_usd, own_usd, call.hold_usd)
                    is_refused = True
                self._in_run(agent.name, call.hold_usd)
                assert price is not None
                cost_usd = price.cost(call.usage)
                own_usd += cost_usd
                self._spent_usd += cost_usd

    def sub_workflow(self, agent: Agent, runs: Sequence[Forecast]) -> None:
        """Spend the inner runs of an agent, whose ``cost_limit`` bounds each inner run."""
        limit_usd = Decimal(str(agent.cost_limit))
        noted: set[str] = set()
        for run in runs:
            for stop in run.stops:
                name = f"{agent.name}/{stop.agent}"
                if name not in noted:
                    noted.add(name)
                    self.found.append(replace(stop, agent=name))
            if run.expected_usd > limit_usd and agent.name not in noted:
                noted.add(agent.name)
                self._refuse(agent.name, "cost_limit", limit_usd, run.expected_usd, Decimal(0))
            for row in run.agents:
                for call in row.calls:
                    self._in_run(f"{agent.name}/{row.name}", call.hold_usd)
                self._spent_usd += row.expected_usd

    def _in_run(self, name: str, hold_usd: Decimal) -> None:
        if not self._is_stopped and self._spent_usd + hold_usd > self._budget_usd:
            self._is_stopped = True
            self._refuse(name, "cost_budget", self._budget_usd, self._spent_usd, hold_usd)

    def _refuse(
        self, name: str, budget: str, limit_usd: Decimal, spent_usd: Decimal, hold_usd: Decimal
    ) -> None:
        self.found.append(
            BudgetStop(
                agent=name,
                budget=budget,
                limit_usd=limit_usd,
                spent_usd=spent_usd,
                hold_usd=hold_usd,
            )
        )

"""CostTracker: prices of calls, spending, and what is left of budgets, for the whole cluster."""

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

from app.client.process import transaction
from app.configuration.settings import load_settings
from app.costs import tracking
from app.costs.pricing import Pricing
from app.domain.agent import provider_of_model
from app.domain.bounds import Bounds, find_problem
from app.domain.money import round_to_ledger
from app.domain.policies import CostConfig
from app.domain.usage import Usage
from app.errors import UnknownRun, UnknownWorkflow, WorkflowError

TOKENS = Bounds(high=2_000_000_000, whole=True)


class CostTracker:
    """Prices calls, books spending outside the workers, and tells what is left of budgets.

    Everything is read from and written to Postgres, so all trackers tell the same. The workers
    record the spending of agents: recording it here as well would count it twice.

    It books after the fact, so it cannot keep a call from overdrawing a budget. A call that must
    not is made by an agent: its worker reserves the worst case first.

    Args:
        config: Prices of the caller's own; None takes those of the configuration.

    Example:
        costs = CostTracker()
        if costs.check_workflow_budget(run.id):
            answer = call_the_provider()
            costs.record_cost("review", "review", run.id, "gpt-4o-mini", 1200, 300)
    """

    def __init__(self, config: CostConfig | None = None) -> None:
        self._pricing = Pricing(config or load_settings().costs)

    def calculate_cost(self, model: str, input_tokens: int, output_tokens: int) -> float:
        """Return the dollars of a call.

        Raises:
            UnknownModel: If the model has no price.
        """
        return self._pricing.calculate_cost(model, input_tokens, output_tokens)

    def record_cost(
        self,
        agent_id: str,
        agent_name: str,
        workflow_id: str,
        model: str,
        input_tokens: int,
        output_tokens: int,
        metadata: Mapping[str, Any] | None = None,
    ) -> float:
        """Book a call that was made outside the workers, on the same ledger and budgets.

        The money is spent already, so the call is booked even if it does not fit a budget: that
        budget is then overdrawn, and no agent's call fits any more.

        Args:
            agent_id: Id of an agent of the run, as in its results, or a name of the caller's own.
            agent_name: Name of the agent, for reports.
            workflow_id: Id of a run, which is booked on its budgets, or of a registered workflow,
                which is booked on the standing ones only.
            model: Model.
            input_tokens: Tokens of the prompt.
            output_tokens: Generated tokens.
            metadata: Facts of the caller's own, as JSON. ``module`` and, outside a run, ``tenant``
                name budgets; ``provider`` names the provider if the model's name does not.

        Returns:
            Its cost in dollars.

        Raises:
            UnknownModel: If the model has no price.
            UnknownWorkflow: (a ValueError) if no run and no workflow has the id.
            WorkflowError: (a ValueError) if a number of tokens is negative or no whole number.
        """
        tokens = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        if found := find_problem(tokens, dict.fromkeys(tokens, TOKENS)):
            name, problem = found
            raise WorkflowError(f"{name} {problem}", field=name)
        facts = dict(metadata or {})
        provider = str(facts.get("provider") or provider_of_model(model) or "")
        price = self._pricing.price_of(provider, model)
        usage = Usage(**tokens)
        spending = tracking.Spending(
            agent_id=agent_id,
            agent_name=agent_name,
            owner=_uuid(workflow_id),
            provider=provider,
            model=model,
            usage=usage,
            cost_usd=round_to_ledger(price.cost(usage)),
            price_version=price.version,
            metadata=facts,
        )
        transaction(partial(tracking.book_spending, spending=spending))
        return float(spending.cost_usd)

    def check_workflow_budget(self, workflow_id: str) -> bool:
        """Return whether anything is left of the budgets of a run, or of a workflow's newest run.

        A call must fit as a whole to be made, so True promises no further call.

        Raises:
            UnknownWorkflow: (a ValueError) if no run and no workflow has the id.
        """
        return transaction(partial(tracking.within_budgets, owner_id=_uuid(workflow_id)))

    def check_agent_budget(self, agent_id: str) -> bool:
        """Return whether anything is left of an agent's cost_limit, by the id of its result.

        Raises:
            UnknownRun: (a LookupError) if no agent run has the id.
        """
        try:
            id_ = UUID(agent_id)
        except ValueError as error:
            raise UnknownRun(f"{agent_id!r} is not the id of an agent run") from error
        return transaction(partial(tracking.agent_within_budget, agent_run_id=id_))

    def get_statistics(self) -> dict[str, Any]:
        """Return totals of the cluster's ledger.

        Returns:
            ``total_cost`` in dollars, ``total_calls``, ``total_tokens``; dollars ``by_model``,
            ``by_workflow`` and ``by_agent``; ``budgets``, the standing ones in their current
            periods.
        """
        return transaction(tracking.cost_statistics)


def _uuid(workflow_id: str) -> UUID:
    try:
        return UUID(workflow_id)
    except ValueError as error:
        raise UnknownWorkflow(f"{workflow_id!r} is not the id of a run or a workflow") from error

"""CostTracker: prices of calls, spending and remaining budgets, for the whole cluster."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from app.client.costs import CostReport
from app.client.process import process, transaction
from app.configuration.settings import load_settings
from app.costs import tracking
from app.costs.pricing import Pricing
from app.costs.reports import ReportFilter
from app.domain.agent import provider_of_model
from app.domain.bounds import Bounds, find_problem
from app.domain.json_values import find_json_problem
from app.domain.money import round_to_ledger
from app.domain.policies import CostConfig
from app.domain.run_filter import RunFilter
from app.domain.usage import Usage
from app.errors import UnknownRun, UnknownWorkflow, WorkflowError

TOKENS = Bounds(high=2_000_000_000, whole=True)


class CostTracker:
    """Prices calls, books spending outside the workers, and checks budgets.

    A tracker keeps everything in Postgres, so all trackers return the same values. The workers
    record the spending of agents. If a program recorded this spending here as well, the spending
    would count twice.

    A tracker books a call after the call was made, so the tracker cannot prevent the call from
    overdrawing a budget. If a call must not overdraw a budget, an agent has to make the call,
    because the agent's worker first reserves the worst case.

    Args:
        config: The caller's own prices; None means the prices of the configuration.

    Example:
        costs = CostTracker()
        if costs.check_workflow_budget(run.id):
            answer = call_the_provider()
            costs.record_cost("review", "review", run.id, "gpt-4o-mini", 1200, 300)
    """

    def __init__(self, config: CostConfig | None = None) -> None:
        self._pricing = Pricing(config or load_settings().costs)

    def calculate_cost(self, model: str, input_tokens: int, output_tokens: int) -> float:
        """Return the cost of a call in dollars.

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

        The money is spent already, so the call is booked even if it does not fit a budget. That
        budget is then overdrawn, and no agent's call fits into the budget any more.

        Args:
            agent_id: Id of an agent run (``AgentResult.agent_id``), or a name that the caller
                chooses.
            agent_name: Name of the agent, for reports.
            workflow_id: Id of a run or of a registered workflow. With the id of a run, the call is
                booked on the budgets of the run and of the runs around it. With the id of a
                workflow, the call is booked only on the standing budgets.
            model: Name of the model.
            input_tokens: Number of tokens of the prompt.
            output_tokens: Number of generated tokens.
            metadata: The caller's own facts, as JSON. The value of ``module`` names a budget.
                Outside a run, the value of ``tenant`` also names a budget. If the model's name does
                not show the provider, the value of ``provider`` names the provider.

        Returns:
            The cost of the call in dollars.

        Raises:
            UnknownModel: If the model has no price.
            UnknownWorkflow: If neither a run nor a workflow has the id. This is a ValueError.
            WorkflowError: If a number of tokens is negative or not a whole number, or if the
                metadata is not JSON. This is a ValueError.
        """
        tokens = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        if found := find_problem(tokens, dict.fromkeys(tokens, TOKENS)):
            name, problem = found
            raise WorkflowError(f"{name} {problem}", field=name)
        facts = dict(metadata or {})
        if found := find_json_problem(facts, "metadata"):
            raise WorkflowError(" ".join(found), field=found[0])
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
        """Return whether money is left in the budgets of a run, or of a workflow's newest run.

        An agent's call starts only if the budgets have room for the whole worst case of the call.
        So the result True does not promise that another call starts.

        Raises:
            UnknownWorkflow: If neither a run nor a workflow has the id. This is a ValueError.
        """
        return transaction(partial(tracking.within_budgets, owner_id=_uuid(workflow_id)))

    def check_agent_budget(self, agent_id: str) -> bool:
        """Return whether an agent's cost_limit has money left; see ``AgentResult.agent_id``.

        Raises:
            UnknownRun: If no agent run has the id. This is a LookupError.
        """
        try:
            id_ = UUID(agent_id)
        except ValueError as error:
            raise UnknownRun(f"{agent_id!r} is not the id of an agent run") from error
        return transaction(partial(tracking.agent_within_budget, agent_run_id=id_))

    def report(
        self,
        by: str | Sequence[str] = "model",
        *,
        run_id: str | None = None,
        since: datetime | None = None,
        tenant: str | None = None,
        workflow: str | None = None,
        outer_workflow: str | None = None,
        labels: Mapping[str, str | None] | None = None,
    ) -> CostReport:
        """Return the costs by one or several dimensions, as ``agentchord costs`` does.

        Args:
            by: Dimensions such as ``"tenant,model"`` or ``["label:team", "day"]``.
            run_id: The only run that is counted, with everything inside it.
            since: Time before which no call is counted; a time without a zone is in UTC.
            tenant: The only tenant.
            workflow: The only workflow under whose name calls are booked.
            outer_workflow: The only workflow of the outer runs, with its sub-workflows.
            labels: Labels of the calls' runs; None as a value stands for any value.

        Raises:
            ConfigurationError: If there is no such dimension.
            WorkflowError: If no run can have such a label. This is a ValueError.
            UnknownRun: If there is no such run. This is a LookupError.

        Example:
            for line in CostTracker().report("tenant,model", labels={"team": "claims"}).lines:
                print(line.keys, line.cost_usd)
        """
        if since is not None and since.tzinfo is None:
            since = since.replace(tzinfo=UTC)
        only = ReportFilter(
            run_id=None if run_id is None else _run_uuid(run_id),
            since=since,
            runs=RunFilter(tenant=tenant, workflow=workflow, labels=labels or {}),
            outer_workflow=outer_workflow,
        )
        dimensions = [by] if isinstance(by, str) else by
        return process().run(lambda client: client.costs.report(dimensions, only))

    def get_statistics(self) -> dict[str, Any]:
        """Return totals of the cluster's ledger.

        Returns:
            The keys ``total_cost`` (dollars), ``total_calls`` and ``total_tokens``. The keys
            ``by_model``, ``by_workflow`` and ``by_agent`` have dollars. The key ``budgets`` has the
            standing budgets in their current periods.
        """
        return transaction(tracking.cost_statistics)


def _run_uuid(run_id: str) -> UUID:
    try:
        return UUID(run_id)
    except ValueError as error:
        raise UnknownRun(f"{run_id!r} is not the id of a run: see `agentchord runs`") from error


def _uuid(workflow_id: str) -> UUID:
    try:
        return UUID(workflow_id)
    except ValueError as error:
        raise UnknownWorkflow(f"{workflow_id!r} is not the id of a run or a workflow") from error

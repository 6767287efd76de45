"""The outcomes of runs: outputs, results of agents, contexts, and workflows with results."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from app.client.runs import Runs
from app.client.transactions import Transactions
from app.client.workflows import Workflows
from app.domain.agent import AgentResult
from app.domain.money import readable
from app.domain.status import WorkflowStatus
from app.domain.suggestions import did_you_mean
from app.domain.workflow import Workflow
from app.errors import OutputInvalid, RunConflict, WorkflowError
from app.monitoring.whole_run import Incomplete, read_whole_run
from app.storage.runs import AgentRunRecord, RunRecord

if TYPE_CHECKING:
    from pydantic import BaseModel

    Models = Mapping[str, type[BaseModel]]


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The state of a run at one moment: the status, the cost and the results so far.

    Attributes:
        record: The stored record of the run, with all facts.
        results: Results of all agents by name, as in ``Run.results``.
        models: The pydantic models of the agents' outputs, by agent name, as far as this process
            knows the models.

    Example:
        state = await run.state()
        if state.status.is_final:
            print(state.outputs["writer"], state.cost)
    """

    record: RunRecord
    results: Mapping[str, AgentResult]
    models: "Models"

    @property
    def status(self) -> WorkflowStatus:
        """State of the run."""
        return self.record.status

    @property
    def error(self) -> str | None:
        """The reason why the run failed or was stopped; None if there is no such reason."""
        return self.record.error

    @property
    def cost(self) -> Decimal:
        """Dollars that the run has spent so far, including failed and retried calls."""
        return readable(self.record.spent_usd)

    @property
    def outputs(self) -> dict[str, Any]:
        """Outputs of the agents that have completed, by agent name, without single items.

        Raises:
            RunConflict: If the outputs were removed (`agentchord prune`).
        """
        self._check_kept()
        return {
            name: result.output
            for name, result in self.results.items()
            if result.is_success() and "[" not in name
        }

    def result(self, agent: str, model: "type[BaseModel] | None" = None) -> Any:
        """Return the output of an agent, as an object of a pydantic model if there is one.

        Args:
            agent: Name of the agent, or of an item of a for_each, such as ``triage[3]``.
            model: Model of the output. None means the model that the agent has as its
                ``output_schema``, if this process has enqueued the run.

        Returns:
            The output. With a model, the output of an agent with a for_each is a list of objects,
            with None for each item that has no output.

        Raises:
            WorkflowError: If the run has no such agent.
            RunConflict: If the agent has no output, or if the outputs were removed.
            OutputInvalid: If the output does not fit the model.
        """
        self._check_kept()
        if (found := self.results.get(agent)) is None:
            raise WorkflowError(
                f"run {self.record.id} has no agent {agent!r}{did_you_mean(agent, self.results)}"
            )
        if not found.is_success():
            raise RunConflict(
                f"agent {agent!r} has no output, because it is {found.status}"
                + (f": {found.error}" if found.error else "")
            )
        model = model or self.models.get(agent.partition("[")[0])
        return found.output if model is None else _as_model(found, agent, model)

    def _check_kept(self) -> None:
        if (pruned_at := self.record.pruned_at) is not None:
            raise RunConflict(
                f"the outputs of run {self.record.id} were removed on {pruned_at:%Y-%m-%d}"
            )


def models_of(workflow: Workflow) -> "Models":
    """Return the pydantic models of a workflow's agents, by agent name."""
    return {
        agent.name: agent.output_schema
        for agent in workflow.agents
        if hasattr(agent.output_schema, "model_validate")
    }


class Results:
    """Results of the runs of one scope; a run that is still going has the results so far.

    Every method raises UnknownRun if the scope has no such run.

    Args:
        runs: The runs of the scope.
        workflows: The workflows of the runs.
        transactions: The object that runs transactions in Postgres.
    """

    def __init__(self, runs: Runs, workflows: Workflows, transactions: Transactions) -> None:
        self._runs = runs
        self._transactions = transactions
        self._workflows = workflows

    async def state(self, run_id: UUID, models: "Models | None" = None) -> RunState:
        """Return the state of a run.

        The record is read first, so that a run that has ended has all its results.
        """
        record = await self._runs.read(run_id)
        return RunState(record=record, results=await self.by_agent(run_id), models=models or {})

    async def outputs(self, run_id: UUID) -> dict[str, Any]:
        """Return, by agent name, the output of every agent that has completed.

        Raises:
            RunConflict: If the outputs were removed (`agentchord prune`).
        """
        return (await self.state(run_id)).outputs

    async def context(self, run_id: UUID) -> dict[str, Any]:
        """Return the run's shared context: the run's input, and the values of ``output_mapping``.

        Raises:
            RunConflict: If inputs and outputs were removed (`agentchord prune`).
        """
        record = await self._runs.read(run_id)
        workflow = await self._workflows.of_run(run_id)
        return workflow.data_flow.context(record.input or {}, await self.outputs(run_id))

    async def by_agent(self, run_id: UUID) -> dict[str, AgentResult]:
        """Return, by name, the results of all agents and of all items of a for_each."""
        agents = await self._runs.agents(run_id)
        return {agent.name: _result(agent) for agent in _with_items(agents)}

    async def incomplete(self, run_id: UUID) -> tuple[Incomplete, ...]:
        """Return the agent runs, anywhere inside the run, that have no whole result."""
        await self._runs.read(run_id)
        whole = await self._transactions.run(partial(read_whole_run, run_id=run_id))
        return whole.incomplete

    async def workflow(self, run_id: UUID) -> Workflow:
        """Return the workflow of a run, with the run's status, cost and results."""
        record = await self._runs.read(run_id)
        workflow = await self._workflows.of_run(run_id)
        workflow.status = record.status
        workflow.total_cost = float(record.spent_usd)
        for stored in _with_items(await self._runs.agents(run_id)):
            if stored.parent_id is not None:
                continue
            agent = workflow.get_agent_by_name(stored.name)
            assert agent is not None, "agent runs are made from the workflow's agents"
            agent.status = stored.status
            agent.result = _result(stored)
        return workflow


def _as_model(result: AgentResult, name: str, model: "type[BaseModel]") -> Any:
    try:
        if "items" not in result.metadata:
            return model.model_validate(result.output)
        return [None if each is None else model.model_validate(each) for each in result.output]
    except ValueError as error:  # also pydantic's error
        raise OutputInvalid(
            f"the output of agent {name!r} does not fit {model.__name__}: {error}"
        ) from error


def _with_items(agents: Sequence[AgentRunRecord]) -> list[AgentRunRecord]:
    """Return agent runs; an agent with items has the sums of its items' costs and tokens."""
    items: dict[UUID, list[AgentRunRecord]] = defaultdict(list)
    for agent in agents:
        if agent.parent_id is not None:
            items[agent.parent_id].append(agent)
    return [
        replace(
            agent,
            spent_usd=sum((item.spent_usd for item in items[agent.id]), agent.spent_usd),
            tokens=sum((item.tokens for item in items[agent.id]), agent.tokens),
        )
        if agent.item_count is not None
        else agent
        for agent in agents
    ]


def _result(stored: AgentRunRecord) -> AgentResult:
    """Convert an agent run to the result of the public API."""
    return AgentResult(
        agent_id=str(stored.id),
        status=stored.status,
        output=stored.output,
        error=stored.error,
        tokens_used=stored.tokens,
        cost=float(stored.spent_usd),
        execution_time=stored.attempt_s or 0.0,
        started_at=stored.started_at,
        completed_at=stored.finished_at,
        retry_count=stored.retries,
        metadata={
            "module": stored.module,
            "provider": stored.provider,
            "model": stored.model,
            "level": stored.level,
            "attempts": stored.attempt,
            "recoveries": stored.recoveries,
        }
        | ({"error_class": stored.error_class} if stored.error_class else {})
        | ({"items": stored.item_count} if stored.item_count is not None else {})
        | ({"run_id": str(stored.sub_run_id)} if stored.sub_run_id else {})
        | ({} if stored.first_token_s is None else {"first_token_s": stored.first_token_s})
        | ({} if stored.finish_reason is None else {"finish_reason": stored.finish_reason}),
    )

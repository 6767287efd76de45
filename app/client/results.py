"""The outcomes of runs: outputs, results of agents, contexts, and workflows with results."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from app.client.runs import Runs
from app.client.transactions import Transactions
from app.client.workflows import Workflows
from app.domain.agent import AgentResult
from app.domain.status import AgentStatus
from app.domain.workflow import Workflow
from app.errors import RunConflict
from app.monitoring.whole_run import Incomplete, read_whole_run
from app.storage.runs import AgentRunRecord


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

    async def outputs(self, run_id: UUID) -> dict[str, Any]:
        """Return, by agent name, the output of every agent that has completed.

        Raises:
            RunConflict: If the outputs were removed (`agentchord prune`).
        """
        if (pruned_at := (await self._runs.read(run_id)).pruned_at) is not None:
            raise RunConflict(f"the outputs of run {run_id} were removed on {pruned_at:%Y-%m-%d}")
        return {
            agent.name: agent.output
            for agent in await self._runs.agents(run_id)
            if agent.status is AgentStatus.COMPLETED and agent.parent_id is None
        }

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

"""The run handle: what ``enqueue`` gives back."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.client.client import Event, process
from app.domain.agent import AgentResult
from app.domain.events import checked_after
from app.domain.run_options import RunOptions
from app.domain.status import AgentStatus, WorkflowStatus
from app.domain.workflow import Workflow
from app.errors import RunConflict, UnknownRun
from app.storage.runs import AgentRunRecord, RunRecord


class Run:
    """One run, wherever it executes; every property reads its current state from Postgres.

    Args:
        id_: Id of the run; any process can make a handle from it.

    Raises:
        UnknownRun: By every method, if there is no such run.
    """

    def __init__(self, id_: str | UUID) -> None:
        self._id = _uuid(id_)

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    @property
    def id(self) -> str:
        """Id of the run."""
        return str(self._id)

    @property
    def status(self) -> WorkflowStatus:
        """Its state."""
        return self.record.status

    @property
    def error(self) -> str | None:
        """Why it failed or was stopped, or None."""
        return self.record.error

    @property
    def cost(self) -> Decimal:
        """Dollars spent so far, failed and retried calls included."""
        return self.record.spent_usd

    @property
    def outputs(self) -> dict[str, Any]:
        """Output by agent name, of the agents that have completed.

        Raises:
            RunConflict: If they were removed (`agentchord prune`).
        """
        if (pruned_at := self.record.pruned_at) is not None:
            raise RunConflict(f"the outputs of run {self.id} were removed on {pruned_at:%Y-%m-%d}")
        return {
            agent.name: agent.output
            for agent in self._agents()
            if agent.status is AgentStatus.COMPLETED and agent.parent_id is None
        }

    @property
    def context(self) -> dict[str, Any]:
        """The run's shared context: its input, and what ``output_mapping`` has added so far.

        Raises:
            RunConflict: If inputs and outputs were removed (`agentchord prune`).
        """
        record = self.record
        workflow = process().loop.run(process().client.workflow(record.workflow_id))
        return workflow.data_flow.context(record.input or {}, self.outputs)

    @property
    def results(self) -> dict[str, AgentResult]:
        """Result by agent name, of all agents, and of the items of a for_each by ``agent[0]``.

        Cost and tokens of an agent with items are those of all of them, so a sum over agents has
        to leave the items out, or the agent.
        """
        return {agent.name: agent_result(agent) for agent in with_items(self._agents())}

    @property
    def record(self) -> RunRecord:
        """All facts of the run as stored."""
        return process().loop.run(process().client.read(self._id))

    def wait(self, timeout: float | None = None) -> WorkflowStatus:
        """Wait until the run has ended.

        Args:
            timeout: Seconds to wait at most; None waits as long as it takes.

        Returns:
            The final state.

        Raises:
            WaitTimeout: (a TimeoutError) if the run is still going; it goes on.
        """
        return process().loop.run(process().client.wait(self._id, timeout)).status

    async def wait_async(self, timeout: float | None = None) -> WorkflowStatus:  # noqa: ASYNC109
        """``wait`` for a caller on an event loop."""
        return (await process().loop.run_async(process().client.wait(self._id, timeout))).status

    def events(self, after: int | None = 0) -> Iterator[Event]:
        """Follow the history until the run has ended, with the text of streaming agents live.

        Events ``agent_text`` are stored nowhere: who comes late gets what is still to come. They
        have the id of the event before them, so that ``after`` never misses an event.

        Args:
            after: Id of the last event already seen; 0 and None start from the beginning.

        Raises:
            ValueError: If ``after`` is no id of an event.
        """
        return process().iterate(process().client.events(self._id, checked_after(after)))

    def cancel(self, reason: str = "cancelled by the user") -> bool:
        """Stop the run; calls in flight are closed, and no call starts after this returns.

        Returns:
            Whether the run was still going; cancelling it twice is harmless.
        """
        return process().loop.run(process().client.cancel(self._id, reason))

    def pause(self) -> bool:
        """Have the run rest until it is resumed; no call starts after this returns.

        Calls in flight go on to their end, and the run's timeout stands still.

        Returns:
            Whether the run was going; pausing it twice is harmless.
        """
        return process().loop.run(process().client.pause(self._id))

    def resume(self) -> bool:
        """Let the paused run go on; returns whether it was paused."""
        return process().loop.run(process().client.resume(self._id))

    def retry_failed(self, cost_budget: float | None = None) -> bool:
        """Run the failed and the cancelled agents of the ended run again; results and costs stay.

        Retries and recoveries are counted anew; ``cost_limit`` and ``cost_budget`` go on counting
        what was spent.

        Args:
            cost_budget: A higher budget for the run, in dollars; None leaves it.

        Returns:
            Whether anything is run again: not if the run is still going, and not if nothing failed.

        Raises:
            RunConflict: If its input has been removed, or the budget would be lowered.
        """
        return process().loop.run(process().client.retry_failed(self._id, cost_budget))

    def rerun(self, agent: str) -> "Run":
        """Run an agent and all that depends on it again, as a new run that takes over the rest.

        As long as such a run is going, asking for it again gives the same one.

        Args:
            agent: Name of the agent from which on it runs again.

        Raises:
            WorkflowError: If the run has no agent of that name.
            RunConflict: If the run is still going, or its input has been removed.
        """
        return Run(process().loop.run(process().client.rerun(self._id, agent)))

    def to_workflow(self) -> Workflow:
        """The workflow this run executes, with status, cost and results filled in."""
        return process().loop.run(finished_workflow(self._id))

    def _agents(self) -> list[AgentRunRecord]:
        return process().loop.run(process().client.agents(self._id))


def enqueue(
    workflow: Workflow,
    input: Mapping[str, Any] | None = None,  # noqa: A002
    *,
    weight: float = 1.0,
    tenant: str | None = None,
    key: str | None = None,
) -> Run:
    """Start a run of a workflow; returns at once, from any Python process.

    Args:
        workflow: What to run; the version given here is stored and used to the end.
        input: JSON object whose keys fill the placeholders of the prompts.
        weight: The run's share of a rate limit, relative to the other runs that wait for it.
        tenant: Whom it is run for: budgets of that tenant count it, and the ledger names it.
        key: A name for the run, such as ``invoice-42``: whoever enqueues with it again, from
            whatever process, gets the same run. A key names one run of the cluster for good.

    Returns:
        A handle of the run.

    Raises:
        WorkflowError: If the input does not fit the workflow, or the weight is not from 0.001 to
            1,000, or the tenant or the key is no name.
        RunConflict: If the run of that key is one of another workflow, input or tenant.
        UnknownModel: If a model has no price.
        ServiceUnavailable: If Postgres cannot be reached; nothing is stored then.
    """
    options = RunOptions(weight=weight, tenant=tenant, key=key)
    return Run(process().loop.run(process().client.enqueue(workflow, input or {}, options)))


async def enqueue_async(
    workflow: Workflow,
    input: Mapping[str, Any] | None = None,  # noqa: A002
    *,
    weight: float = 1.0,
    tenant: str | None = None,
    key: str | None = None,
) -> Run:
    """``enqueue`` for a caller on an event loop, such as a FastAPI route."""
    options = RunOptions(weight=weight, tenant=tenant, key=key)
    enqueued = process().client.enqueue(workflow, input or {}, options)
    return Run(await process().loop.run_async(enqueued))


async def finished_workflow(run_id: UUID) -> Workflow:
    """The workflow of a run with the outcome filled in; runs on the background loop."""
    client = process().client
    record = await client.read(run_id)
    workflow = await client.workflow(record.workflow_id)
    workflow.status = record.status
    workflow.total_cost = float(record.spent_usd)
    for stored in with_items(await client.agents(run_id)):
        if stored.parent_id is not None:
            continue
        agent = workflow.get_agent_by_name(stored.name)
        assert agent is not None, "agent runs are made from the workflow's agents"
        agent.status = stored.status
        agent.result = agent_result(stored)
    return workflow


def with_items(agents: Sequence[AgentRunRecord]) -> list[AgentRunRecord]:
    """Agent runs, those with items with what the items have cost and used."""
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


def agent_result(stored: AgentRunRecord) -> AgentResult:
    """An agent run as the API shows it."""
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
        | ({} if stored.first_token_s is None else {"first_token_s": stored.first_token_s}),
    )


def _uuid(id_: str | UUID) -> UUID:
    try:
        return id_ if isinstance(id_, UUID) else UUID(id_)
    except ValueError as error:
        raise UnknownRun(f"{id_!r} is not the id of a run: see `agentchord runs`") from error

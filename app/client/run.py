"""The run handle: what ``enqueue`` returns."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.client.history import Event
from app.client.process import process
from app.domain.agent import AgentResult
from app.domain.events import checked_after
from app.domain.run_options import RunOptions
from app.domain.status import WorkflowStatus
from app.domain.workflow import Workflow
from app.errors import UnknownRun
from app.storage.runs import RunRecord


class Run:
    """One run, wherever it executes; every property reads its current state from Postgres.

    Methods block their thread, and each property is a query of its own: code on an event loop
    waits with ``wait_async``, and a program that follows many runs reads the events of all of
    them from one ``EventBus``.

    Args:
        id_: Id of the run; any process can make a handle from it.

    Raises:
        UnknownRun: By every method, if there is no such run.

    Example:
        run = enqueue(workflow, {"topic": "tides"})
        if run.wait(timeout=60) == "completed":
            print(run.outputs["writer"], run.cost)
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
        """State of the run."""
        return self.record.status

    @property
    def error(self) -> str | None:
        """Why the run failed or was stopped, or None."""
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
        return process().loop.run(process().client.results.outputs(self._id))

    @property
    def context(self) -> dict[str, Any]:
        """The run's shared context: its input, and what ``output_mapping`` has added so far.

        Raises:
            RunConflict: If inputs and outputs were removed (`agentchord prune`).
        """
        return process().loop.run(process().client.results.context(self._id))

    @property
    def results(self) -> dict[str, AgentResult]:
        """Result by agent name, of all agents, and of the items of a for_each by ``agent[0]``.

        Cost and tokens of an agent with items are those of all items, so a sum over agents has
        to leave out the items, or the agent.
        """
        return process().loop.run(process().client.results.by_agent(self._id))

    @property
    def record(self) -> RunRecord:
        """All facts of the run as stored."""
        return process().loop.run(process().client.runs.read(self._id))

    def wait(self, timeout: float | None = None) -> WorkflowStatus:
        """Wait until the run has ended.

        Args:
            timeout: Seconds to wait at most; None waits as long as it takes.

        Returns:
            The final state.

        Raises:
            WaitTimeout: (a TimeoutError) if the run is still going; it goes on.
        """
        return process().loop.run(process().client.runs.wait(self._id, timeout)).status

    async def wait_async(self, timeout: float | None = None) -> WorkflowStatus:  # noqa: ASYNC109
        """Do the same as ``wait``, for a caller on an event loop."""
        return (
            await process().loop.run_async(process().client.runs.wait(self._id, timeout))
        ).status

    def events(self, after: int | None = 0) -> Iterator[Event]:
        """Follow the history until the run has ended, with the text of streaming agents live.

        Events ``agent_text`` are stored nowhere: a late caller gets only those still to come. They
        have the id of the event before them, so that ``after`` never misses an event.

        Args:
            after: Id of the last event already seen; 0 and None start from the beginning.

        Raises:
            ValueError: If ``after`` is no id of an event.
        """
        return process().iterate(process().client.history.events(self._id, checked_after(after)))

    def cancel(self, reason: str = "cancelled by the user") -> bool:
        """Stop the run; calls in flight are closed, and no call starts after this returns.

        Returns:
            Whether the run was still going; cancelling it twice is harmless.
        """
        return process().loop.run(process().client.control.cancel(self._id, reason))

    def pause(self) -> bool:
        """Pause the run until it is resumed; no call starts after this returns.

        Calls in flight go on to their end, and the run's timeout stands still.

        Returns:
            Whether the run was going; pausing it twice is harmless.
        """
        return process().loop.run(process().client.control.pause(self._id))

    def resume(self) -> bool:
        """Let the paused run go on; return whether it was paused."""
        return process().loop.run(process().client.control.resume(self._id))

    def retry_failed(self, cost_budget: float | None = None) -> bool:
        """Run the failed and the cancelled agents of the ended run again; results and costs stay.

        Retries and recoveries are counted anew; what was spent still counts on ``cost_limit`` and
        ``cost_budget``.

        Args:
            cost_budget: A higher budget for the run, in dollars; None leaves it.

        Returns:
            Whether anything is run again: not if the run is still going, and not if nothing failed.

        Raises:
            RunConflict: If its input has been removed, or the budget would be lowered.
        """
        return process().loop.run(process().client.control.retry_failed(self._id, cost_budget))

    def rerun(self, agent: str) -> "Run":
        """Run an agent and all that depends on it again, as a new run that takes over the rest.

        As long as such a run is going, another call returns the same one.

        Args:
            agent: Name of the first agent to run again.

        Raises:
            WorkflowError: If the run has no agent of that name.
            RunConflict: If the run is still going, or its input has been removed.
        """
        return Run(process().loop.run(process().client.control.rerun(self._id, agent)))

    def to_workflow(self) -> Workflow:
        """Return the workflow this run executes, with status, cost and results filled in."""
        return process().loop.run(process().client.results.workflow(self._id))


def enqueue(
    workflow: Workflow,
    input: Mapping[str, Any] | None = None,  # noqa: A002
    *,
    weight: float = 1.0,
    tenant: str | None = None,
    key: str | None = None,
) -> Run:
    """Start a run of a workflow; return at once, from any Python process.

    Args:
        workflow: What to run; the version given here is stored and used to the end.
        input: JSON object whose keys fill the placeholders of the prompts.
        weight: The run's share of a rate limit, relative to the other runs that wait for it.
        tenant: The tenant it is run for: its budgets count the run, and the ledger names it.
        key: A name for the run, such as ``invoice-42``: enqueueing with it again, from any
            process, returns the same run. A key names one run of the cluster for good.

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
    return Run(process().loop.run(process().client.runs.enqueue(workflow, input or {}, options)))


async def enqueue_async(
    workflow: Workflow,
    input: Mapping[str, Any] | None = None,  # noqa: A002
    *,
    weight: float = 1.0,
    tenant: str | None = None,
    key: str | None = None,
) -> Run:
    """Do the same as ``enqueue``, for a caller on an event loop, such as a FastAPI route."""
    options = RunOptions(weight=weight, tenant=tenant, key=key)
    enqueued = process().client.runs.enqueue(workflow, input or {}, options)
    return Run(await process().loop.run_async(enqueued))


def _uuid(id_: str | UUID) -> UUID:
    try:
        return id_ if isinstance(id_, UUID) else UUID(id_)
    except ValueError as error:
        raise UnknownRun(f"{id_!r} is not the id of a run: see `agentchord runs`") from error

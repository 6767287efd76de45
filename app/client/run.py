"""The run handle, which ``enqueue`` returns."""

import asyncio
import inspect
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from app.client.client import Client
from app.client.history import Event
from app.client.process import process
from app.client.results import RunState, models_of
from app.domain.agent import AgentResult
from app.domain.events import checked_after
from app.domain.money import readable
from app.domain.run_filter import RunFilter
from app.domain.run_options import RunOptions
from app.domain.status import WorkflowStatus
from app.domain.workflow import Workflow
from app.errors import UnknownRun
from app.monitoring.whole_run import Incomplete
from app.storage.runs import RunRecord

if TYPE_CHECKING:
    from pydantic import BaseModel

    from app.client.results import Models

Result = TypeVar("Result")

HERE = Path(__file__).parent
BLOCKS_LOOP = (
    "this waits for Postgres and meanwhile blocks the event loop: use enqueue_async, `await "
    "run.wait_async()`, `await run.state()` or `async for event in run.aevents()`; call any other "
    "method with `await asyncio.to_thread(...)`"
)


class Run:
    """A handle of one run; every property reads the run's current state from Postgres.

    The properties and most methods block the thread of the caller. On an event loop, they warn with
    a RuntimeWarning. Code on a loop uses ``await run.wait_async()``, ``await run.state()`` and
    ``async for event in run.aevents()``. A program that follows many runs reads the events of all
    runs from one ``EventBus``.

    Args:
        id_: Id of the run; any process can make a handle from the id.
        models: The pydantic models of the agents' outputs, by agent name. ``enqueue`` takes the
            models from the workflow.

    Raises:
        UnknownRun: If there is no such run; every method may raise this error.

    Example:
        run = enqueue(workflow, {"topic": "tides"})
        if run.wait(timeout=60) == "completed":
            print(run.outputs["writer"], run.cost)
    """

    def __init__(self, id_: str | UUID, models: "Models | None" = None) -> None:
        self._id = run_uuid(id_)
        self._models = models or {}

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
        """The reason why the run failed or was stopped; None if there is no such reason."""
        return self.record.error

    @property
    def cost(self) -> Decimal:
        """Dollars that the run has spent so far, including failed and retried calls."""
        return readable(self.record.spent_usd)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the run, with the default labels of its workflow."""
        return dict(self.record.labels)

    @property
    def outputs(self) -> dict[str, Any]:
        """Outputs of the agents that have completed, by agent name.

        Raises:
            RunConflict: If the outputs were removed (`agentchord prune`).
        """
        return blocking(lambda client: client.results.outputs(self._id))

    @property
    def context(self) -> dict[str, Any]:
        """The run's shared context: the run's input, and the values of ``output_mapping`` so far.

        Raises:
            RunConflict: If inputs and outputs were removed (`agentchord prune`).
        """
        return blocking(lambda client: client.results.context(self._id))

    @property
    def results(self) -> dict[str, AgentResult]:
        """Results of all agents by name, and of the items of a for_each as ``agent[0]``.

        The result of an agent with items includes the cost and the tokens of all its items. So a
        sum over all results must leave out either the items or that agent.
        """
        return blocking(lambda client: client.results.by_agent(self._id))

    def incomplete(self) -> tuple[Incomplete, ...]:
        """Return everything inside the run that ended without its whole result.

        These are the agents, the elements of lists and the agents of sub-workflows that failed,
        were cancelled, were skipped, or completed only in part. While the run is going, only the
        agent runs that have ended are returned.

        Example:
            for each in run.incomplete():
                print(each.path, each.outcome, each.error)  # handled[20]/draft failed ...
        """
        return blocking(lambda client: client.results.incomplete(self._id))

    @property
    def record(self) -> RunRecord:
        """The stored record of the run, with all facts."""
        return blocking(lambda client: client.runs.read(self._id))

    def result(self, agent: str, model: "type[BaseModel] | None" = None) -> Any:
        """Return the output of an agent, as an object of a pydantic model if there is one.

        Args:
            agent: Name of the agent, or of an item of a for_each, such as ``triage[3]``.
            model: Model of the output. None means the agent's ``output_schema``, if that was a
                model and ``enqueue`` made this handle.

        Returns:
            The output. With a model, the output of an agent with a for_each is a list of objects,
            with None for each item that has no output.

        Raises:
            WorkflowError: If the run has no such agent.
            RunConflict: If the agent has no output, or if the outputs were removed.
            OutputInvalid: If the output does not fit the model.

        Example:
            ticket = run.result("triage")  # Agent("triage", ..., output_schema=Ticket)
            print(ticket.category)
        """
        state = blocking(lambda client: client.results.state(self._id, self._models))
        return state.result(agent, model)

    async def state(self) -> RunState:
        """Return the run's state at this moment: the status, the cost and the results so far."""
        return await process().run_async(
            lambda client: client.results.state(self._id, self._models)
        )

    def wait(self, timeout: float | None = None) -> WorkflowStatus:
        """Wait until the run has ended.

        Args:
            timeout: Maximum number of seconds to wait; None means no limit.

        Returns:
            The final state.

        Raises:
            WaitTimeout: If the run has not ended after ``timeout`` seconds; the run then goes on.
                This is a TimeoutError.
        """
        return blocking(lambda client: client.runs.wait(self._id, timeout))

    async def wait_async(self, timeout: float | None = None) -> WorkflowStatus:  # noqa: ASYNC109
        """Do the same as ``wait``, for a caller on an event loop."""
        return await process().run_async(lambda client: client.runs.wait(self._id, timeout))

    def events(self, after: int | None = 0) -> Iterator[Event]:
        """Follow the run's history and the live texts of streaming agents, until the run has ended.

        Events ``agent_text`` are not stored, so a late caller gets only the later texts. An event
        ``agent_text`` has the id of the last stored event. So a caller that continues ``after`` any
        id misses no stored event.

        Args:
            after: Id of the last event already seen; 0 and None start from the beginning.

        Raises:
            ValueError: If ``after`` is not the id of an event.
        """
        last_seen = checked_after(after)
        _warn_on_loop()
        return process().iterate(lambda client: client.history.events(self._id, last_seen))

    def aevents(self, after: int | None = 0) -> AsyncGenerator[Event, None]:
        """Do the same as ``events``, for a caller on an event loop: ``async for event in ...``."""
        last_seen = checked_after(after)
        return process().iterate_async(lambda client: client.history.events(self._id, last_seen))

    def cancel(self, reason: str = "cancelled by the user") -> bool:
        """Stop the run; calls in flight are closed, and no new call starts.

        Returns:
            Whether the run was still going; a second call is harmless.
        """
        return blocking(lambda client: client.control.cancel(self._id, reason))

    def pause(self) -> bool:
        """Pause the run until it is resumed.

        After this method has returned, no call starts. Calls in flight finish, and the clock of
        the run's timeout stops.

        Returns:
            Whether the run was going; a second call is harmless.
        """
        return blocking(lambda client: client.control.pause(self._id))

    def resume(self) -> bool:
        """Continue the paused run; return whether the run was paused."""
        return blocking(lambda client: client.control.resume(self._id))

    def retry_failed(self, cost_budget: float | None = None, *, agent: str | None = None) -> bool:
        """Repair the ended run: repeat what failed, was cancelled or completed in part.

        Agents that read a repaired output run again if the output has changed. All other results
        and all costs stay. The counts of retries and recoveries start from zero. The money that was
        spent before the retry still uses up ``cost_limit`` and ``cost_budget``.

        Args:
            cost_budget: A higher budget for the run, in dollars; None keeps the budget.
            agent: The only agent, or item such as ``"handled[20]"``, to repair; None repairs all.

        Returns:
            Whether any agent runs again; False if the run is still going or has nothing to retry.

        Raises:
            WorkflowError: If the run has no such agent or item.
            RunConflict: If the run's input has been removed, or if the budget would be lowered.
        """
        return blocking(
            lambda client: client.control.retry_failed(self._id, cost_budget, agent=agent)
        )

    def rerun(self, agent: str) -> "Run":
        """Start a new run that repeats an agent and all agents that depend on this agent.

        The new run takes over the results of the other agents. While the new run is going, another
        call with the same agent returns this new run.

        With the name of an item, such as ``"handled[20]"``, only this item of the list runs again,
        and then the agents that read a changed output.

        Args:
            agent: Name of the first agent to run again, or of an item.

        Raises:
            WorkflowError: If the run has no agent or item of that name.
            RunConflict: If the run is still going, or if the run's input has been removed.
        """
        run_id = blocking(lambda client: client.control.rerun(self._id, agent))
        return Run(run_id, self._models)

    def to_workflow(self) -> Workflow:
        """Return the workflow of this run, with the run's status, cost and results."""
        return blocking(lambda client: client.results.workflow(self._id))


def enqueue(
    workflow: Workflow,
    input: Mapping[str, Any] | None = None,  # noqa: A002
    *,
    weight: float = 1.0,
    tenant: str | None = None,
    key: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Run:
    """Start a run of a workflow from any Python process, and return at once.

    Args:
        workflow: The workflow to run. This version of the workflow is stored, and the run uses this
            version until the run ends.
        input: JSON object; the keys of the object fill the placeholders of the prompts.
        weight: The run's share of a rate limit, relative to other runs that wait for that limit.
        tenant: The tenant of the run. The costs of the run are booked on the tenant's budgets. The
            ledger names the tenant.
        key: A name for the run, such as ``invoice-42``. If any process calls ``enqueue`` with the
            same key again, the call returns the same run. A key names one run of the cluster
            forever.
        labels: Texts by key, such as ``{"team": "claims"}``, by which lists and reports of runs are
            filtered. They override the labels of the workflow. An existing run with the same key
            keeps its labels.

    Returns:
        A handle of the run.

    Raises:
        WorkflowError: If the input does not fit the workflow, if the weight is not from 0.001 to
            1,000, or if the tenant, the key or a label is not valid.
        RunConflict: If the run with that key has another workflow, input or tenant.
        UnknownModel: If a model has no price.
        ServiceUnavailable: If Postgres cannot be reached; in this case nothing is stored.
    """
    options = RunOptions(weight=weight, tenant=tenant, key=key, labels=labels or {})
    run_id = blocking(lambda client: client.runs.enqueue(workflow, input or {}, options))
    return Run(run_id, models_of(workflow))


async def enqueue_async(
    workflow: Workflow,
    input: Mapping[str, Any] | None = None,  # noqa: A002
    *,
    weight: float = 1.0,
    tenant: str | None = None,
    key: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Run:
    """Do the same as ``enqueue``, for a caller on an event loop, such as a FastAPI route."""
    options = RunOptions(weight=weight, tenant=tenant, key=key, labels=labels or {})
    run_id = await process().run_async(
        lambda client: client.runs.enqueue(workflow, input or {}, options)
    )
    return Run(run_id, models_of(workflow))


def list_runs(
    status: WorkflowStatus | str | None = None,
    *,
    limit: int = 20,
    tenant: str | None = None,
    workflow: str | None = None,
    labels: Mapping[str, str | None] | None = None,
) -> Sequence[RunRecord]:
    """Return the newest runs, without the runs of sub-workflows and without inputs.

    Args:
        status: State of the runs; None means any state.
        limit: Largest number of runs.
        tenant: The only tenant.
        workflow: Name of the only workflow.
        labels: Labels that the runs have; None as a value stands for any value.

    Raises:
        ValueError: If there is no such state.
        WorkflowError: If no run can have such a label. This is a ValueError.

    Example:
        for record in list_runs("failed", labels={"batch": "2026-11"}):
            print(record.id, record.labels, record.error)
    """
    wanted = None if status is None else WorkflowStatus(status)
    only = RunFilter(tenant=tenant, workflow=workflow, labels=labels or {})
    return blocking(lambda client: client.runs.list(wanted, limit, only))


def blocking(step: Callable[[Client], Awaitable[Result]]) -> Result:
    """Run a step of the client, and wait for its result."""
    _warn_on_loop()
    return process().run(step)


def _warn_on_loop() -> None:
    """Warn if the caller is on an event loop; name the line of the caller's code."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    level, frame = 1, inspect.currentframe()
    while frame is not None and Path(frame.f_code.co_filename).parent == HERE:
        level, frame = level + 1, frame.f_back
    warnings.warn(BLOCKS_LOOP, RuntimeWarning, stacklevel=level)


def run_uuid(id_: str | UUID) -> UUID:
    """Return the id of a run as a UUID.

    Raises:
        UnknownRun: If no run can have this id.
    """
    try:
        return id_ if isinstance(id_, UUID) else UUID(id_)
    except ValueError as error:
        raise UnknownRun(f"{id_!r} is not the id of a run: see `agentchord runs`") from error

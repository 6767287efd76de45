"""Runs within a scope: enqueue, read, list and wait, with the one check of that scope."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import Platform
from app.client.acceptance import Acceptance
from app.client.enqueues import Enqueues, Wanted
from app.client.transactions import Transactions
from app.client.waiting import Waiting
from app.domain.run_filter import EVERY_RUN, RunFilter
from app.domain.run_options import RunOptions
from app.domain.scope import Scope
from app.domain.status import WorkflowStatus
from app.domain.workflow import Workflow
from app.errors import UnknownRun
from app.storage import run_lists, runs
from app.storage.group_commit import Batches, GroupCommit
from app.storage.runs import AgentRunRecord, RunRecord


class Runs:
    """The runs of one scope.

    ``read`` checks the scope. The check is a condition of the SQL statement, so another tenant's
    run is treated like a run that does not exist. Every other method that takes the id of a run,
    here and in the other subjects, first calls ``read``. Only ``wait`` and ``wait_all`` read less,
    with the same condition. One check is enough, because a run never changes its tenant.

    If callers of the same scope call at the same time, these callers share statements and commits.
    Examples are a hundred threads that enqueue runs, or a hundred threads that wait for runs.
    Callers of different scopes share nothing.

    Args:
        platform: The process's platform.
        scope: The scope of the runs.
        transactions: The object that runs transactions in Postgres.
        acceptance: The object that accepts or refuses workflows.
    """

    def __init__(
        self, platform: Platform, scope: Scope, transactions: Transactions, acceptance: Acceptance
    ) -> None:
        self._platform = platform
        self._scope = scope
        self._transactions = transactions
        self._enqueues = Enqueues(platform, scope, transactions, acceptance)
        self._waiting = Waiting(platform, transactions, tenant=scope.tenant)
        look = partial(_look, tenant=scope.tenant)
        self._reads: Batches[UUID, RunRecord | None] = Batches(
            lambda ids: transactions.run(partial(look, run_ids=ids)), name="read"
        )
        self._looks: GroupCommit[UUID, RunRecord | None] = GroupCommit(
            platform.engine, look, name="look"
        )

    async def enqueue(
        self,
        workflow: Workflow,
        input_: Mapping[str, Any],
        options: RunOptions = RunOptions(),  # noqa: B008  immutable
    ) -> UUID:
        """Store a run, ask the scheduler to admit the run, and return the run's id.

        If a run with the key in ``options`` exists already, the method returns the id of that run.

        Raises:
            WorkflowError: If the input does not fit the workflow, if no provider serves an agent,
                or if an agent's model does not accept a parameter. This error is also raised if an
                agent's kind is not known here, if the kind refuses the agent's settings, if the
                tenant's name looks like another name, or if there are too many labels.
            RunConflict: If the run with that key has another workflow, input or tenant.
            OutOfScope: If the options name a tenant that is not the tenant of the scope.
            UnknownModel: If a model has no price.
            ServiceUnavailable: If Postgres cannot be reached; in this case nothing is stored.
        """
        wanted = Wanted(workflow=workflow, input=input_, options=options)
        return await self._enqueues.one(wanted)

    async def enqueue_many(self, wanted: Sequence[Wanted]) -> Sequence[UUID]:
        """Store all of the runs, or none of them, and return their ids in order.

        One transaction writes all of the runs. A run whose key exists already is not written again,
        and its place in the result has the id of the existing run.

        Raises:
            WorkflowError: If there is any mistake in a workflow, an input or an option. The error
                names all mistakes, each with the place of its run. The mistakes of a workflow that
                several runs share are named once, at the first of these runs. A key that two runs
                of the list have is a mistake.
            RunConflict: As in ``enqueue``.
            OutOfScope: As in ``enqueue``.
            UnknownModel: If the only mistake is a model without a price.
            ServiceUnavailable: If Postgres cannot be reached; in this case nothing is stored. If
                the connection is lost during the commit, either all of the runs are stored, or none
                of them.
        """
        return await self._enqueues.many(wanted)

    async def read(self, run_id: UUID, *, patiently: bool = False) -> RunRecord:
        """Return the current record of a run.

        Args:
            run_id: The run.
            patiently: Whether to wait for Postgres while Postgres cannot be reached.

        Raises:
            UnknownRun: If the scope has no such run.
            ServiceUnavailable: If Postgres cannot be reached, unless ``patiently`` is true.
        """
        found = await (self._looks if patiently else self._reads).submit(run_id)
        if found is None:
            raise UnknownRun(f"no run has the id {str(run_id)!r}: see `agentchord runs`")
        return found

    async def agents(self, run_id: UUID) -> Sequence[AgentRunRecord]:
        """Return the agent runs of a run, in the order of the run's workflow.

        Raises:
            UnknownRun: If the scope has no such run.
        """
        await self.read(run_id)
        return await self._transactions.run(partial(runs.read_agent_runs, run_id=run_id))

    async def list(
        self,
        status: WorkflowStatus | None = None,
        limit: int = 20,
        only: RunFilter = EVERY_RUN,
    ) -> Sequence[RunRecord]:
        """Return the newest runs of the scope, without the runs of sub-workflows.

        Args:
            status: State of the runs; None means any state.
            limit: Largest number of runs.
            only: Tenant, workflow and labels of the runs. The runs of a tenant outside the scope
                are treated like runs that do not exist.
        """
        tenant = self._scope.tenant
        return await self._transactions.run(
            partial(run_lists.list_runs, status=status, limit=limit, tenant=tenant, only=only)
        )

    async def wait(self, run_id: UUID, timeout_s: float | None) -> WorkflowStatus:
        """Wait until a run has ended; return its final state.

        While Postgres cannot be reached, this method waits for Postgres as well, except at first.

        Raises:
            UnknownRun: If the scope has no such run.
            WaitTimeout: If the time is over before the run has ended; the run goes on.
        """
        return (await self.wait_all([run_id], timeout_s))[0]

    async def wait_all(
        self, run_ids: Sequence[UUID], timeout_s: float | None
    ) -> Sequence[WorkflowStatus]:
        """Wait until all of the runs have ended; return their final states in order.

        Raises:
            UnknownRun: If the scope has no such run.
            WaitTimeout: If the time is over before all runs have ended; the runs go on.
        """
        states = await self._waiting.wait(run_ids, timeout_s)
        return [states[run_id] for run_id in run_ids]


async def _look(
    connection: AsyncConnection, run_ids: Sequence[UUID], *, tenant: str | None
) -> list[RunRecord | None]:
    found = {run.id: run for run in await runs.read_runs(connection, run_ids, tenant=tenant)}
    return [found.get(run_id) for run_id in run_ids]

"""Runs within a scope: enqueue, read, list and wait, with the one check of that scope."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import Platform
from app.client.acceptance import Acceptance
from app.client.transactions import Transactions
from app.domain.labels import merged_labels
from app.domain.run_filter import EVERY_RUN, RunFilter
from app.domain.run_options import RunOptions
from app.domain.scope import Scope
from app.domain.status import WorkflowStatus
from app.domain.workflow import Workflow
from app.errors import UnknownRun, WaitTimeout
from app.storage import new_runs, run_lists, runs
from app.storage.group_commit import Batches, GroupCommit
from app.storage.runs import AgentRunRecord, RunRecord

POLL_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """A run that is to be enqueued."""

    workflow: Workflow
    input: Mapping[str, Any]
    options: RunOptions


class Runs:
    """The runs of one scope.

    ``read`` checks the scope. The check is a condition of the SQL statement, so another tenant's
    run is treated like a run that does not exist. Every other method that takes the id of a run,
    here and in the other subjects, first calls ``read``. One check is enough, because a run never
    changes its tenant.

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
        self._acceptance = acceptance
        look = partial(_look, tenant=scope.tenant)
        self._enqueues: Batches[_Wanted, UUID] = Batches(
            lambda wanted: transactions.run(partial(self._create, wanted=wanted)),
            name="enqueue",
            key=lambda wanted: wanted.options.key or id(wanted),
        )
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
        options = replace(
            options,
            tenant=self._scope.tenant_of_new_run(options.tenant),
            labels=merged_labels(workflow.labels, options.labels),
        )
        options.check_tenant()
        await self._acceptance.check_input(workflow, input_, options.tenant)
        wanted = _Wanted(workflow=workflow, input=input_, options=options)
        run_id = await self._enqueues.submit(wanted)
        await self._platform.scheduler.ask_for_admission(run_id)
        return run_id

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

    async def wait(self, run_id: UUID, timeout_s: float | None) -> RunRecord:
        """Wait until a run has ended.

        While Postgres cannot be reached, this method waits for Postgres as well.

        Raises:
            UnknownRun: If the scope has no such run.
            WaitTimeout: If the time is over before the run has ended; the run goes on.
        """
        if (found := await self.read(run_id)).status.is_final:
            return found
        try:
            async with asyncio.timeout(timeout_s), self._platform.signals.watching(run_id) as news:
                while not (found := await self.read(run_id, patiently=True)).status.is_final:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(news.wait(), POLL_S)
                    news.clear()
                return found
        except TimeoutError as error:
            raise WaitTimeout(
                f"run {run_id} has not ended after {timeout_s:g} s; the run goes on, so you can "
                "wait for it again"
            ) from error

    async def _create(
        self, connection: AsyncConnection, wanted: Sequence[_Wanted]
    ) -> Sequence[UUID]:
        known: dict[int, tuple[Workflow, Sequence[Mapping[str, Any]]]] = {}
        for each in wanted:
            if id(each.workflow) in known:
                continue
            whole = await self._acceptance.accept(connection, each.workflow, self._scope)
            known[id(each.workflow)] = whole, new_runs.agent_rows(whole)
        stored = await runs.store_workflows(connection, [whole for whole, _ in known.values()])
        workflow_ids = dict(zip(known, stored, strict=True))
        new = [
            new_runs.NewRun(
                workflow=known[id(each.workflow)][0],
                workflow_id=workflow_ids[id(each.workflow)],
                agents=known[id(each.workflow)][1],
                input=each.input,
                options=each.options,
            )
            for each in wanted
        ]
        thresholds = self._platform.settings.engine.budget_thresholds
        return await new_runs.create_runs(connection, new, thresholds, tenant=self._scope.tenant)


async def _look(
    connection: AsyncConnection, run_ids: Sequence[UUID], *, tenant: str | None
) -> list[RunRecord | None]:
    found = {run.id: run for run in await runs.read_runs(connection, run_ids, tenant=tenant)}
    return [found.get(run_id) for run_id in run_ids]

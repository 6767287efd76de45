"""Registers and reads stored workflows."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.client.acceptance import Acceptance
from app.client.runs import Runs
from app.client.transactions import Transactions
from app.domain.loaded import Loaded
from app.domain.scope import Scope
from app.domain.workflow import Workflow
from app.errors import UnknownWorkflow
from app.storage import runs
from app.storage.worker_loads import read_live


class Workflows:
    """Registers and reads stored workflows.

    A stored workflow has no tenant. Workflows with equal content share one id. So neither the id
    nor the name proves that a tenant is allowed to see a workflow. Therefore, within the scope of a
    tenant, a workflow is read only through a run of that tenant (``of_run``).

    Args:
        scope: The scope of the workflows.
        transactions: The object that runs transactions in Postgres.
        acceptance: The object that accepts or refuses workflows.
        runs_: The runs of the scope.
    """

    def __init__(
        self, scope: Scope, transactions: Transactions, acceptance: Acceptance, runs_: Runs
    ) -> None:
        self._scope = scope
        self._transactions = transactions
        self._acceptance = acceptance
        self._runs = runs_

    async def register(self, workflow: Workflow) -> UUID:
        """Store a workflow and return its id; equal content keeps the same id.

        If a sub-workflow is given only by its name, the current version of the sub-workflow is
        stored with the workflow.

        Raises:
            WorkflowError: If the workflow is not acceptable; see ``Acceptance.complete``.
            OutOfScope: If a tenant's workflow refers to a sub-workflow only by the sub-workflow's
                name.
        """

        async def store(connection: AsyncConnection) -> UUID:
            whole = await self._acceptance.complete(connection, workflow, self._scope)
            return await runs.store_workflow(connection, whole)

        return await self._transactions.run(store)

    async def check(self, workflow: Workflow, run_input: Mapping[str, Any]) -> Workflow:
        """Make all checks that are possible before a run, and store nothing.

        In contrast to ``runs.enqueue``, a workflow is also refused if an agent names a tool, a
        function or a kind that no live worker of the agent's queue loads. A queue without a live
        worker is not judged, because its workers may come later.

        Returns:
            The workflow, with its providers and sub-workflows filled in.

        Raises:
            WorkflowError: If there are mistakes; all of them are in one error.
            UnknownModel: If the only mistake is a model without a price.
            OutOfScope: If a tenant's workflow refers to a sub-workflow only by the sub-workflow's
                name.
        """

        async def checked(connection: AsyncConnection) -> Workflow:
            return await self._acceptance.check_before_run(
                connection, workflow, run_input, self._scope
            )

        return await self._transactions.run(checked)

    async def live_workers(self) -> Sequence[Loaded]:
        """Return the names of the tools, functions and kinds that the live workers load."""
        return await self._transactions.run(read_live)

    async def read(self, workflow_id: UUID) -> Workflow:
        """Return a stored workflow.

        Raises:
            UnknownWorkflow: If no workflow has the id.
            OutOfScope: If the scope is a tenant.
        """
        self._scope.check_all("stored workflows belong to no tenant (read the workflow of a run)")
        return await self._read(workflow_id)

    async def of_run(self, run_id: UUID) -> Workflow:
        """Return the workflow that a run executes.

        Raises:
            UnknownRun: If the scope has no such run.
        """
        return await self._read((await self._runs.read(run_id)).workflow_id)

    async def _read(self, workflow_id: UUID) -> Workflow:
        found = await self._transactions.run(partial(runs.read_workflow, id_=workflow_id))
        if found is None:
            raise UnknownWorkflow(f"no workflow has the id {str(workflow_id)!r}")
        return found

"""Stored workflows: registered, and read."""

from functools import partial
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.client.acceptance import Acceptance
from app.client.runs import Runs
from app.client.transactions import Transactions
from app.domain.scope import Scope
from app.domain.workflow import Workflow
from app.errors import UnknownWorkflow
from app.storage import runs


class Workflows:
    """Workflows as stored.

    A stored workflow carries no tenant, and equal contents share one id. So within a tenant's
    scope a workflow is read only as that of one of the tenant's runs (``of_run``): neither its id
    nor its name shows that the tenant may see it.

    Args:
        scope: Whose workflows.
        transactions: Reach Postgres.
        acceptance: Accepts workflows.
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
        """Store a workflow; the same content keeps its id.

        Sub-workflows that are only named are stored with it, as they are now.

        Raises:
            WorkflowError: If it is not acceptable; see ``Acceptance.complete``.
            OutOfScope: If a tenant's workflow only names a sub-workflow.
        """

        async def store(connection: AsyncConnection) -> UUID:
            whole = await self._acceptance.complete(connection, workflow, self._scope)
            return await runs.store_workflow(connection, whole)

        return await self._transactions.run(store)

    async def read(self, workflow_id: UUID) -> Workflow:
        """Return a stored workflow.

        Raises:
            UnknownWorkflow: If no workflow has the id.
            OutOfScope: If the scope is a tenant.
        """
        self._scope.check_all("stored workflows are no tenant's: read the one of a run")
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

"""Runs and workflows by id, read once per process."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.workflow import Workflow
from app.sandbox.turns import Turn
from app.storage.fetch import fetch
from app.storage.group_commit import GroupCommit
from app.storage.runs import read_workflow

MAX_WORKFLOWS = 256

READ: TextClause = text("""
    SELECT r.id, r.workflow_id, w.version, r.tenant, r.weight, r.input, r.ancestors
    FROM runs r JOIN workflows w ON w.id = r.workflow_id WHERE r.id = ANY(CAST(:ids AS uuid[]))
""")


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """The facts of a run that all agents of the run share."""

    run_id: UUID
    workflow_id: UUID
    workflow: Workflow
    version: int
    tenant: str | None
    input: Mapping[str, Any]
    weight: float
    ancestors: tuple[UUID, ...] = ()

    @property
    def budget_ids(self) -> tuple[UUID, ...]:
        """The ids of the budgets of the run and of its outer runs.

        The budget of a run has the run's id. Standing budgets are not listed, because the database
        finds standing budgets for each hold.
        """
        return (self.run_id, *self.ancestors)

    @cached_property
    def steps_with_records(self) -> bool:
        """Whether the last record of a level may advance the run in the same transaction.

        The end of an inner run also locks agents of its outer run, and would do so after budgets.
        The step after a list collects the list's outputs, and other records would wait meanwhile.
        """
        return not self.ancestors and not any(agent.for_each for agent in self.workflow.agents)

    @property
    def turn(self) -> Turn:
        """The run's turn in the sandbox."""
        return Turn(self.tenant, self.run_id)


class RunContexts:
    """Reads runs in batches, and keeps the most recently used workflows.

    Its weakness: it keeps 256 workflows of any size, so very large workflows take much memory. Runs
    are not kept, because their inputs may be large; each lane reads its run.

    Args:
        engine: The process's engine.

    Example:
        run = await contexts.get(run_id)
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._workflows: OrderedDict[UUID, Workflow] = OrderedDict()
        self._reads: GroupCommit[UUID, RunContext | None] = GroupCommit(
            engine, self.read, name="read_runs", key=lambda run_id: run_id
        )

    async def get(self, run_id: UUID) -> RunContext | None:
        """Return the context of a run, or None if there is no such run."""
        return await self._reads.submit(run_id)

    async def read(
        self, connection: AsyncConnection, run_ids: Sequence[UUID]
    ) -> list[RunContext | None]:
        """Read runs inside a transaction; the result has None for a run that does not exist."""
        contexts: dict[UUID, RunContext] = {}
        for row in await fetch(connection, READ, {"ids": list(run_ids)}):
            contexts[row.id] = RunContext(
                run_id=row.id,
                workflow_id=row.workflow_id,
                workflow=await self._workflow(connection, row.workflow_id),
                version=row.version,
                tenant=row.tenant,
                input=row.input,
                weight=row.weight,
                ancestors=tuple(row.ancestors),
            )
        return [contexts.get(run_id) for run_id in run_ids]

    async def _workflow(self, connection: AsyncConnection, id_: UUID) -> Workflow:
        workflow = self._workflows.get(id_)
        if workflow is None:
            workflow = await read_workflow(connection, id_)
            assert workflow is not None, "a run's workflow is protected by its foreign key"
            self._workflows[id_] = workflow
            if len(self._workflows) > MAX_WORKFLOWS:
                self._workflows.popitem(last=False)
        self._workflows.move_to_end(id_)
        return workflow

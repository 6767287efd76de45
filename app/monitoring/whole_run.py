"""A run as a whole: the run, the elements of its lists, and the runs inside it, at any depth.

Each agent run inside the run has a path, such as ``handled[20]/draft``: the agent ``draft`` of the
inner run that is the element 20 of the list ``handled``. `agentchord plan` uses the same form.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.counts import counted
from app.domain.for_each import agent_of
from app.domain.status import AgentStatus, WorkflowStatus
from app.monitoring.findings import MOST_NAMED
from app.monitoring.progress import RunProgress, read_progress
from app.monitoring.wording import names
from app.storage.run_tree import read_run_tree

#: The outcome of an agent run that completed without a part of its result.
PARTIAL = "partial"
# ``missing`` counts the elements of a list that did not complete as a whole. An element that was
# skipped is no loss, because its condition was false.
READ_INCOMPLETE: TextClause = text("""
    SELECT a.run_id, a.name, a.status, a.error, a.error_class, a.retries, a.item_count,
        a.level, a.position, a.item_index, items.missing
    FROM agent_runs a
    LEFT JOIN LATERAL (
        SELECT count(*) AS missing FROM agent_runs i
        WHERE i.parent_id = a.id AND (
            i.status IN ('failed', 'rate_limited', 'budget_exceeded', 'cancelled')
            OR i.status = 'completed' AND i.error_class = 'SubWorkflowPartial')
    ) items ON a.item_count IS NOT NULL
    WHERE a.run_id = ANY(CAST(:run_ids AS uuid[])) AND (
        a.status IN ('failed', 'rate_limited', 'budget_exceeded', 'cancelled', 'skipped')
        OR a.status = 'completed' AND (a.error_class = 'SubWorkflowPartial' OR items.missing > 0))
""")

_Order = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A run inside a run, or that outer run itself.

    Attributes:
        run_id: The run.
        workflow: Name of the run's workflow.
        status: State of the run.
        level: Current level of the run, from 0.
        prefix: Beginning of the paths of the run's agents, such as ``handled[20]/``; empty for the
            outer run.
        order: Place of the run in the outer run, for sorting.
    """

    run_id: UUID
    workflow: str
    status: WorkflowStatus
    level: int
    prefix: str = ""
    order: _Order = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTree:
    """The runs of a whole run.

    Attributes:
        places: The run and the runs inside it, by id; an outer run comes before its inner runs.
        containers: The agent runs that an inner run will end.
    """

    places: Mapping[UUID, Place]
    containers: frozenset[UUID] = frozenset()

    @property
    def run_ids(self) -> list[UUID]:
        """Ids of the run and of the runs inside it."""
        return list(self.places)

    def path(self, run_id: UUID, name: str) -> str:
        """Return the path of an agent run."""
        return self.places[run_id].prefix + name

    def find(self, path: str) -> tuple[UUID, str] | None:
        """Return the run of an agent run and the name of the agent run in that run.

        Args:
            path: The path of the agent run.

        Returns:
            None if the path names no inner run. The agent run itself need not exist.
        """
        before, _, name = path.rpartition("/")
        prefix = f"{before}/" if before else ""
        found = (place.run_id for place in self.places.values() if place.prefix == prefix)
        run_id = next(found, None)
        return None if run_id is None else (run_id, name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Incomplete:
    """An agent run, anywhere inside a run, that ended without its whole result.

    Attributes:
        path: Path of the agent run, such as ``handled[20]/draft``.
        outcome: ``failed``, ``rate_limited``, ``budget_exceeded``, ``cancelled``, ``skipped`` or
            ``partial``. A list is partial if it completed without some of its elements. A
            sub-workflow is partial if some of its agents did not complete.
        error: The reason, if a reason is stored.
        error_class: Name of the error's class, if there is an error.
        run_id: The run of the agent run; an inner run for an agent of a sub-workflow.
        retries: Number of retries.
        missing: For a partial list, the number of elements without a whole result.
        item_count: For a list, its length.
    """

    path: str
    outcome: str
    error: str | None = None
    error_class: str | None = None
    run_id: UUID
    retries: int = 0
    missing: int | None = None
    item_count: int | None = None

    @property
    def is_failure(self) -> bool:
        """Whether the agent run ended because of a fault or a limit."""
        return self.outcome != PARTIAL and AgentStatus(self.outcome).is_failure


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeRun:
    """A run with its agents, and everything inside the run that has no whole result.

    Attributes:
        run: The run; all dollars include the runs inside it.
        incomplete: The agent runs without a whole result, in the order of the run.
    """

    run: RunProgress
    incomplete: tuple[Incomplete, ...] = field(default=())


async def read_whole_run(connection: AsyncConnection, run_id: UUID) -> WholeRun:
    """Read a run with everything inside it that has no whole result.

    Args:
        connection: A connection inside a transaction.
        run_id: The run.

    Raises:
        UnknownRun: If there is no such run.
    """
    run = await read_progress(connection, run_id)
    tree = await read_tree(connection, run_id)
    return WholeRun(run=run, incomplete=await read_incomplete(connection, tree))


async def read_tree(connection: AsyncConnection, run_id: UUID) -> RunTree:
    """Read the runs of a whole run; the tree is empty if there is no such run."""
    rows = await read_run_tree(connection, run_id)
    places: dict[UUID, Place] = {}
    for row in rows:
        outer = places.get(row.ancestors[-1]) if row.ancestors else None
        is_inner = outer is not None and row.id != run_id
        places[row.id] = Place(
            run_id=row.id,
            workflow=row.workflow,
            status=WorkflowStatus(row.status),
            level=row.level,
            prefix=f"{outer.prefix}{row.agent}/" if outer and is_inner else "",
            order=(*outer.order, _order(row, row.agent_level)) if outer and is_inner else (),
        )
    return RunTree(
        places=places,
        containers=frozenset(row.parent_agent_run_id for row in rows if row.id != run_id),
    )


async def read_incomplete(connection: AsyncConnection, tree: RunTree) -> tuple[Incomplete, ...]:
    """Read the agent runs of a whole run that ended without their whole result."""
    rows = await connection.execute(READ_INCOMPLETE, {"run_ids": tree.run_ids})
    found = [
        ((*tree.places[row.run_id].order, _order(row, row.level)), _incomplete(row, tree))
        for row in rows
    ]
    return tuple(each for _, each in sorted(found, key=lambda pair: pair[0]))


def _incomplete(row: Row[Any], tree: RunTree) -> Incomplete:
    return Incomplete(
        path=tree.path(row.run_id, row.name),
        outcome=PARTIAL if row.status == AgentStatus.COMPLETED else row.status,
        error=row.error,
        error_class=row.error_class,
        run_id=row.run_id,
        retries=row.retries,
        missing=row.missing,
        item_count=row.item_count,
    )


def _order(row: Row[Any], level: int) -> tuple[int, int, int]:
    return level, row.position, -1 if row.item_index is None else row.item_index


def owner_of(path: str) -> str:
    """Return the agent of the outer run to which a path belongs: ``a`` for ``a[1]/b[2]``."""
    return agent_of(path.partition("/")[0])


def is_inside(path: str, selected: str) -> bool:
    """Return whether a path is the selected path, one of its elements, or inside one of these."""
    return path == selected or path.startswith((f"{selected}[", f"{selected}/"))


def without_indices(path: str) -> str:
    """Return a path without the indices of its elements: ``handled/draft``."""
    return "/".join(agent_of(part) for part in path.split("/"))


@dataclass(frozen=True, kw_only=True, slots=True)
class IncompleteGroup:
    """Agent runs with the same outcome, for one line of a page.

    Attributes:
        names: The paths in a short form that names each of them, such as ``handled[3, 7-9]/draft``.
        outcome: The outcome of all of them.
        cause: The cause; if the causes differ, the cause of the first.
        paths: All paths.
    """

    names: str
    outcome: str
    cause: str
    paths: tuple[str, ...]


def grouped_incomplete(incomplete: Sequence[Incomplete]) -> list[IncompleteGroup]:
    """Group agent runs that have the same agent, outcome and class of error, in their order."""
    groups: dict[tuple[str, ...], list[Incomplete]] = {}
    for each in incomplete:
        key = without_indices(each.path), each.outcome, each.error_class or each.error or ""
        groups.setdefault(key, []).append(each)
    return [
        IncompleteGroup(
            names=names((each.path for each in same), MOST_NAMED),
            outcome=same[0].outcome,
            cause=cause_of(same[0]),
            paths=tuple(each.path for each in same),
        )
        for same in groups.values()
    ]


def cause_of(one: Incomplete) -> str:
    """Return the reason why an agent run has no whole result, as a part of a sentence."""
    if one.outcome == PARTIAL and one.item_count is not None:
        verb = "has" if one.missing == 1 else "have"
        return f"{one.missing:,} of {counted(one.item_count, 'element')} {verb} no whole result"
    if one.outcome == PARTIAL:
        return "not every agent of the sub-workflow completed"
    is_shown = one.is_failure and one.error_class and one.error
    return f"{one.error_class}: {one.error}" if is_shown else one.error or ""

"""Stores new runs: one by one, with a shared commit for all callers, or a whole list at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import Platform
from app.client.acceptance import Acceptance
from app.client.transactions import Transactions
from app.domain.labels import merged_labels
from app.domain.mistakes import Mistake, at_place, parts_of, refuse
from app.domain.run_options import RunOptions
from app.domain.scope import Scope
from app.domain.workflow import Workflow
from app.errors import UnknownModel, WorkflowError
from app.storage import new_runs, runs
from app.storage.group_commit import Batches
from app.storage.session import dumps

#: Most runs, and most bytes of inputs, that one statement writes.
PORTION_RUNS, PORTION_BYTES = 500, 64_000_000
#: Number of workflows whose ids are kept.
MOST_KNOWN = 1000
#: Number of checked inputs after which other callers have their turn.
TURN = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A run that is to be enqueued."""

    workflow: Workflow
    input: Mapping[str, Any]
    options: RunOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stored:
    """The ids of stored runs, and of their workflows by name and content."""

    ids: list[UUID]
    workflows: Mapping[tuple[str, str], UUID]


class Enqueues:
    """Stores the new runs of one scope, and asks the scheduler to admit them.

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
        self._batches: Batches[Wanted, UUID] = Batches(
            lambda wanted: self._write(partial(self._create, wanted=wanted)),
            name="enqueue",
            key=lambda wanted: wanted.options.key or id(wanted),
        )
        # The ids of stored workflows, by name and content. Workflows are never deleted.
        self._known: dict[tuple[str, str], UUID] = {}

    async def one(self, wanted: Wanted) -> UUID:
        """Store one run; see ``Runs.enqueue``."""
        wanted = self._in_scope(wanted)
        await self._acceptance.check_input(wanted.workflow, wanted.input, wanted.options.tenant)
        run_id = await self._batches.submit(wanted)
        await self._platform.scheduler.ask_for_admission(run_id)
        return run_id

    async def many(self, wanted: Sequence[Wanted]) -> list[UUID]:
        """Store all of the runs in one transaction, or none of them; see ``Runs.enqueue_many``."""
        if not wanted:
            return []
        completed, mistakes = await self._checked(wanted)
        step = partial(self._create_all, wanted=completed, mistakes=mistakes)
        ids = await self._write(step)
        await self._platform.scheduler.ask_for_admission(ids[0])
        return ids

    def _in_scope(self, wanted: Wanted) -> Wanted:
        options = replace(
            wanted.options,
            tenant=self._scope.tenant_of_new_run(wanted.options.tenant),
            labels=merged_labels(wanted.workflow.labels, wanted.options.labels),
        )
        options.check_tenant()
        return replace(wanted, options=options)

    async def _checked(self, wanted: Sequence[Wanted]) -> tuple[list[Wanted], list[Mistake]]:
        """Return the runs with their tenants and labels, and all mistakes but the workflows'."""
        mistakes: list[Mistake] = []
        completed = list(wanted)
        for index, each in enumerate(wanted):
            if index % TURN == 0:
                await asyncio.sleep(0)
            try:
                completed[index] = self._in_scope(each)
            except WorkflowError as error:
                mistakes += at_place(parts_of(error), _place(index))
            tenant = completed[index].options.tenant
            found = await self._acceptance.input_mistakes(each.workflow, each.input, tenant)
            mistakes += at_place(found, _place(index))
        return completed, [*mistakes, *_repeated_keys(completed)]

    async def _write(self, step: Callable[[AsyncConnection], Awaitable[_Stored]]) -> list[UUID]:
        """Run a transaction that stores runs; return their ids."""
        try:
            stored = await self._transactions.run(step)
        except IntegrityError:
            if not self._known:
                raise
            # The database was replaced, for example by a backup that lacks a workflow.
            self._known.clear()
            stored = await self._transactions.run(step)
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        self._known |= stored.workflows
        return stored.ids

    async def _create(self, connection: AsyncConnection, wanted: Sequence[Wanted]) -> _Stored:
        """Store the runs of a batch, which belong to several callers."""
        known: dict[int, Workflow] = {}
        for each in wanted:
            if id(each.workflow) not in known:
                whole = await self._acceptance.accept(connection, each.workflow, self._scope)
                known[id(each.workflow)] = whole
        return await self._store(connection, wanted, known)

    async def _create_all(
        self, connection: AsyncConnection, *, wanted: Sequence[Wanted], mistakes: Sequence[Mistake]
    ) -> _Stored:
        """Store the runs of one caller, unless there are mistakes."""
        known: dict[int, Workflow] = {}
        found = list(mistakes)
        for index, each in enumerate(wanted):
            if id(each.workflow) in known:
                continue
            known[id(each.workflow)] = each.workflow
            try:
                whole = await self._acceptance.accept(connection, each.workflow, self._scope)
                known[id(each.workflow)] = whole
            except (WorkflowError, UnknownModel) as error:
                found += at_place(parts_of(error), _place(index))
        refuse(found)
        return await self._store(connection, wanted, known)

    async def _store(
        self, connection: AsyncConnection, wanted: Sequence[Wanted], known: Mapping[int, Workflow]
    ) -> _Stored:
        """Write the runs; ``known`` has the completed workflow by the id of the given object."""
        contents = {key: (whole.name, whole.content_hash()) for key, whole in known.items()}
        workflows = {part: self._known[part] for part in contents.values() if part in self._known}
        missing = {part: known[key] for key, part in contents.items() if part not in workflows}
        stored = await runs.store_workflows(connection, list(missing.values()))
        workflows |= zip(missing, stored, strict=True)
        agents = {key: new_runs.agent_rows(whole) for key, whole in known.items()}
        new = [
            new_runs.NewRun(
                workflow=known[id(each.workflow)],
                workflow_id=workflows[contents[id(each.workflow)]],
                agents=agents[id(each.workflow)],
                input=each.input,
                options=each.options,
            )
            for each in wanted
        ]
        thresholds = self._platform.settings.engine.budget_thresholds
        tenant = self._scope.tenant
        ids = [
            id_
            for portion in _portions(new)
            for id_ in await new_runs.create_runs(connection, portion, thresholds, tenant=tenant)
        ]
        return _Stored(ids=ids, workflows=workflows)


def _portions(new: Sequence[new_runs.NewRun]) -> Iterator[Sequence[new_runs.NewRun]]:
    """Divide a list into parts of which each fits into one statement."""
    portion: list[new_runs.NewRun] = []
    size = 0
    for each in new:
        more = len(dumps(each.input))
        if portion and (len(portion) == PORTION_RUNS or size + more > PORTION_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(each)
        size += more
    yield portion


def _repeated_keys(wanted: Sequence[Wanted]) -> Iterator[Mistake]:
    """Yield a mistake for each run whose key an earlier run of the list has."""
    places: dict[str, int] = {}
    for place, each in enumerate(wanted):
        key = each.options.key
        if key is None:
            continue
        first = places.setdefault(key, place)
        if first != place:
            yield WorkflowError(
                f"{_place(place)}: the key {key!r} is also the key of {_place(first)}: a key names "
                "one run, so leave out one of the two",
                field=f"{_place(place)}.key",
            )


def _place(index: int) -> str:
    return f"runs[{index}]"

"""What a client process does: enqueue runs, wait for them, read them, stop them.

Everything runs on one background loop per process, so that the synchronous and the asynchronous
API are the same code and neither cares which loop, if any, the caller is on.

The file is over 400 lines because it is the one list of what a client can do.
"""

import asyncio
import atexit
import contextlib
import os
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import Platform, build_platform, database_url
from app.client.live_state import LiveState
from app.configuration.settings import load_settings
from app.costs.pricing import Pricing
from app.domain.providers import routed
from app.domain.run_options import RunOptions
from app.domain.status import WorkflowStatus
from app.domain.sub_workflow import all_workflows, check_nesting, transformed
from app.domain.validation import BOUNDS, validate_input
from app.domain.workflow import Workflow
from app.errors import (
    SchemaMismatch,
    ServiceUnavailable,
    UnknownRun,
    UnknownWorkflow,
    WaitTimeout,
    WorkflowError,
)
from app.events.following import Look, follow
from app.events.stream import Group
from app.events.texts import Feed, Piece
from app.kinds.registry import KindRegistry
from app.loop_thread import LoopThread
from app.rate_limits.stored import LimitTable, check_block, limit_table
from app.registration.calls import check_calls
from app.registration.workflows import check_workflow
from app.storage import event_log, limits, new_runs, runs, schema
from app.storage.deferred import wake_deferred
from app.storage.group_commit import Batches, GroupCommit, is_transient, persist
from app.storage.prune import Pruned, count_prunable, prune_batch, prune_recorded
from app.storage.runs import AgentRunRecord, RunRecord

POLL_S = 1.0
EVENT_PAGE = 500
UNDEFINED_TABLE = "42P01"

Result = TypeVar("Result")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One line of a run's history.

    Attributes:
        id: Grows with time; ``events(after=id)`` goes on from here.
        type: What happened, such as ``agent_completed``; ``agent_text`` is a part of an answer
            that is being streamed: it is not stored, and has the id of the event before it.
        at: When (UTC).
        attempt: Attempt of the agent, or None.
        data: Facts, such as the agent's name and the error.
    """

    id: int
    type: str
    at: datetime
    attempt: int | None
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """A run that somebody wants."""

    workflow: Workflow
    input: Mapping[str, Any]
    options: RunOptions


class Client:
    """The asynchronous core; its coroutines run on the process's background loop.

    Args:
        platform: The collaborators.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.live_state = LiveState(platform, self._transaction)
        self._pricing = Pricing(platform.settings.costs, platform.settings.all_providers())
        self._kinds = KindRegistry()
        self._feed = Feed(platform.redis)
        # A hundred callers share statements and commits, and so do those who wait for their runs.
        self._enqueues: Batches[_Wanted, UUID] = Batches(
            self._create_runs, name="enqueue", key=lambda wanted: wanted.options.key or id(wanted)
        )
        self._reads: Batches[UUID, RunRecord | None] = Batches(
            lambda ids: self._transaction(partial(_look, run_ids=ids)), name="read"
        )
        self._looks: GroupCommit[UUID, RunRecord | None] = GroupCommit(
            platform.engine, _look, name="look"
        )

    async def register(self, workflow: Workflow) -> UUID:
        """Store a workflow; the same content keeps its id.

        Sub-workflows that are only named are stored with it, as they are now.

        Raises:
            WorkflowError: If there is none of such a name, they are nested too deep, no provider
                serves an agent, a condition or an output schema could not be used, or an agent's
                kind is not known here or refuses its settings.
        """

        async def store(connection: AsyncConnection) -> UUID:
            whole = await self._completed(connection, workflow)
            return await runs.store_workflow(connection, whole)

        return await self._transaction(store)

    async def _completed(self, connection: AsyncConnection, workflow: Workflow) -> Workflow:
        """A workflow with its sub-workflows and providers filled in, and all of it checked."""
        settings = self._platform.settings
        found = await runs.with_stored_workflows(connection, workflow)
        found = transformed(found, partial(routed, providers=settings.all_providers()))
        check_nesting(found, max_depth=settings.engine.max_depth)
        for each in all_workflows(found):
            check_workflow(each)
            self._kinds.validate(each)
        return found

    async def enqueue(
        self,
        workflow: Workflow,
        input_: Mapping[str, Any],
        options: RunOptions = RunOptions(),  # noqa: B008  immutable
    ) -> UUID:
        """Store a run and ask the scheduler for it; returns its id.

        If there is a run of the key in ``options``, it is that one's id.

        Raises:
            WorkflowError: If the input does not fit the workflow, no provider serves an agent, its
                model does not take a parameter, or its kind is not known here or refuses its
                settings.
            RunConflict: If the run of that key is one of another workflow, input or tenant.
            UnknownModel: If a model has no price.
            ServiceUnavailable: If Postgres cannot be reached; nothing is stored then.
        """
        validate_input(workflow, input_)
        wanted = _Wanted(workflow=workflow, input=input_, options=options)
        run_id = await self._enqueues.submit(wanted)
        await self._platform.scheduler.ask_for_admission(run_id)
        return run_id

    async def _create_runs(self, wanted: Sequence[_Wanted]) -> list[UUID]:
        return await self._transaction(partial(self._create, wanted=wanted))

    async def _create(self, connection: AsyncConnection, wanted: Sequence[_Wanted]) -> list[UUID]:
        settings = self._platform.settings
        known: dict[int, tuple[Workflow, list[dict[str, Any]]]] = {}
        for each in wanted:
            if id(each.workflow) in known:
                continue
            whole = await self._completed(connection, each.workflow)
            for inner in all_workflows(whole):
                check_calls(
                    inner,
                    providers=settings.all_providers(),
                    pricing=self._pricing,
                    default_max_tokens=settings.engine.default_max_tokens,
                )
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
        return await new_runs.create_runs(connection, new, settings.engine.budget_thresholds)

    async def workflow(self, workflow_id: UUID) -> Workflow:
        """A stored workflow; raises UnknownWorkflow."""
        found = await self._transaction(lambda c: runs.read_workflow(c, workflow_id))
        if found is None:
            raise UnknownWorkflow(f"no workflow has the id {str(workflow_id)!r}")
        return found

    async def read(self, run_id: UUID) -> RunRecord:
        """A run as it stands; raises UnknownRun."""
        found = await self._reads.submit(run_id)
        if found is None:
            raise UnknownRun(f"no run has the id {str(run_id)!r}: see `agentchord runs`")
        return found

    async def agents(self, run_id: UUID) -> list[AgentRunRecord]:
        """The agent runs of a run, in the order of its workflow."""
        return await self._transaction(lambda c: runs.read_agent_runs(c, run_id))

    async def list_runs(self, status: WorkflowStatus | None, limit: int) -> list[RunRecord]:
        """The newest runs."""
        return await self._transaction(lambda c: runs.list_runs(c, status=status, limit=limit))

    async def wait(self, run_id: UUID, timeout_s: float | None) -> RunRecord:
        """Wait until a run has ended.

        Raises:
            WaitTimeout: When the time is over; the run goes on.
        """
        if (found := await self.read(run_id)).status.is_final:
            return found
        try:
            async with asyncio.timeout(timeout_s), self._platform.signals.watching(run_id) as news:
                # While Postgres is away, whoever waits for a run waits for it, too.
                while run := await self._looks.submit(run_id):
                    if run.status.is_final:
                        return run
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(news.wait(), POLL_S)
                    news.clear()
                raise UnknownRun(f"run {run_id} has been removed while it was waited for")
        except TimeoutError as error:
            raise WaitTimeout(
                f"run {run_id} has not ended after {timeout_s:g} s; it goes on, wait for it again"
            ) from error

    async def events(self, run_id: UUID, after: int) -> AsyncIterator[Event]:
        """The history of a run from an event on, with live texts, until the run has ended."""

        async def look(after: int) -> Look:
            run = await self.read(run_id)
            read = partial(event_log.read_run, run_id=run_id, after=after, limit=EVENT_PAGE)
            page = await self._transaction(read)
            ended = run.status.is_final and not page.held
            return Look(rows=page.rows, more=page.more, ended=ended)

        async with (
            self._platform.signals.watching(run_id) as news,
            self._feed.watching(run_id, news) as inbox,
        ):
            async for row in follow(after, look=look, news=news, inbox=inbox):
                yield Event(**row)

    def consumer(self, group: str, name: str, *, stale_s: float) -> Group:
        """A member of a group that reads the stream of all events."""
        return Group(self._platform.redis, group, name, stale_s=stale_s)

    async def texts(self, run_id: UUID) -> AsyncIterator[Piece]:
        """What the streaming agents of a run generate from now on, without an end."""
        async with self._feed.watching(run_id, asyncio.Event()) as inbox:
            while True:
                await inbox.news.wait()
                inbox.news.clear()
                for piece in inbox.take():
                    yield piece

    async def cancel(self, run_id: UUID, reason: str) -> bool:
        """Stop a run; returns whether it was still going. No call starts after this returns."""
        await self.read(run_id)
        return await self._platform.scheduler.stop(
            run_id, as_=WorkflowStatus.CANCELLED, reason=reason
        )

    async def pause(self, run_id: UUID) -> bool:
        """Have a run rest; returns whether it was going. No call starts after this returns."""
        await self.read(run_id)
        return await self._platform.scheduler.pause(run_id)

    async def resume(self, run_id: UUID) -> bool:
        """Let a paused run go on; returns whether it was paused."""
        await self.read(run_id)
        return await self._platform.scheduler.resume(run_id)

    async def retry_failed(self, run_id: UUID, cost_budget: float | None = None) -> bool:
        """Let the failed and the cancelled agents of a run that has ended run again.

        Args:
            run_id: The run.
            cost_budget: A higher limit for the run, in dollars; None leaves it.

        Returns:
            Whether anything is run again.

        Raises:
            RunConflict: If its input has been removed, or the budget would be lowered.
        """
        if cost_budget is not None and (problem := BOUNDS["cost_budget"].problem(cost_budget)):
            raise WorkflowError(f"cost_budget of the run {problem}", field="cost_budget")
        limit_usd = None if cost_budget is None else Decimal(str(cost_budget))
        return await self._platform.scheduler.retry_failed(run_id, cost_budget=limit_usd)

    async def rerun(self, run_id: UUID, agent: str) -> UUID:
        """Make a run that starts from one agent of a run that has ended; returns its id.

        Raises:
            WorkflowError: If the run has no agent of that name.
            RunConflict: If the run is still going, or its input has been removed.
        """
        return await self._platform.scheduler.rerun(run_id, agent)

    async def prune(
        self,
        older_than_s: float,
        *,
        dry_run: bool = False,
        on_batch: Callable[[Pruned], None] | None = None,
    ) -> Pruned:
        """Remove inputs, outputs and histories of runs that ended so many seconds ago.

        Events that programs recorded before then go, too.

        Each batch is a transaction of its own, so what is removed stays removed, whatever stops
        this; the ledger is never touched.

        Args:
            older_than_s: The age of the runs, since their end.
            dry_run: Whether to count only.
            on_batch: Told what each batch has removed.

        Returns:
            What was removed, or would be.
        """
        if dry_run:
            return await self._transaction(partial(count_prunable, older_than_s=older_than_s))
        removed = await self._transaction(partial(prune_recorded, older_than_s=older_than_s))
        while True:
            batch = await self._transaction(partial(prune_batch, older_than_s=older_than_s))
            if not batch.runs:
                return removed
            removed += batch
            if on_batch is not None:
                on_batch(batch)

    async def limits(self) -> LimitTable:
        """The rate limits in force: what is stored goes before the configuration."""
        settings = self._platform.settings
        stored = await self._transaction(limits.read_limits)
        return limit_table(settings.rate_limits, stored, settings.provider_names)

    async def set_limits(self, provider: str, model: str, values: Mapping[str, Any]) -> LimitTable:
        """Store limits of a block, and tell the workers; returns all that are in force then.

        Args:
            provider: Provider name.
            model: Model name or pattern, or ``default``.
            values: The keys to set; None means unlimited.

        Raises:
            ConfigurationError: If a key or a value is not possible.
        """
        check_block(provider, model, values, self._platform.settings.provider_names)
        await self._transaction(lambda c: limits.set_limits(c, provider, model, values))
        await self._platform.signals.send_limits_changed()
        return await self.limits()

    async def forget_limits(self, provider: str, model: str, keys: Collection[str]) -> list[str]:
        """Remove stored limits of a block, all if no key is named; returns those that were there.

        Raises:
            ConfigurationError: If there is no such provider or key.
        """
        check_block(provider, model, dict.fromkeys(keys), self._platform.settings.provider_names)
        forget = partial(limits.forget_limits, provider=provider, model=model, keys=keys)
        forgotten = await self._transaction(forget)
        await self._platform.signals.send_limits_changed()
        return forgotten

    async def wake(self, agent_run_ids: Sequence[UUID]) -> None:
        """Have agents that wait for money try again at once."""
        for id_ in agent_run_ids:
            await self._platform.signals.send(id_, "money")
        step = partial(wake_deferred, waiters=[agent_run_ids])
        await persist(self._platform.engine, step, name="wake_deferred")

    async def close(self) -> None:
        """Close all connections."""
        await self._feed.close()
        await self._platform.close()

    async def transaction(self, step: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Run one transaction, with the errors of this package."""
        return await self._transaction(step)

    async def _transaction(self, step: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        try:
            return await self._attempt(step)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == UNDEFINED_TABLE:
                own = load_settings().database_url is None
                raise SchemaMismatch(schema.no_tables(embedded=own)) from error
            if is_transient(error):
                url = database_url(self._platform.settings)
                raise ServiceUnavailable(schema.unreachable(url, error)) from error
            raise

    async def _attempt(self, step: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Run a step, and once more if it met a connection that Postgres had ended long ago.

        A commit that met one is not repeated: it may have happened.
        """
        taken = False
        try:
            async with self._platform.engine.begin() as connection:
                result = await step(connection)
                taken = True
            return result
        except DBAPIError as error:
            if taken or not error.connection_invalidated:
                raise
        async with self._platform.engine.begin() as connection:
            return await step(connection)


async def _look(connection: AsyncConnection, run_ids: Sequence[UUID]) -> list[RunRecord | None]:
    found = {run.id: run for run in await runs.read_runs(connection, run_ids)}
    return [found.get(run_id) for run_id in run_ids]


@dataclass(frozen=True)
class Process:
    """The background loop of this process and the client that lives on it."""

    loop: LoopThread
    client: Client

    def close(self, pid: int) -> None:
        """Close the connections, in the process that made them."""
        if os.getpid() == pid:
            self.loop.run(self.client.close())
            self.loop.close()

    def iterate(self, items: AsyncIterator[Result]) -> Iterator[Result]:
        """An asynchronous iterator as a synchronous one."""

        async def following() -> list[Result]:
            async for item in items:
                return [item]
            return []

        while item := self.loop.run(following()):
            yield item[0]


def process() -> Process:
    """What this process talks to the cluster with; made at first use, and anew after a fork."""
    return _process(os.getpid())


@lru_cache(maxsize=1)
def _process(pid: int) -> Process:
    loop = LoopThread("agentchord client")

    async def open_() -> Client:
        return Client(build_platform(application_name=f"agentchord client {pid}"))

    made = Process(loop=loop, client=loop.run(open_()))
    atexit.register(made.close, pid)
    return made

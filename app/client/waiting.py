"""Waits for the ends of runs; all callers of a scope share one subscription and their reads."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import Platform
from app.client.transactions import Transactions
from app.domain.counts import counted
from app.domain.status import WorkflowStatus
from app.errors import UnknownRun, WaitTimeout
from app.storage.group_commit import Batches, persist
from app.storage.runs import read_statuses
from app.telemetry.logging import of_nobody

#: Seconds after which all open runs are read although no signal has come.
POLL_S = 1.0
#: Number of runs that an error names.
SHOWN = 3

Ids = tuple[UUID, ...]
States = Mapping[UUID, WorkflowStatus]


class _Wait:
    """One caller: the runs that have not ended yet, and the states of the other runs.

    Args:
        run_ids: The runs, each once.
    """

    def __init__(self, run_ids: Ids) -> None:
        self.run_ids = run_ids
        self.states: dict[UUID, WorkflowStatus] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def open(self) -> list[UUID]:
        """The runs whose end is not known."""
        return [id_ for id_ in self.run_ids if id_ not in self.states]

    def note(self, id_: UUID, status: WorkflowStatus) -> None:
        """Note the end of a run."""
        self.states[id_] = status
        if len(self.states) == len(self.run_ids) and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the wait with an error."""
        if not self.done.done():
            self.done.set_exception(error)


class Waiting:
    """Waits for runs of one scope.

    One task reads the states of all runs about which signals have come, for all callers with one
    statement, and wakes only the callers whose runs have all ended. So a thousand callers cost
    hardly more than one caller. A signal alone proves nothing, because every program that may write
    to Redis can send one.

    Args:
        platform: The process's platform.
        transactions: Reads first, so that an unknown run or an absent Postgres is an error.
        tenant: The tenant of the scope; None means all tenants.
    """

    def __init__(
        self, platform: Platform, transactions: Transactions, *, tenant: str | None
    ) -> None:
        self._news = platform.signals.news()
        self._tenant = tenant
        self._first_looks: Batches[Ids, States] = Batches(
            lambda asked: transactions.run(partial(self._look, asked=asked)), name="first_look"
        )
        self._engine = platform.engine
        self._waits: dict[UUID, set[_Wait]] = {}
        self._follower: asyncio.Task[None] | None = None

    async def wait(
        self, run_ids: Sequence[UUID], timeout_s: float | None
    ) -> Mapping[UUID, WorkflowStatus]:
        """Wait until all of the runs have ended; return the final state of each run.

        While Postgres cannot be reached, this method waits for Postgres as well, except at first.

        Raises:
            UnknownRun: If the scope has no such run.
            ServiceUnavailable: If Postgres cannot be reached at first.
            WaitTimeout: If the time is over before all runs have ended; the runs go on.
        """
        if not run_ids:
            return {}
        wait = _Wait(tuple(dict.fromkeys(run_ids)))
        self._begin(wait)  # before the first look, so that no end is missed
        try:
            found = await self._first_looks.submit(wait.run_ids)
            _refuse_unknown(run_ids, found)
            self._note(found)
            async with asyncio.timeout(timeout_s):
                await wait.done
        except TimeoutError as error:
            raise WaitTimeout(_unfinished(wait.open, len(wait.run_ids), timeout_s)) from error
        finally:
            self._end(wait)
        return wait.states

    def _begin(self, wait: _Wait) -> None:
        for id_ in wait.run_ids:
            self._waits.setdefault(id_, set()).add(wait)
            self._news.add(id_)
        if self._follower is None or self._follower.done():
            self._follower = asyncio.create_task(
                self._follow(), name="waiting", context=of_nobody()
            )

    def _end(self, wait: _Wait) -> None:
        for id_ in wait.open:
            others = self._waits[id_]
            others.discard(wait)
            if not others:
                self._forget(id_)
        if not self._waits:
            self._news.wake()  # so that the task ends

    def _forget(self, id_: UUID) -> None:
        del self._waits[id_]
        self._news.remove(id_)

    async def _follow(self) -> None:
        """Read the open runs after signals and from time to time, while anyone waits."""
        loop = asyncio.get_running_loop()
        poll_at_s = loop.time() + POLL_S
        try:
            while self._waits:
                changed = await self._news.next(max(poll_at_s - loop.time(), 0.0))
                if loop.time() >= poll_at_s:
                    poll_at_s = loop.time() + POLL_S
                    changed = set(self._waits)
                if ids := changed & self._waits.keys():
                    read = partial(read_statuses, ids=ids, tenant=self._tenant)
                    self._note(await persist(self._engine, read, name="look"))
        except Exception as error:  # noqa: BLE001  the callers get the error
            for wait in {wait for waits in self._waits.values() for wait in waits}:
                wait.fail(error)

    def _note(self, found: States) -> None:
        """Tell the callers about the runs that have ended."""
        for id_, status in found.items():
            if status.is_final and id_ in self._waits:
                for wait in self._waits[id_]:
                    wait.note(id_, status)
                self._forget(id_)

    async def _look(self, connection: AsyncConnection, asked: Sequence[Ids]) -> list[States]:
        """Read the states for all callers with one statement."""
        wanted = {id_ for ids in asked for id_ in ids}
        found = await read_statuses(connection, wanted, tenant=self._tenant)
        return [{id_: found[id_] for id_ in ids if id_ in found} for ids in asked]


def _refuse_unknown(run_ids: Sequence[UUID], states: States) -> None:
    for id_ in run_ids:
        if id_ not in states:
            raise UnknownRun(f"no run has the id {str(id_)!r}: see `agentchord runs`")


def _unfinished(open_: Sequence[UUID], total: int, timeout_s: float | None) -> str:
    if total == 1:
        return (
            f"run {open_[0]} has not ended after {timeout_s:g} s; the run goes on, so you can wait "
            "for it again"
        )
    shown = ", ".join(map(str, open_[:SHOWN]))
    more = f" and {len(open_) - SHOWN:,} more" if len(open_) > SHOWN else ""
    return (
        f"{len(open_):,} of {counted(total, 'run')} have not ended after {timeout_s:g} s "
        f"({shown}{more}); the runs go on, so you can wait for them again"
    )

"""Waits for the ends of runs; all callers of a scope share one subscription and their reads."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap import Platform
from app.client.transactions import Transactions
from app.domain.counts import counted
from app.domain.status import WorkflowStatus
from app.errors import UnknownRun, WaitTimeout
from app.storage.group_commit import Batches, GroupCommit
from app.storage.runs import read_statuses

#: Seconds after which a caller looks at its runs although no signal has come.
POLL_S = 1.0
#: Number of runs that an error names.
SHOWN = 3

Ids = tuple[UUID, ...]
States = Mapping[UUID, WorkflowStatus]


class Waiting:
    """Waits for runs of one scope.

    A signal wakes the callers that wait for its run. Then one statement reads the states of all
    runs about which signals have come, for all callers. A signal alone proves nothing, because
    every program that may write to Redis can send one.

    Args:
        platform: The process's platform.
        transactions: Reads first, so that an unknown run or an absent Postgres is an error.
        tenant: The tenant of the scope; None means all tenants.
    """

    def __init__(
        self, platform: Platform, transactions: Transactions, *, tenant: str | None
    ) -> None:
        self._signals = platform.signals
        look = partial(_look, tenant=tenant)
        self._first_looks: Batches[Ids, States] = Batches(
            lambda asked: transactions.run(partial(look, asked=asked)), name="first_look"
        )
        # A read needs no transaction, and a transaction would need two more round trips.
        reading = platform.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._looks: GroupCommit[Ids, States] = GroupCommit(reading, look, name="look")

    async def wait(
        self, run_ids: Sequence[UUID], timeout_s: float | None
    ) -> dict[UUID, WorkflowStatus]:
        """Wait until all of the runs have ended; return the final state of each run.

        While Postgres cannot be reached, this method waits for Postgres as well, except at first.

        Raises:
            UnknownRun: If the scope has no such run.
            ServiceUnavailable: If Postgres cannot be reached at first.
            WaitTimeout: If the time is over before all runs have ended; the runs go on.
        """
        states: dict[UUID, WorkflowStatus] = {}
        async with self._signals.watching_all(set(run_ids)) as news:
            states |= await self._first_looks.submit(tuple(dict.fromkeys(run_ids)))
            _refuse_unknown(run_ids, states)
            try:
                async with asyncio.timeout(timeout_s):
                    while open_ := _open(states):
                        changed = await news.next(POLL_S) & open_
                        states |= await self._looks.submit(tuple(changed or open_))
            except TimeoutError as error:
                raise WaitTimeout(_unfinished(_open(states), len(states), timeout_s)) from error
        return states


async def _look(
    connection: AsyncConnection, asked: Sequence[Ids], *, tenant: str | None
) -> list[States]:
    """Read the states for all callers with one statement."""
    wanted = {id_ for ids in asked for id_ in ids}
    found = await read_statuses(connection, wanted, tenant=tenant)
    return [{id_: found[id_] for id_ in ids if id_ in found} for ids in asked]


def _open(states: States) -> set[UUID]:
    return {id_ for id_, status in states.items() if not status.is_final}


def _refuse_unknown(run_ids: Sequence[UUID], states: States) -> None:
    for id_ in run_ids:
        if id_ not in states:
            raise UnknownRun(f"no run has the id {str(id_)!r}: see `agentchord runs`")


def _unfinished(open_: Collection[UUID], total: int, timeout_s: float | None) -> str:
    if total == 1:
        (id_,) = open_
        return (
            f"run {id_} has not ended after {timeout_s:g} s; the run goes on, so you can wait for "
            "it again"
        )
    shown = [str(id_) for id_ in sorted(open_)[:SHOWN]]
    more = f" and {len(open_) - SHOWN:,} more" if len(open_) > SHOWN else ""
    return (
        f"{len(open_):,} of {counted(total, 'run')} have not ended after {timeout_s:g} s "
        f"({', '.join(shown)}{more}); the runs go on, so you can wait for them again"
    )

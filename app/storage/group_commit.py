"""Group commit: the writes of many coroutines share one statement and one commit.

The first item starts a batch at once. The items that arrive during this batch form the next batch.
Without load, group commit adds no delay. Under load, the batches grow by themselves. The idea comes
from the write-ahead log (Gawlick and Kinkade, 1985). The price is a wait: an item waits for at most
one earlier batch before the batch of this item starts.

If more items are expected, a batch can also wait some milliseconds for these items (``delay_s``),
because fewer transactions are less work. Postgres delays the commits of its log in the same way,
with commit_delay.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

import structlog
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.errors import ServiceUnavailable
from app.storage.session import OF_THE_SERVER
from app.telemetry.logging import of_nobody

Item = TypeVar("Item")
Result = TypeVar("Result")
Statement = Callable[[AsyncConnection, Sequence[Item]], Awaitable[Sequence[Result]]]
Delay = Callable[[int], float]

MAX_BATCH = 500
RECONNECT_S = (0.1, 0.2, 0.5, 1.0)
#: Beside the states that concern the server: lost connections, deadlocks, timeouts.
TRANSIENT_SQLSTATES = (*OF_THE_SERVER, "08", "40", "55P03", "57014", "25P0")

log = structlog.get_logger(__name__)


def is_transient(error: Exception) -> bool:
    """Return whether a statement could succeed later.

    A statement could succeed later after a lost connection, a deadlock, a restart or a timeout.
    """
    if isinstance(error, TimeoutError):  # no connection of the pool became free
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is None and isinstance(error, DataError):
        return False  # the driver refuses a value, and will always refuse it
    return error.connection_invalidated or state is None or state.startswith(TRANSIENT_SQLSTATES)


def cause(error: Exception) -> str:
    """Return the database's message without the statement."""
    return str(getattr(error, "orig", None) or error).strip()


async def persist(
    engine: AsyncEngine, step: Callable[[AsyncConnection], Awaitable[Result]], *, name: str
) -> Result:
    """Run one transaction, and repeat it while Postgres is away; the step must be idempotent."""
    tries = 0
    while True:
        try:
            async with engine.begin() as connection:
                return await step(connection)
        except (DBAPIError, TimeoutError) as error:
            if not is_transient(error):
                raise
            delay_s = RECONNECT_S[min(tries, len(RECONNECT_S) - 1)]
            log.warning("postgres_unavailable", doing=name, retry_in_s=delay_s, error=cause(error))
            tries += 1
            await asyncio.sleep(delay_s)


def at_once(items: int) -> float:  # noqa: ARG001
    """Return the delay of a batch that does not wait for more items."""
    return 0.0


class Batches(Generic[Item, Result]):
    """Collects items and executes them in batches, one batch after the other.

    Two batches never run at the same time, so a slow batch delays all callers. With a ``key``, an
    item may have to wait for several batches.

    Args:
        execute: Executes one batch; returns one result per item, in order. If the call raises an
            error, the items are executed one by one, unless the error is ``ServiceUnavailable``.
        name: Name of the batches in the log.
        key: Returns the key of an item; items with equal keys never share a batch. If ``key`` is
            None, all items may share a batch.
        delay_s: Returns the seconds that a batch waits for more items. The argument is the number
            of items that already wait.
    """

    def __init__(
        self,
        execute: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        name: str,
        key: Callable[[Item], Hashable] | None = None,
        delay_s: Delay = at_once,
    ) -> None:
        self._execute = execute
        self._name = name
        self._key = key
        self._delay_s = delay_s
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """Execute the item with the next batch; returns the item's result after the commit.

        If the caller is cancelled, the item is still executed.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._runner is None or self._runner.done():
            # The task gets its own context. Otherwise the log lines of the batch would have the ids
            # of the first caller's agent.
            self._runner = asyncio.create_task(
                self._run(), name=f"group_commit_{self._name}", context=of_nobody()
            )
        return await future

    async def flush(self) -> None:
        """Wait until all items that were submitted so far are committed."""
        while self._runner is not None and not self._runner.done():
            await asyncio.wait([self._runner])

    async def _run(self) -> None:
        while self._waiting:
            if delay_s := self._delay_s(len(self._waiting)):
                await asyncio.sleep(delay_s)
            batch = self._take()
            try:
                results = await self._execute([item for item, _ in batch])
            except Exception as error:  # noqa: BLE001  the callers get the error
                if len(batch) > 1 and not isinstance(error, ServiceUnavailable):
                    await self._one_by_one(batch, error)
                else:
                    for _, future in batch:
                        _fail(future, error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                _succeed(future, result)

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        if self._key is None:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            return batch
        batch, later, seen = [], [], set()
        for entry in self._waiting:
            key = self._key(entry[0])
            if key in seen or len(batch) == MAX_BATCH:
                later.append(entry)
            else:
                seen.add(key)
                batch.append(entry)
        self._waiting = later
        return batch

    async def _one_by_one(
        self, batch: Sequence[tuple[Item, asyncio.Future[Result]]], error: Exception
    ) -> None:
        """Execute each item alone, so that a bad item does not fail the other items."""
        log.warning("batch_failed", batch=self._name, items=len(batch), error=cause(error))
        for item, future in batch:
            try:
                (result,) = await self._execute([item])
            except Exception as own:  # noqa: BLE001  the caller gets the error
                _fail(future, own)
            else:
                _succeed(future, result)


class GroupCommit(Batches[Item, Result]):
    """Collects items and executes each batch in one transaction.

    Example:
        records = GroupCommit(engine, apply_records, name="record", key=lambda r: r.agent_run_id)
        accepted = await records.submit(record)  # the record is committed now

    While Postgres is away, a batch is repeated again and again, and its callers wait. A caller that
    must not wait opens its own transaction with ``engine.begin``. Such a caller does not use
    ``persist``, because ``persist`` also repeats the transaction.

    Args:
        engine: The process's engine.
        execute: Executes the statements of one batch; returns one result per item, in order.
            ``execute`` must be idempotent, because a batch is repeated if the outcome of its commit
            is unknown.
        name: Name of the batches in the log.
        key: Returns the key of an item; items with equal keys never share a batch. If ``key`` is
            None, all items may share a batch.
        delay_s: Returns the seconds that a batch waits for more items. The argument is the number
            of items that already wait.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        execute: Statement[Item, Result],
        *,
        name: str,
        key: Callable[[Item], Hashable] | None = None,
        delay_s: Delay = at_once,
    ) -> None:
        super().__init__(self._commit, name=name, key=key, delay_s=delay_s)
        self._engine = engine
        self._statements = execute

    async def _commit(self, items: Sequence[Item]) -> Sequence[Result]:
        return await persist(
            self._engine, lambda connection: self._statements(connection, items), name=self._name
        )


def _succeed(future: asyncio.Future[Result], result: Result) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Result], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)

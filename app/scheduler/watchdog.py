"""The watchdog, which finds lost leases and messages with the help of Postgres.

The watchdog takes away the lost leases, and sends the lost messages again. Every worker process
runs a watchdog. Because of an advisory lock, two watchdogs never look at the same time. A watchdog
trusts only the database's clock.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar
from uuid import UUID, uuid4

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.status import WorkflowStatus
from app.scheduler.deferred import Deferred
from app.scheduler.dispatch import Dispatcher
from app.scheduler.scheduler import Scheduler
from app.storage.group_commit import cause
from app.storage.leases import Lost, recover_expired
from app.storage.progress import LevelPlan, plan_levels, plan_ready_levels

WATCHDOG_LOCK = 7_465_003
EPOCH_KEY = "agentchord:epoch"
#: An expiring key, and the lifetime of the key. The key's remaining time shows when a watchdog last
#: looked.
LOOKED_KEY, LOOKED_MS = "agentchord:watchdog", 600_000

TRY_LOCK: TextClause = text("SELECT pg_try_advisory_xact_lock(:key)")
OVERDUE: TextClause = text("""
    SELECT id, timeout_s FROM runs
    WHERE status = 'running' AND stop_as IS NULL AND deadline_at < clock_timestamp()
""")
# Finds the runs whose current level has no open agents any more. The message that advances such a
# run was lost. While a run is being stopped, only its running agents are open, because its pending
# agents will not start any more. An agent that waits for a sub-workflow is open. An agent that
# waits for its items is not open, because the step that advances the run completes such an agent.
STUCK: TextClause = text("""
    SELECT r.id, r.level FROM runs r WHERE r.status = 'running' AND NOT EXISTS (
        SELECT FROM agent_runs a WHERE a.run_id = r.id AND (a.status = 'running'
            OR a.status = 'waiting' AND a.item_count IS NULL
            OR a.status = 'pending' AND a.level = r.level AND r.stop_as IS NULL)
    )
""")

Found = TypeVar("Found")

log = structlog.get_logger(__name__)


class Watchdog:
    """Looks for lost leases and messages every few seconds.

    Example:
        task = asyncio.create_task(watchdog.run())

    The watchdog finds a loss at its next look, at most ``interval_s`` later. The watchdog is
    therefore only a safety net: a run that needs the watchdog at each step works, but slowly.

    Args:
        engine: The process's engine.
        redis: The process's client.
        scheduler: Moves runs on.
        dispatcher: Sends lanes.
        interval_s: Seconds between two looks.
        max_recoveries: Number of recoveries after which an agent fails.
        on_quarantine: Called after the commit for every agent that failed after too many
            recoveries.
        grace_s: Seconds after a reconnect. During these seconds no lease is taken away, because no
            process could renew its leases while Postgres was away.

    Attributes:
        deferred: Timers for agents that may be claimed again soon; every look updates these timers.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        redis: Redis,
        *,
        scheduler: Scheduler,
        dispatcher: Dispatcher,
        interval_s: float,
        max_recoveries: int,
        on_quarantine: Callable[[Lost], Awaitable[None]],
        grace_s: float = 10.0,
    ) -> None:
        self._engine = engine
        self._redis = redis
        self._scheduler = scheduler
        self._dispatcher = dispatcher
        self.deferred = Deferred(engine, redis, dispatcher, interval_s=interval_s)
        self._interval_s = interval_s
        self._max_recoveries = max_recoveries
        self._on_quarantine = on_quarantine
        self._quarantined: list[Lost] = []
        self._grace_s = grace_s
        self._lease_taking_from_s = 0.0
        self._epoch: bytes | str | None = None

    async def run(self) -> None:
        """Look every ``interval_s`` seconds until the task is cancelled."""
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                await self._try_to_look()
        finally:
            self.deferred.close()

    async def _try_to_look(self) -> None:
        try:
            await self.look()
        except (DBAPIError, TimeoutError, OSError) as error:
            loop = asyncio.get_running_loop()
            self._lease_taking_from_s = loop.time() + self._grace_s + self._interval_s
            log.warning("watchdog_interrupted", error=cause(error))
        except Exception:
            # Every error is caught, because a watchdog that ends is worse than a failed look.
            log.exception("watchdog_failed")

    async def look(self) -> None:
        """Look once for all kinds of losses."""
        self._quarantined = []
        for plan in await self._alone(self._recover) or ():
            await self._send(plan, set(plan.agents))
        while self._quarantined:
            await self._on_quarantine(self._quarantined.pop())
        for run_id, timeout_s in await self._alone(self._overdue) or ():
            reason = f"the run's timeout of {timeout_s:g} s is over"
            await self._scheduler.stop(run_id, as_=WorkflowStatus.FAILED, reason=reason)
        for run_id, level in await self._alone(self._stuck) or ():
            await self._scheduler.advance(run_id, level)
        await self._scheduler.admit()
        everything = await self._redis_was_replaced()
        await self._note_look()
        ready = partial(plan_ready_levels, idle_only=not everything)
        for plan in await self._alone(ready) or ():
            await self._send_again(plan, everything=everything)
        await self.deferred.look()

    async def _alone(self, step: Callable[[AsyncConnection], Awaitable[Found]]) -> Found | None:
        """Run a step unless another watchdog holds the lock."""
        async with self._engine.begin() as connection:
            if not (await connection.execute(TRY_LOCK, {"key": WATCHDOG_LOCK})).scalar_one():
                return None
            return await step(connection)

    async def _recover(self, connection: AsyncConnection) -> list[LevelPlan]:
        """Take away expired leases, and plan new lanes, because the leases' lanes are gone."""
        if asyncio.get_running_loop().time() < self._lease_taking_from_s:
            return []
        taken = await recover_expired(connection, max_recoveries=self._max_recoveries)
        if taken:
            of_runs = sorted({str(lost.run_id) for lost in taken})
            log.warning("agents_recovered", agents=len(taken), runs=of_runs)
        self._quarantined = [lost for lost in taken if lost.error]
        return await plan_levels(connection, list({lost.run_id for lost in taken}))

    async def _overdue(self, connection: AsyncConnection) -> list[tuple[UUID, float]]:
        return [(row.id, row.timeout_s) for row in await connection.execute(OVERDUE)]

    async def _stuck(self, connection: AsyncConnection) -> list[tuple[UUID, int]]:
        return [(row.id, row.level) for row in await connection.execute(STUCK)]

    async def _redis_was_replaced(self) -> bool:
        """Return whether Redis, with its queues, was flushed or replaced since the last look."""
        try:
            await self._redis.set(EPOCH_KEY, uuid4().hex, nx=True)
            epoch = await self._redis.get(EPOCH_KEY)
        except RedisError:
            return False
        replaced = self._epoch is not None and epoch != self._epoch
        self._epoch = epoch
        return replaced

    async def _note_look(self) -> None:
        with contextlib.suppress(RedisError):
            await self._redis.set(LOOKED_KEY, "", px=LOOKED_MS)

    async def _send_again(self, plan: LevelPlan, *, everything: bool) -> None:
        """Send lanes for the ready agents of providers with an empty queue, or of all providers."""
        waiting = {
            provider
            for provider in plan.agents
            if everything or not await self._dispatcher.backlog(provider)
        }
        await self._send(plan, waiting)

    async def _send(self, plan: LevelPlan, providers: set[str]) -> None:
        try:
            for lane in self._dispatcher.lanes(plan):
                if lane.provider in providers:
                    await self._dispatcher.send_lane(plan, lane)
        except Exception:
            # An error of one run must not delay the other runs.
            log.exception("lanes_not_sent", run_id=str(plan.run_id))
            return
        if providers:
            log.info("lanes_sent_again", run_id=str(plan.run_id), providers=sorted(providers))

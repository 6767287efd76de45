"""Sends lanes for agents whose backoff or long wait has ended.

Postgres stores the time at which an agent may be claimed again, so a process that is killed cannot
lose this time. Every process looks ahead now and then. When the time has come, one process sends
the lanes. If a lane has itself waited for the agent's backoff, this lane has already claimed the
agent by then. The watchdog finds the agents that all processes have missed.
"""

import asyncio

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.scheduler.dispatch import Dispatcher
from app.storage.deferred import coming_slots, plan_due
from app.storage.group_commit import cause

#: Agents share their lanes if the agents may be claimed again within the same slot.
SLOT_S = 0.5
#: Seconds that a process waits after the end of a slot, so that lanes that wait for a backoff can
#: claim the slot's agents first.
GRACE_S = 0.25
SENT_KEY = "agentchord:deferred:{slot}"
SENT_FOR_S = 600

log = structlog.get_logger(__name__)


class Deferred:
    """Timers for the agents that may be claimed again within the next few seconds.

    Args:
        engine: The process's engine.
        redis: The process's client; a key in Redis lets only one process send a slot's lanes.
        dispatcher: Sends lanes.
        interval_s: Seconds between two looks.
    """

    def __init__(
        self, engine: AsyncEngine, redis: Redis, dispatcher: Dispatcher, *, interval_s: float
    ) -> None:
        self._engine = engine
        self._redis = redis
        self._dispatcher = dispatcher
        self._interval_s = interval_s
        self._timers: dict[int, asyncio.Task[None]] = {}

    async def look(self) -> None:
        """Start a timer for each slot that ends within the next two intervals."""
        async with self._engine.begin() as connection:
            slots = await coming_slots(
                connection,
                slot_s=SLOT_S,
                behind_s=2 * self._interval_s,
                ahead_s=2 * self._interval_s,
            )
        for slot, ends_in_s in slots:
            if slot not in self._timers:
                self._timers[slot] = asyncio.create_task(
                    self._wake(slot, max(ends_in_s + GRACE_S, 0.0)), name="deferred"
                )
        coming = {slot for slot, _ in slots}
        self._timers = {
            slot: task for slot, task in self._timers.items() if slot in coming or not task.done()
        }

    def close(self) -> None:
        """Cancel all timers."""
        for task in self._timers.values():
            task.cancel()

    async def _wake(self, slot: int, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        try:
            if not await self._redis.set(SENT_KEY.format(slot=slot), 1, nx=True, ex=SENT_FOR_S):
                return
            async with self._engine.begin() as connection:
                plans = await plan_due(connection, slot=slot, slot_s=SLOT_S)
            for plan in plans:
                for lane in self._dispatcher.lanes(plan):
                    await self._dispatcher.send_lane(plan, lane)
        except (DBAPIError, RedisError, TimeoutError, OSError) as error:
            log.warning("deferred_interrupted", error=cause(error))
        except Exception:
            log.exception("deferred_failed", slot=slot)

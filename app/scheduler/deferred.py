"""Sends lanes for agents that come back: their backoff is over, or their long wait is.

The time at which an agent may be claimed again is stored in Postgres, so this survives any process:
each looks ahead now and then, and at the time itself one of them sends the lanes. A lane that
lingers for a backoff of its own has claimed the agent by then. The watchdog finds what is missed.
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

#: Agents that come back within the same slot share their lanes.
SLOT_S = 0.5
#: After a slot's end: time for the lanes that lingered.
GRACE_S = 0.25
SENT_KEY = "agentchord:deferred:{slot}"
SENT_FOR_S = 600

log = structlog.get_logger(__name__)


class Deferred:
    """Timers for the agents that come back within the next few seconds.

    Args:
        engine: The process's engine.
        redis: The process's client: one process sends a slot's lanes.
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
        """Start a timer for each slot until the look after the next one."""
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

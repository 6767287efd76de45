"""Requests for admission, which clients send to the schedulers over Redis pub/sub.

A message through Celery costs the sender and the receiver some milliseconds of CPU each, and wakes
four threads on its way. A publication costs a tenth of that, and reaches the scheduler's loop at
once. Redis tells the sender how many schedulers listen. If none listens, the sender sends a message
of Celery, which waits in the queue for a scheduler.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from app.storage.group_commit import cause
from app.storage.redis import messages

CHANNEL = "agentchord:admission"
RECONNECT_S = 1.0
#: Seconds in which Redis must take a request; a frozen Redis must not hold up ``enqueue``.
SEND_S = 2.0

log = structlog.get_logger(__name__)


class Asks:
    """Sends requests for admission, or answers them in a process of the scheduler.

    A request has no content, because every admission looks at all pending runs. A lost request only
    costs time, because the watchdog admits runs as well.

    Example:
        task = asyncio.create_task(asks.answer(scheduler.admit))  # in a scheduler
        is_heard = await asks.send()  # in a client

    Args:
        redis: The process's client.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._wanted = asyncio.Event()

    async def send(self) -> bool:
        """Send a request; return whether a scheduler listens.

        Raises:
            RedisError: If Redis cannot be reached.
            OSError: If Redis cannot be reached, or does not answer in time.
        """
        async with asyncio.timeout(SEND_S):
            return bool(await self._redis.publish(CHANNEL, b"admit") > 0)

    async def answer(self, admit: Callable[[], Awaitable[None]]) -> None:
        """Admit after each request, until the task is cancelled.

        Requests that come during an admission share the next admission.

        Args:
            admit: Admits the runs that may start now.
        """
        listener = asyncio.create_task(self._listen(), name="admission_requests")
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                try:
                    await admit()
                except (DBAPIError, RedisError, TimeoutError, OSError) as error:
                    log.warning("admission_interrupted", error=cause(error))
                except Exception:
                    # The task must not end: the process would lose its part in the cluster.
                    log.exception("admission_failed")
        finally:
            listener.cancel()

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(RedisError, OSError):
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    self._wanted.set()  # a request may have been lost before
                    async for _ in messages(pubsub):
                        self._wanted.set()
            await asyncio.sleep(RECONNECT_S)

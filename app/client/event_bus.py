"""The events of all runs, for services of one's own: live from Redis, or from the history."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import suppress
from functools import partial

from app.client.client import process
from app.domain.events import RunEvent, checked_after
from app.events.stream import consume
from app.storage.event_log import last_id, parse_event, read_all, read_horizon

PAGE = 500
#: Between two tries to end an iteration whose last step has not ended yet.
CLOSE_STEP_S = 0.01


class EventBus:
    """What happens in the cluster, event by event, in the order of the history.

    The live events are those of a stream in Redis, which keeps the newest ones
    (``monitoring.stream_length``); the history in Postgres has all of them. Both tell the same
    events under the same ids.
    """

    def consume(
        self,
        group: str,
        consumer: str | None = None,
        *,
        after: int | None = None,
        stale_s: float = 60.0,
    ) -> Generator[RunEvent, None, None]:
        """Take part in a group, each event of which goes to one of its members; has no end.

        Asking for the next event says that the last one is done. Each comes at least once: one
        whose member dies or stops amid it comes again, to that member when it is back, or to
        another one. So what is done with it has to bear being done twice; ``id`` tells.

        Args:
            group: Name of the group, such as that of the service.
            consumer: Name of this member, unique in the group; by default of host and process.
            after: Where a group that is new begins: behind this event, 0 with the oldest that the
                stream has, None with those that are still to come.
            stale_s: Seconds after which an event that another member has not done is taken over.

        Raises:
            ServiceUnavailable: If Postgres cannot be reached at the start. If Redis cannot, it is
                waited for.
            ValueError: If the group has no name, or ``after`` or ``stale_s`` is out of range.
        """
        events = _live(group, consumer, after, stale_s)
        try:
            yield from process().iterate(events)
        finally:
            process().loop.run(_close(events))

    async def consume_async(
        self,
        group: str,
        consumer: str | None = None,
        *,
        after: int | None = None,
        stale_s: float = 60.0,
    ) -> AsyncGenerator[RunEvent, None]:
        """``consume`` for a caller on an event loop."""
        events = _live(group, consumer, after, stale_s)
        loop = process().loop
        try:
            while True:
                yield await loop.run_async(_next(events))
        finally:
            await loop.run_async(_close(events))

    def history(self, after: int | None = 0) -> Iterator[RunEvent]:
        """The events of all runs from Postgres, up to now, from the one after that id on.

        Args:
            after: Id of the last event already seen; 0 and None start from the beginning.

        Raises:
            ServiceUnavailable: If Postgres cannot be reached.
            ValueError: If ``after`` is no id of an event.
        """
        return _history(checked_after(after))


def _history(after: int) -> Iterator[RunEvent]:
    horizon = process().loop.run(process().client.transaction(read_horizon))
    while True:
        read = partial(read_all, after=after, limit=PAGE, horizon=horizon)
        page = process().loop.run(process().client.transaction(read))
        yield from map(parse_event, page.documents)
        if len(page.ids) < PAGE:
            return
        after, horizon = page.ids[-1], page.horizon


async def _live(
    group: str, consumer: str | None, after: int | None, stale_s: float
) -> AsyncGenerator[RunEvent, None]:
    """On the client's loop."""
    if not isinstance(group, str) or not group:
        raise ValueError(f"group is {group!r}: give the name of the service, such as 'mailer'")
    if not isinstance(stale_s, int | float) or not stale_s > 0:
        raise ValueError(f"stale_s is {stale_s!r}: give seconds above 0")
    client = process().client
    name = consumer or f"{socket.gethostname()}:{os.getpid()}"
    begin = await client.transaction(last_id) if after is None else checked_after(after)
    async for document in consume(client.consumer(group, name, stale_s=stale_s), after=begin):
        yield parse_event(document)


async def _next(events: AsyncGenerator[RunEvent, None]) -> RunEvent:
    return await anext(events)


async def _close(events: AsyncGenerator[RunEvent, None]) -> None:
    """End the iteration, also one whose last step has only just been told to stop."""
    while True:
        with suppress(RuntimeError):
            await events.aclose()
            return
        await asyncio.sleep(CLOSE_STEP_S)

"""The events of all runs, for services: live from Redis, or from the history."""

import os
import socket
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing
from functools import partial

from app.client.client import Client
from app.client.process import process, transaction
from app.domain.events import RunEvent, checked_after
from app.events.stream import consume
from app.storage.event_log import last_id, parse_event, read_all, read_horizon

PAGE = 500


class EventBus:
    """The events of the cluster, one by one, in the order of the history.

    Live events come from a stream in Redis. The stream keeps the newest events
    (``monitoring.stream_length``). The history in Postgres has all events. An event has the same id
    in the stream and in the history.

    If a group falls behind by more events than the stream keeps, the group misses events. A service
    that must have every event reads ``history`` and remembers the last id. ``Run.events`` follows
    one run.

    Example:
        for event in EventBus().consume("mailer"):
            if event.type == "run_failed":
                send_mail(event.run_id, event.data)
    """

    def consume(
        self,
        group: str,
        consumer: str | None = None,
        *,
        after: int | None = None,
        stale_s: float = 60.0,
    ) -> Generator[RunEvent, None, None]:
        """Join a group as a member, and yield the events for this member; the iteration never ends.

        Each event of the group goes to one member. When a member asks for the next event, the
        member acknowledges the previous event. Each event comes at least once. If a member dies or
        stops before it acknowledges an event, this event comes again, either to that member after
        its return or to another member. So a member must be able to handle an event twice without
        harm. The ``id`` of an event shows whether the event has come before.

        Args:
            group: Name of the group, such as the name of the service.
            consumer: Name of this member, unique in the group; by default, the name of the host
                and the id of the process.
            after: Id of the event after which a new group begins. With 0, the group begins with the
                oldest event of the stream; with None, the group begins with the next new event.
            stale_s: Seconds after which this member takes over an event that another member has
                not acknowledged.

        Raises:
            ServiceUnavailable: If Postgres cannot be reached at the start. While Redis cannot be
                reached, the iterator waits for Redis.
            ValueError: If the group has no name, or if ``after`` or ``stale_s`` is out of range.
        """
        yield from process().iterate(partial(_live, group, consumer, after, stale_s))

    async def consume_async(
        self,
        group: str,
        consumer: str | None = None,
        *,
        after: int | None = None,
        stale_s: float = 60.0,
    ) -> AsyncGenerator[RunEvent, None]:
        """Do the same as ``consume``, for a caller on an event loop."""
        events = process().iterate_async(partial(_live, group, consumer, after, stale_s))
        async with aclosing(events):
            async for event in events:
                yield event

    def history(self, after: int | None = 0) -> Iterator[RunEvent]:
        """Read the events of all runs from Postgres: the events after a given event, up to now.

        Args:
            after: Id of the last event already seen; 0 and None start from the beginning.

        Raises:
            ServiceUnavailable: If Postgres cannot be reached.
            ValueError: If ``after`` is not the id of an event.
        """
        return _history(checked_after(after))


def _history(after: int) -> Iterator[RunEvent]:
    horizon = transaction(read_horizon)
    while True:
        page = transaction(partial(read_all, after=after, limit=PAGE, horizon=horizon))
        yield from map(parse_event, page.documents)
        if len(page.ids) < PAGE:
            return
        after, horizon = page.ids[-1], page.horizon


async def _live(
    group: str, consumer: str | None, after: int | None, stale_s: float, client: Client
) -> AsyncGenerator[RunEvent, None]:
    """Iterate on the client's loop."""
    if not isinstance(group, str) or not group:
        raise ValueError(f"group is {group!r}: give the name of the service, such as 'mailer'")
    if not isinstance(stale_s, int | float) or not stale_s > 0:
        raise ValueError(f"stale_s is {stale_s!r}: give seconds above 0")
    name = consumer or f"{socket.gethostname()}:{os.getpid()}"
    begin = await client.transaction(last_id) if after is None else checked_after(after)
    member = client.history.consumer(group, name, after=begin, stale_s=stale_s)
    async for document in consume(member):
        yield parse_event(document)

"""The histories and the live texts of runs that are going, and the stream of all events."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from app.bootstrap import Platform
from app.client.runs import Runs
from app.client.transactions import Transactions
from app.domain.scope import Scope
from app.events.following import Look, follow
from app.events.stream import Group
from app.events.texts import Feed, Piece
from app.storage import event_log

EVENT_PAGE = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One line of a run's history.

    Attributes:
        id: A number that grows with time; ``events(after=id)`` continues after this event.
        type: Type of the event, such as ``agent_completed``. An event ``agent_text`` is a part of a
            streamed answer. Such an event is not stored, and has the id of the last stored event.
        at: Time of the event (UTC).
        attempt: Number of the agent's attempt; None if the event belongs to no attempt.
        data: Facts, such as the agent's name and the error.
    """

    id: int
    type: str
    at: datetime
    attempt: int | None
    data: Mapping[str, Any]


class History:
    """The histories of the runs of one scope.

    Args:
        platform: The process's platform.
        scope: The scope of the runs.
        transactions: The object that runs transactions in Postgres.
        runs: The runs of the scope.
        feed: The object that receives live texts.
    """

    def __init__(
        self, platform: Platform, scope: Scope, transactions: Transactions, runs: Runs, feed: Feed
    ) -> None:
        self._platform = platform
        self._scope = scope
        self._transactions = transactions
        self._runs = runs
        self._feed = feed

    async def events(self, run_id: UUID, after: int) -> AsyncGenerator[Event, None]:
        """Follow the history and the live texts of a run, from an event on, until the run ends.

        Raises:
            UnknownRun: If the scope has no such run.
        """

        async def look(after: int) -> Look:
            run = await self._runs.read(run_id)
            read = partial(event_log.read_run, run_id=run_id, after=after, limit=EVENT_PAGE)
            page = await self._transactions.run(read)
            ended = run.status.is_final and not page.held
            return Look(rows=page.rows, more=page.more, ended=ended)

        async with (
            self._platform.signals.watching(run_id) as news,
            self._feed.watching(run_id, news) as inbox,
        ):
            async for row in follow(after, look=look, news=news, inbox=inbox):
                yield Event(**row)

    async def texts(self, run_id: UUID) -> AsyncGenerator[Piece, None]:
        """Yield all text that streaming agents of a run generate from now on; never end.

        Raises:
            UnknownRun: If the scope has no such run.
        """
        async with self._feed.watching(run_id, asyncio.Event()) as inbox:
            await self._runs.read(run_id, patiently=True)
            while True:
                await inbox.news.wait()
                inbox.news.clear()
                for piece in inbox.take():
                    yield piece

    def consumer(self, group: str, name: str, *, after: int, stale_s: float) -> Group:
        """Return a member of a group that reads the stream of all events.

        Raises:
            OutOfScope: If the scope is a tenant, because the stream has the events of all tenants.
        """
        self._scope.check_all("the stream has the events of all tenants")
        return Group(self._platform.redis, group, name, after=after, stale_s=stale_s)

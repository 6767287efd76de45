"""Follows a run: yields each event of the run at once, and the live text of the run's agents."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from app.events.texts import TYPE, Inbox, Piece

#: Seconds between two looks at the history if no signal comes.
LOOK_S = 0.25

#: An event of the history, with the keys id, type, at, attempt and data.
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """The events that a look at the history has found.

    Attributes:
        rows: Events after the last event of the earlier looks, oldest first.
        more: Whether there are more events than one look returns.
        ended: Whether the run had ended before the look, so that no more events will come.
    """

    rows: list[Row]
    more: bool
    ended: bool


async def follow(
    after: int,
    *,
    look: Callable[[int], Awaitable[Look]],
    news: asyncio.Event,
    inbox: Inbox,
) -> AsyncIterator[Row]:
    """Follow a run to its end.

    A text comes after the ``agent_started`` event of its attempt, and before the event that marks
    the end of the attempt. A text has the id of the last event before the text, so that a caller
    that continues after this id misses no event.

    Args:
        after: Id of the last event that the caller has already seen.
        look: Reads the history after an id.
        news: Set when the history may have grown, or when a text has come.
        inbox: The texts that have come.
    """
    loop = asyncio.get_running_loop()
    known: set[tuple[str, int]] = set()
    pieces: list[Piece] = []
    looked_at_s = float("-inf")
    while True:
        # Texts are taken before the look. An agent with text has started, so the look finds the
        # event of the start.
        pieces += inbox.take()
        quick = pieces and all((piece.agent, piece.attempt) in known for piece in pieces)
        if not quick or loop.time() - looked_at_s > LOOK_S:
            looked_at_s = loop.time()
            found = await look(after)
            for row in found.rows:
                before, pieces = _before(row, pieces)
                for piece in before:
                    yield _event(piece, after)
                after = row["id"]
                yield row
            if found.more:
                continue
            if found.ended and not found.rows:
                for piece in [*pieces, *inbox.take()]:
                    yield _event(piece, after)
                return
            if found.rows:
                news.set()  # look again at once, because the run may have ended meanwhile
        for piece in pieces:
            known.add((piece.agent, piece.attempt))
            yield _event(piece, after)
        pieces = []
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(news.wait(), LOOK_S)
        news.clear()


def _before(row: Row, pieces: list[Piece]) -> tuple[list[Piece], list[Piece]]:
    """Split texts into the texts that belong before an event, and the other texts."""
    agent, attempt = row["data"].get("agent"), row["attempt"] or 0
    if row["type"] == "agent_started":
        attempt -= 1
    before = [piece for piece in pieces if piece.agent == agent and piece.attempt <= attempt]
    return before, [piece for piece in pieces if piece not in before]


def _event(piece: Piece, after: int) -> Row:
    return {
        "id": after,
        "type": TYPE,
        "at": piece.at,
        "attempt": piece.attempt,
        "data": piece.data,
    }

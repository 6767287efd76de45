"""The live text of streamed answers, without Redis: order, gaps, bounds and output."""

import asyncio
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from app.cli.progress_views import LineView
from app.events.following import Look, Row, follow
from app.events.texts import MAX_PIECES, MAX_WAITING_CHARS, Inbox, Piece, Publisher

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def piece(text: str, offset: int = 0, *, agent: str = "a", attempt: int = 1) -> Piece:
    return Piece(agent=agent, attempt=attempt, turn=1, offset=offset, text=text, at=NOW)


def row(id_: int, type_: str, agent: str | None = None, attempt: int | None = None) -> Row:
    data = {"agent": agent} if agent else {}
    return {"id": id_, "type": type_, "at": NOW, "attempt": attempt, "data": data}


async def followed(
    history: Sequence[Sequence[Row]], pieces: Sequence[Sequence[Piece]], after: int = 0
) -> list[tuple[int, str, Any]]:
    """The output of a follower, by the size of each reading and the texts before it."""
    news = asyncio.Event()
    inbox = Inbox(news=news)
    looks = iter([*history, []])
    arrivals = iter([*pieces[1:]])
    for each in pieces[0] if pieces else ():
        inbox.put(each)

    async def look(after: int) -> Look:
        rows = [row for row in next(looks) if row["id"] > after]
        for each in next(arrivals, ()):
            inbox.put(each)
        return Look(rows=rows, more=False, ended=True)

    return [
        (event["id"], event["type"], event["data"].get("text") or event["data"].get("agent"))
        async for event in follow(after, look=look, news=news, inbox=inbox)
    ]


async def test_texts_stand_between_the_start_and_the_end_of_their_attempt() -> None:
    history = [
        [row(1, "run_started"), row(2, "agent_started", "a", 1), row(3, "agent_started", "b", 1)],
        [row(4, "agent_completed", "a", 1), row(5, "agent_completed", "b", 1)],
    ]

    events = await followed(history, [[piece("one ")], [piece("two", 4), piece("x", agent="b")]])

    assert events == [
        (1, "run_started", None),
        (2, "agent_started", "a"),
        (3, "agent_started", "b"),
        (3, "agent_text", "one "),
        (3, "agent_text", "two"),
        (4, "agent_completed", "a"),
        (4, "agent_text", "x"),
        (5, "agent_completed", "b"),
    ]


async def test_the_text_of_a_retry_comes_after_its_own_start() -> None:
    history = [
        [row(1, "agent_started", "a", 1), row(2, "agent_retrying", "a", 1)],
        [row(3, "agent_started", "a", 2), row(4, "agent_completed", "a", 2)],
    ]

    events = await followed(history, [[piece("first")], [piece("second", attempt=2)]])

    assert [text for _, type_, text in events if type_ != "agent_completed"] == [
        "a",
        "first",
        "a",
        "a",
        "second",
    ]


async def test_text_that_comes_with_the_end_of_a_run_is_not_lost() -> None:
    events = await followed([[row(1, "run_completed")]], [[], [], [piece("late")]])

    assert events[-1] == (1, "agent_text", "late")


async def test_a_slow_follower_loses_the_oldest_pieces() -> None:
    inbox = Inbox(news=asyncio.Event())

    for number in range(MAX_PIECES + 5):
        inbox.put(piece(str(number), number))

    assert (inbox.lost, inbox.take()[0].offset, inbox.take()) == (5, 5, [])


class NoRedis:
    """In place of a client: refuses, so that nothing leaves."""

    def pipeline(self, **_: Any) -> Any:
        raise ConnectionError("away")


async def test_what_does_not_fit_is_dropped_and_leaves_a_gap() -> None:
    client: Any = NoRedis()
    publisher = Publisher(client)
    stream = publisher.open(run_id=UUID(int=1), agent="a", attempt=1, turn=1)

    stream.add("begin ")
    stream.add("x" * MAX_WAITING_CHARS)
    stream.add("after the gap")
    first = stream.message()
    await publisher.send()
    stream.add("go on")
    second = stream.message()
    await publisher.close()

    assert b'"offset":0,"text":"begin "' in first
    offset = len("begin ") + MAX_WAITING_CHARS + len("after the gap")
    assert f'"offset":{offset},"text":"go on"'.encode() in second
    assert publisher.dropped_chars >= MAX_WAITING_CHARS


async def test_half_a_surrogate_pair_stops_nothing() -> None:
    client: Any = NoRedis()
    publisher = Publisher(client)
    stream = publisher.open(run_id=UUID(int=1), agent="a", attempt=1, turn=1)

    stream.add("half \ud83d")

    assert b'"text":"half ?"' in stream.message()
    await publisher.close()


def test_plain_lines_show_text_line_by_line_without_steering_the_terminal() -> None:
    stream = io.StringIO()
    view = LineView(stream)

    view.add_text(piece("Dear \x1b[31mboard,\n\nmargins fell"))
    view.add_text(piece(" again. " + "word " * 25, 40))
    view.add_text(piece("anew", agent="b"))
    view.add_text(piece("second try", 0))

    lines = stream.getvalue().splitlines()
    assert lines[0] == "  a | Dear \\x1b[31mboard,"
    assert lines[1].startswith("  a | margins fell again. word")
    assert all(len(line) < 110 for line in lines)
    assert not any("anew" in line for line in lines)

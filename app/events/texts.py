"""Sends the text of streamed answers from workers to the clients that follow a run.

The text is sent over Redis pub/sub and is not stored. A client that begins late to follow a run
gets only the later text. Text is dropped if too much text waits, or if the text cannot be sent in
time. A client notices a gap, because the offset of the next piece jumps. The agent's output
contains the whole text in any case.
"""

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from app.telemetry.logging import of_nobody

CHANNEL = "agentchord:text:"
#: Seconds in which pieces are collected into one message, because one message for each piece would
#: cause more work in Redis than the calls themselves cause.
FLUSH_S = 0.05
#: Seconds that sending may take; after this time the text is dropped.
SEND_S = 1.0
#: Seconds that the end of an answer waits until the answer's last piece is sent.
CLOSE_S = 0.2
#: Characters that may wait to be sent, in one process.
MAX_WAITING_CHARS = 1_000_000
#: Pieces that may wait for a slow follower.
MAX_PIECES = 1000
RECONNECT_S = 1.0
TYPE = "agent_text"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of an answer.

    Attributes:
        agent: Name of the agent.
        attempt: Number of the agent's attempt.
        turn: Number of the call in that attempt, from 1; each call's text begins at offset 0.
        offset: Number of characters of the call's text before this part.
        text: The text of this part.
        at: Time at which the part was sent (UTC, by the worker's clock).
    """

    agent: str
    attempt: int
    turn: int
    offset: int
    text: str
    at: datetime

    @property
    def data(self) -> dict[str, Any]:
        """The fields that an event carries in its ``data``."""
        return {
            "agent": self.agent,
            "turn": self.turn,
            "offset": self.offset,
            "text": self.text,
        }


class Publisher:
    """Sends the text that this process's streaming agents generate.

    For agents that do not stream, the publisher costs nothing.

    Example:
        stream = publisher.open(run_id=run_id, agent="reader", attempt=1, turn=1)
        stream.add("The first words")
        await stream.close()

    Args:
        redis: The process's client.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[Stream] = []
        self._waiting_chars = 0
        self._sending = asyncio.Lock()
        self._flusher: asyncio.Task[None] | None = None
        self.dropped_chars = 0

    def open(self, *, run_id: UUID, agent: str, attempt: int, turn: int) -> "Stream":
        """Make a stream for the text of one call."""
        return Stream(self, run_id=run_id, agent=agent, attempt=attempt, turn=turn)

    def take(self, stream: "Stream", text: str) -> bool:
        """Make room for a piece; returns False if the piece has to be dropped."""
        if self._waiting_chars + len(text) > MAX_WAITING_CHARS:
            self.dropped_chars += len(text)
            return False
        self._waiting_chars += len(text)
        if not stream.parts:
            self._waiting.append(stream)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush(), name="texts", context=of_nobody())
        return True

    async def send(self) -> None:
        """Send all waiting pieces; pieces that cannot be sent within ``SEND_S`` are dropped."""
        async with self._sending:
            streams, self._waiting, self._waiting_chars = self._waiting, [], 0
            messages = [(stream.channel, stream.message()) for stream in streams]
            if not messages:
                return
            sent = False
            try:
                async with asyncio.timeout(SEND_S), self._redis.pipeline(transaction=False) as pipe:
                    for channel, message in messages:
                        pipe.execute_command("PUBLISH", channel, message)
                    await pipe.execute()
                sent = True
            except (RedisError, OSError) as error:  # TimeoutError is an OSError
                log.debug("texts_not_sent", error=str(error) or type(error).__name__)
            finally:  # also if the caller was cancelled
                if not sent:
                    self.dropped_chars += sum(len(message) for _, message in messages)

    async def close(self) -> None:
        """Stop sending."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.wait([self._flusher])

    async def _flush(self) -> None:
        while self._waiting:
            await asyncio.sleep(FLUSH_S)
            await self.send()


class Stream:
    """The text that waits to be sent and that belongs to one call.

    Args:
        publisher: Sends the text.
        run_id: The run.
        agent: Name of the agent.
        attempt: Number of the agent's attempt.
        turn: Number of the call in that attempt, from 1.
    """

    def __init__(
        self, publisher: Publisher, *, run_id: UUID, agent: str, attempt: int, turn: int
    ) -> None:
        self.channel = f"{CHANNEL}{run_id}"
        self.parts: list[str] = []
        self._publisher = publisher
        self._head = {"agent": agent, "attempt": attempt, "turn": turn}
        # Three numbers of characters: before the next message, in the next message, and in the
        # whole text.
        self._first = self._waiting = self._length = 0

    def add(self, text: str) -> None:
        """Add a piece; the piece waits for the next message, or is dropped."""
        # After a gap, no more text goes into the same message, because the text's offset would be
        # wrong.
        gap = self.parts and self._first + self._waiting < self._length
        if not gap and self._publisher.take(self, text):
            if not self.parts:
                self._first, self._waiting = self._length, 0
            self.parts.append(text)
            self._waiting += len(text)
        self._length += len(text)

    def message(self) -> bytes:
        """Take all waiting pieces as one message."""
        # A provider may split its text inside a surrogate pair. Half a pair is not valid text.
        text = "".join(self.parts).encode("utf-8", "replace").decode()
        self.parts = []
        at = datetime.now(UTC).isoformat()
        return orjson.dumps(self._head | {"offset": self._first, "text": text, "at": at})

    async def close(self) -> None:
        """Send the rest of a complete answer, before the end of the agent is written."""
        if self.parts:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._publisher.send()


@dataclass(kw_only=True, eq=False, slots=True)
class Inbox:
    """A run's pieces that have come and were not taken yet.

    Attributes:
        news: Set when a piece comes.
        lost: Number of pieces that were dropped because a slow follower did not take them in time.
    """

    news: asyncio.Event
    lost: int = 0
    _pieces: deque[Piece] = field(default_factory=deque)

    def put(self, piece: Piece) -> None:
        """Put a piece into the inbox; if the inbox is full, the oldest piece is dropped."""
        if len(self._pieces) >= MAX_PIECES:
            self._pieces.popleft()
            self.lost += 1
        self._pieces.append(piece)
        self.news.set()

    def take(self) -> list[Piece]:
        """Take all pieces, oldest first."""
        pieces = list(self._pieces)
        self._pieces.clear()
        return pieces


class Feed:
    """Receives the texts of the runs that this process follows; uses only one connection.

    Args:
        redis: The process's client.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._inboxes: dict[str, set[Inbox]] = defaultdict(set)
        self._pubsub: PubSub | None = None
        self._listener: asyncio.Task[None] | None = None
        self._closed = False

    @contextlib.asynccontextmanager
    async def watching(self, run_id: UUID, news: asyncio.Event) -> AsyncIterator[Inbox]:
        """Yield an inbox that gets the texts of a run from now on.

        Args:
            run_id: The run.
            news: Set whenever a piece comes.
        """
        channel, inbox = f"{CHANNEL}{run_id}", Inbox(news=news)
        self._inboxes[channel].add(inbox)
        if self._listener is None:
            self._listener = asyncio.create_task(self._receive(), name="texts")
        elif len(self._inboxes[channel]) == 1:
            await self._tell("subscribe", channel)
        try:
            yield inbox
        finally:
            self._inboxes[channel].discard(inbox)
            if not self._inboxes[channel]:
                del self._inboxes[channel]
                await self._tell("unsubscribe", channel)

    async def close(self) -> None:
        """Stop listening."""
        self._closed = True
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener], timeout=2 * RECONNECT_S)

    async def _tell(self, word: str, channel: str) -> None:
        """Subscribe or unsubscribe; a new connection subscribes to all channels by itself."""
        if self._pubsub is not None:
            with contextlib.suppress(RedisError, OSError):
                await getattr(self._pubsub, word)(channel)

    async def _receive(self) -> None:
        while not self._closed:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    # The bare prefix belongs to no run. The subscription to the bare prefix keeps
                    # the connection open when no run is followed.
                    known = {CHANNEL, *self._inboxes}
                    await pubsub.subscribe(*known)
                    self._pubsub = pubsub
                    if late := self._inboxes.keys() - known:
                        await pubsub.subscribe(*late)
                    async for message in pubsub.listen():
                        self._deliver(message["channel"].decode(), message["data"])
            except (RedisError, OSError) as error:
                if not self._closed:
                    log.debug("texts_lost", error=str(error), retry_in_s=RECONNECT_S)
                    await asyncio.sleep(RECONNECT_S)
            finally:
                self._pubsub = None

    def _deliver(self, channel: str, data: bytes) -> None:
        try:
            facts = orjson.loads(data)
            piece = Piece(**facts | {"at": datetime.fromisoformat(facts["at"])})
        except (KeyError, TypeError, ValueError):
            return  # another version or another program has sent the message
        for inbox in self._inboxes.get(channel, ()):
            inbox.put(piece)

"""Redis as simulated processes see it, apart from the queues: signals, and the epoch key.

Signals get lost or come late. While Redis is away, every command fails.
"""

import asyncio
import random
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from redis.exceptions import ConnectionError as RedisConnectionError

from tests.simulation.loop import CURRENT, Process, VirtualLoop


class Messenger:
    """The server, with its keys and subscribers.

    Args:
        loop: The simulation's loop.
        generator: Draws delays and losses.
    """

    def __init__(self, loop: VirtualLoop, generator: random.Random) -> None:
        self._loop, self._generator = loop, generator
        self.keys: dict[str, bytes] = {}
        self.subscribers: list[tuple[Process, asyncio.Queue[dict[str, Any]]]] = []
        self.away = False
        self.lost_share = 0.0

    def check(self) -> None:
        """Raise an error if Redis cannot be reached."""
        if self.away:
            raise RedisConnectionError("connection refused")

    async def travel(self) -> None:
        """Let the time of a command pass, and check that Redis can be reached."""
        await asyncio.sleep(self._generator.expovariate(1 / 0.0005))
        self.check()

    def deliver(self, data: bytes) -> int:
        """Send a message to all subscribers, and return their number."""
        for process, queue in self.subscribers:
            if process.alive and self._generator.random() >= self.lost_share:
                delay_s = self._generator.expovariate(1 / 0.002)
                self._loop.at(delay_s, lambda q=queue: q.put_nowait({"data": data}))  # type: ignore[misc]
        return len(self.subscribers)

    def flush(self) -> None:
        """Forget everything, as FLUSHALL does."""
        self.keys.clear()


class SimulatedRedis:
    """The part of ``redis.asyncio.Redis`` that the product uses."""

    def __init__(self, messenger: Messenger) -> None:
        self._messenger = messenger

    async def set(self, key: str, value: str | int, *, nx: bool = False, **_: int) -> bool:
        """Do SET, with NX; a key never expires before the end of the simulation."""
        await self._messenger.travel()
        if nx and key in self._messenger.keys:
            return False
        self._messenger.keys[key] = str(value).encode()
        return True

    async def get(self, key: str) -> bytes | None:
        """Do GET."""
        await self._messenger.travel()
        return self._messenger.keys.get(key)

    async def publish(self, channel: str, message: str) -> int:
        """Do PUBLISH; only one channel exists."""
        await self._messenger.travel()
        return self._messenger.deliver(message.encode())

    def pubsub(self, **_: Any) -> "Subscription":
        """Return a subscription that has not begun."""
        return Subscription(self._messenger)


@dataclass(eq=False)
class Subscription:
    """The part of ``PubSub`` that the product uses."""

    messenger: Messenger

    def __post_init__(self) -> None:
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.messenger.subscribers = [
            found for found in self.messenger.subscribers if found[1] is not self._queue
        ]

    async def subscribe(self, channel: str) -> None:
        """Do SUBSCRIBE."""
        await self.messenger.travel()
        process = CURRENT.get()
        assert process is not None, "only processes listen"
        self.messenger.subscribers.append((process, self._queue))

    def listen(self) -> Self:
        """Return the messages, in the order of their arrival."""
        return self

    # This is no generator, because the loop would have to close the generator of a dead process.

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        return await self._queue.get()

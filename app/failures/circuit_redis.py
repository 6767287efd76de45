"""The circuits of a cluster, stored in Redis; a Lua script makes each exchange atomic.

A circuit is one key, and the circuit's name is the hash tag of the key. After Redis was flushed,
all circuits are closed, so some calls have to fail before a circuit opens again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict

import orjson
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.domain.circuit import CircuitBreakerConfig
from app.errors import ServiceUnavailable
from app.failures.circuit import CircuitNews, Message, View
from app.storage.redis import Script, messages, stop_listening

PREFIX = "agentchord:circuits"
RECONNECT_S = 0.5

log = structlog.get_logger(__name__)


class RedisCircuits:
    """Circuits in Redis 6.2 or newer.

    Each exchange costs a round trip. News over pub/sub may be lost, so processes also ask again
    from time to time.

    Args:
        redis: The process's client, without ``decode_responses``. ``close`` does not close this
            client.
        config: The policy of all circuits.
        clock: Returns seconds since the epoch; tests use this function instead of Redis's clock.
    """

    def __init__(
        self,
        redis: Redis,
        config: CircuitBreakerConfig,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._redis = redis
        self._config = orjson.dumps(asdict(config))
        self._clock = clock
        self._script = Script(redis, "app.failures", "circuit.lua")
        self._listener: asyncio.Task[None] | None = None

    async def exchange(self, circuit: str, message: Message | None) -> View:
        """Apply a message and return the state, as ``CircuitBackend.exchange`` describes."""
        now = [] if self._clock is None else [repr(self._clock())]
        arguments = [self._config, orjson.dumps(message), f"{PREFIX}:news", circuit, *now]
        try:
            raw = await self._script.run([_key(circuit)], arguments)
            if message is not None and message.bad:
                await self._redis.sadd(f"{PREFIX}:names", circuit)
        except (RedisError, OSError) as error:
            raise ServiceUnavailable(f"Redis does not serve circuit breakers: {error}") from error
        answer = orjson.loads(raw)
        return View(**answer | {"at": int(answer["at"])})

    async def names(self) -> list[str]:
        """Return the circuits' names, and remove the names of expired circuits."""
        try:
            found = sorted(await self._redis.smembers(f"{PREFIX}:names"))
            names = [name if isinstance(name, str) else name.decode() for name in found]
            for name in list(names):
                if not await self._redis.exists(_key(name)):
                    await self._redis.srem(f"{PREFIX}:names", name)
                    names.remove(name)
        except (RedisError, OSError) as error:
            raise ServiceUnavailable(f"Redis does not serve circuit breakers: {error}") from error
        return names

    def listen(self, on_news: Callable[[CircuitNews], None]) -> None:
        """Call ``on_news`` with all news until ``close`` is called."""
        self._listener = asyncio.create_task(self._listen(on_news), name="circuit_news")

    async def close(self) -> None:
        """Stop listening."""
        await stop_listening(self._listener)

    async def _listen(self, on_news: Callable[[CircuitNews], None]) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(f"{PREFIX}:news")
                    async for message in messages(pubsub):
                        if message["type"] == "message":
                            news = orjson.loads(message["data"])
                            on_news(CircuitNews(**news | {"at": int(news["at"])}))
                        elif message["type"] == "subscribe":  # also after every reconnect
                            on_news(CircuitNews(circuit=""))
            except (RedisError, OSError) as error:
                log.debug("circuit_news_lost", error=str(error), retry_in_s=RECONNECT_S)
            await asyncio.sleep(RECONNECT_S)


def _key(circuit: str) -> str:
    """Return the key; braces in the name are replaced, because they would end the hash tag."""
    return f"{PREFIX}:{{{circuit.translate({ord('{'): '(', ord('}'): ')'})}}}:state"

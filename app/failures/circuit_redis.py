"""The circuits of a cluster: in Redis, where a Lua script makes each exchange atomic.

A circuit is one key with its name as hash tag. A flushed Redis has closed circuits only, which
costs the calls that open them again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from hashlib import sha1
from importlib.resources import files

import orjson
import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from app.domain.circuit import CircuitBreakerConfig
from app.errors import ServiceUnavailable
from app.failures.circuit import CircuitNews, Message, View

PREFIX = "agentchord:circuits"
RECONNECT_S = 0.5
CLOSE_STEP_S = 0.1
#: A silent connection gets a PING after this time, and the same time again to answer it.
QUIET_S = 15.0

log = structlog.get_logger(__name__)


class RedisCircuits:
    """Circuits in Redis 6.2 or newer.

    Each exchange is a round trip, and news over pub/sub may be lost, so processes also ask again.
    Within one process ``MemoryCircuits`` does the same without Redis.

    Args:
        redis: The process's client, without ``decode_responses``. It is not closed here.
        config: The policy of all circuits.
        clock: Seconds since the epoch instead of Redis's own clock, for tests.
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
        self._text = files("app.failures").joinpath("circuit.lua").read_text("utf-8")
        self._hash = sha1(self._text.encode(), usedforsecurity=False).hexdigest()
        self._listener: asyncio.Task[None] | None = None

    async def exchange(self, circuit: str, message: Message | None) -> View:
        """Exchange as ``CircuitBackend`` says."""
        now = [] if self._clock is None else [repr(self._clock())]
        arguments: tuple[str | bytes, ...] = (
            _key(circuit),
            self._config,
            orjson.dumps(message),
            f"{PREFIX}:news",
            circuit,
            *now,
        )
        try:
            try:
                raw = await self._redis.evalsha(self._hash, 1, *arguments)
            except NoScriptError:
                raw = await self._redis.eval(self._text, 1, *arguments)
            if message is not None and message.bad:
                await self._redis.sadd(f"{PREFIX}:names", circuit)
        except (RedisError, OSError) as error:
            raise ServiceUnavailable(f"Redis does not serve circuit breakers: {error}") from error
        answer = orjson.loads(raw)
        return View(**answer | {"at": int(answer["at"])})

    async def names(self) -> list[str]:
        """Return names as ``CircuitBackend`` says; those of expired circuits are forgotten."""
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
        """Call ``on_news`` until ``close``."""
        self._listener = asyncio.create_task(self._listen(on_news), name="circuit_news")

    async def close(self) -> None:
        """Stop listening."""
        while self._listener is not None and not self._listener.done():
            # Repeatedly: redis-py may swallow a cancellation that meets an answer.
            self._listener.cancel()
            await asyncio.wait([self._listener], timeout=CLOSE_STEP_S)

    async def _listen(self, on_news: Callable[[CircuitNews], None]) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(f"{PREFIX}:news")
                    asked = False
                    while True:
                        message = await pubsub.get_message(timeout=QUIET_S)
                        if message is None:
                            if asked:
                                break
                            await pubsub.ping()
                            asked = True
                            continue
                        asked = False
                        if message["type"] == "message":
                            news = orjson.loads(message["data"])
                            on_news(CircuitNews(**news | {"at": int(news["at"])}))
                        elif message["type"] == "subscribe":  # also after every reconnect
                            on_news(CircuitNews(circuit=""))
            except (RedisError, OSError) as error:
                log.debug("circuit_news_lost", error=str(error), retry_in_s=RECONNECT_S)
            await asyncio.sleep(RECONNECT_S)


def _key(circuit: str) -> str:
    """Return the key, with the circuit's name as hash tag: braces would end it early."""
    return f"{PREFIX}:{{{circuit.translate({ord('{'): '(', ord('}'): ')'})}}}:state"

"""The backend of a cluster: buckets are in Redis, and each exchange is one atomic Lua script."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.errors import ServiceUnavailable
from app.rate_limits.base import Exchange, Grant, News, Reply
from app.rate_limits.tiers import BucketSpec
from app.storage.redis import Script, messages, stop_listening

PREFIX = "agentchord:limits"
FOLDER = "app.rate_limits.backends"
RECONNECT_S = 0.5

log = structlog.get_logger(__name__)


class RedisBackend:
    """Buckets in Redis 6.2 or newer.

    Weakness: every exchange reads the first requests of all processes that wait for the bucket.
    With hundreds of processes, an exchange is slow. Give a cluster of this size several buckets
    (accounts), or fewer and larger processes. A single process can use ``MemoryBackend``, which
    needs no Redis.

    Args:
        redis: The process's client, which must not have ``decode_responses``. This class does not
            close the client.
        clock: Returns the seconds since the epoch, for tests; None means Redis's own clock.

    Example:
        limiter = ClusterLimiter(RedisBackend(Redis.from_url(url)), resolve)
    """

    def __init__(self, redis: Redis, *, clock: Callable[[], float] | None = None) -> None:
        self._redis = redis
        self._clock = clock
        self._exchange = Script(redis, FOLDER, "bucket.lua", "exchange.lua")
        self._snapshot = Script(redis, FOLDER, "bucket.lua", "snapshot.lua")
        self._epochs: dict[str, str] = {}
        self._listener: asyncio.Task[None] | None = None

    async def exchange(self, spec: BucketSpec, message: Exchange) -> Reply:
        """See ``LimiterBackend``."""
        keys = _keys(spec.bucket, "state", "leases", "shares", "heads")
        keys.append(f"{PREFIX}:{{{_tag(spec.bucket)}}}:answer:{message.process}")
        arguments = [spec.wire, orjson.dumps(message, default=tuple), PREFIX, *self._now()]
        try:
            raw = await self._exchange.run(keys, arguments)
            answer = orjson.loads(raw)
            if self._epochs.get(spec.bucket) != answer["epoch"]:
                await self._redis.sadd(f"{PREFIX}:buckets", spec.bucket)
                self._epochs[spec.bucket] = answer["epoch"]
        except (RedisError, OSError) as error:
            if _is_mistake(error):
                raise  # a repetition would not help
            raise ServiceUnavailable(f"Redis does not serve rate limits: {error}") from error
        return _reply(answer)

    async def listen(self, process: str, on_news: Callable[[News], None]) -> None:
        """See ``LimiterBackend``."""
        listening = asyncio.Event()
        self._listener = asyncio.create_task(
            self._listen(process, on_news, listening), name="limit_news"
        )
        await listening.wait()

    async def snapshot(self) -> list[dict[str, Any]]:
        """See ``LimiterBackend``."""
        found = []
        try:
            for name in sorted(await self._redis.smembers(f"{PREFIX}:buckets")):
                bucket = name if isinstance(name, str) else name.decode()
                raw = await self._snapshot.run(
                    _keys(bucket, "state", "leases", "heads"), self._now()
                )
                if raw is None:
                    await self._redis.srem(f"{PREFIX}:buckets", name)
                else:
                    shown = orjson.loads(raw)
                    found.append(shown | {"tiers": shown["tiers"] or []})
        except (RedisError, OSError) as error:
            raise ServiceUnavailable(f"Redis does not serve rate limits: {error}") from error
        return found

    async def close(self) -> None:
        """See ``LimiterBackend``."""
        await stop_listening(self._listener)

    def _now(self) -> list[str]:
        return [] if self._clock is None else [repr(self._clock())]

    async def _listen(
        self, process: str, on_news: Callable[[News], None], listening: asyncio.Event
    ) -> None:
        channels = (f"{PREFIX}:pauses", f"{PREFIX}:process:{process}")
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(*channels)
                    async for message in messages(pubsub):
                        if message["type"] == "message":
                            on_news(News(**orjson.loads(message["data"])))
                        elif message["type"] == "subscribe":  # also after every reconnect
                            listening.set()
                            on_news(News(bucket=""))
            except (RedisError, OSError) as error:
                log.debug("limit_news_lost", error=str(error), retry_in_s=RECONNECT_S)
            await asyncio.sleep(RECONNECT_S)


def _is_mistake(error: Exception) -> bool:
    """Return whether a script failed because of a mistake, not because of the state of Redis."""
    text = str(error)
    return "user_script" in text and not any(
        word in text for word in ("OOM", "MISCONF", "READONLY")
    )


def _keys(bucket: str, *names: str) -> list[str]:
    return [f"{PREFIX}:{{{_tag(bucket)}}}:{name}" for name in names]


def _tag(bucket: str) -> str:
    """Return the bucket's name as a hash tag, without braces, because a brace would end the tag."""
    return bucket.translate({ord("{"): "(", ord("}"): ")"})


def _reply(answer: dict[str, Any]) -> Reply:
    seconds, fraction = answer["time_s"]
    return Reply(
        time_s=seconds + fraction,
        epoch=answer["epoch"],
        grants=[Grant(*grant) for grant in answer["grants"]],  # {} if empty, as Lua writes it
        ask_in_s=answer.get("ask_in_s"),
        paused_s=answer["paused_s"],
        careful=answer["careful"],
        rebuild=answer.get("rebuild") or [],
        spent=tuple(answer["spent"]),
        shares=answer["shares"],
        long_s=answer["long_s"],
        long_tier=answer.get("long_tier") or "",
        blocked_by=answer["blocked_by"],
    )

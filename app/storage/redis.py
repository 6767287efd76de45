"""Connections, scripts and subscriptions of Redis, and the forms of its URL that programs need.

redis-py and Celery need different forms of the URL.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import NoScriptError

from app.errors import ConfigurationError

SCHEMES = ("redis", "rediss", "unix")
CLOSE_STEP_S = 0.1
#: Seconds of silence after which a connection gets a PING, and seconds in which Redis must answer.
QUIET_S = 15.0


def check_redis_url(url: str) -> str:
    """Check that a URL begins with redis://, rediss:// or unix://, and return it unchanged.

    Raises:
        ConfigurationError: If the URL begins with another scheme. The message does not repeat the
            URL, because the URL may hold a password.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise ConfigurationError(
            "REDIS_URL is not a Redis URL: write redis://host:6379/0, rediss://... or "
            "unix:///path/to/socket?db=0"
        )
    return url


def celery_redis_url(url: str) -> str:
    """Return the URL in the form that Celery's broker and result backend need."""
    parts = urlsplit(check_redis_url(url))
    query = parse_qs(parts.query)
    if parts.scheme == "unix":
        db = query.get("db", ["0"])[0]
        return f"redis+socket://{parts.path}?virtual_host={db}"
    if parts.scheme == "rediss" and "ssl_cert_reqs" not in query:
        # redis-py checks certificates by default; Celery needs the option.
        return f"{url}{'&' if parts.query else '?'}ssl_cert_reqs=required"
    return url


def connect_redis(url: str, *, max_connections: int = 32) -> Redis:
    """Make a client whose callers wait for a free connection instead of failing."""
    pool = BlockingConnectionPool.from_url(
        check_redis_url(url),
        max_connections=max_connections,
        timeout=None,
        socket_timeout=10,
        socket_connect_timeout=5,
        health_check_interval=25,
        decode_responses=False,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), retries=3),
    )
    return Redis.from_pool(pool)  # the pool is closed together with the client


def redis_place(url: str) -> str:
    """Return host and port, or the socket's path; this part of the URL contains no secrets."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"


class Script:
    """A Lua script, which is sent as a hash; if Redis does not know the hash, Redis gets the text.

    Args:
        redis: The process's client.
        package: The package that contains the files.
        names: Names of the files that make up the script, in order.
    """

    def __init__(self, redis: Redis, package: str, *names: str) -> None:
        self._redis = redis
        self._text = "\n".join(files(package).joinpath(name).read_text("utf-8") for name in names)
        self._hash = sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run the script and return its result."""
        try:
            return await self._redis.evalsha(self._hash, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self._redis.eval(self._text, len(keys), *keys, *arguments)


async def messages(pubsub: PubSub) -> AsyncIterator[dict[str, Any]]:
    """Yield messages; ends when the connection is silent and Redis does not answer a PING."""
    asked = False
    while True:
        message = await pubsub.get_message(timeout=QUIET_S)
        if message is not None:
            asked = False
            yield message
        elif asked:
            return
        else:
            await pubsub.ping()
            asked = True


async def stop_listening(listener: asyncio.Task[None] | None) -> None:
    """Cancel a task that reads messages, and wait for its end."""
    while listener is not None and not listener.done():
        # The cancellation is repeated, because redis-py may lose a cancellation that comes at the
        # same time as an answer.
        listener.cancel()
        await asyncio.wait([listener], timeout=CLOSE_STEP_S)

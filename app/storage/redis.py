"""Connections, scripts and subscriptions of Redis, in the forms that redis-py and Celery need."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from redis import Redis as SyncRedis
from redis import connection as sync_connection
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio import connection as async_connection
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    AuthenticationError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from app.configuration.service_urls import RedisUrl, read_redis_url
from app.errors import ConfigurationError

CLOSE_STEP_S = 0.1
#: Seconds of silence after which a connection gets a PING, and seconds in which Redis must answer.
QUIET_S = 15.0
#: Seconds in which Redis must answer to the first question of a client.
ANSWER_S = 1.0
#: Answers that concern this server, and not the command. redis-py has classes for the first three
#: answers; an answer inside of a script's error has no class.
_REFUSAL_CLASSES = (ReadOnlyError, OutOfMemoryError, MasterDownError)
_REFUSAL = re.compile(
    r"(?:^|\s-)(?:READONLY|OOM|MASTERDOWN|MISCONF|NOREPLICAS|UNBLOCKED|BUSY) ", re.ASCII
)
#: Answers to a new connection for which no wait helps: wrong accounts, databases, certificates.
_HOPELESS = re.compile(r"DB index|invalid DB|Invalid Database|\[SSL|CERTIFICATE_VERIFY_FAILED")
_UNSUITABLE = {
    "cluster": "a Redis Cluster, in which no script could change keys of two slots: use one Redis "
    "(with replicas, if necessary) without cluster mode",
    "sentinel": "a Sentinel: write the address of the Redis that the Sentinel watches",
}


class ServerRefusal(RedisConnectionError):
    """This Redis takes no command, or no write: it is a replica, out of memory or out of disk.

    The class is a class of lost connections, because redis-py, Celery and AgentChord then do the
    right thing: they connect again, perhaps to a better server, and they wait in the meantime.
    """


class _Renewing:
    """A connection that closes itself after a refusal by the server.

    Only the reading of errors differs from redis-py, so an answer without an error costs nothing.
    redis-py closes a connection on which a lost connection is raised.
    """

    def set_parser(self, parser_class: type) -> None:
        super().set_parser(_noticing_refusals(parser_class))  # type: ignore[misc]


class _Checked(_Renewing):
    """The same for connections of synchronous code, which keep the server's answer to HELLO."""

    def on_connect_check_health(self, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health)  # type: ignore[misc]
        hello: Mapping[Any, Any] = self.handshake_metadata or {}  # type: ignore[attr-defined]
        mode = hello.get("mode", hello.get(b"mode", b""))
        try:
            _check_mode(mode)
        except ConfigurationError:
            self.disconnect()  # type: ignore[attr-defined]
            raise


def _check_mode(mode: bytes | str) -> None:
    if reason := _UNSUITABLE.get(mode.decode() if isinstance(mode, bytes) else mode):
        raise ConfigurationError(f"REDIS_URL leads to {reason}")


@cache
def _noticing_refusals(parser_class: Any) -> type:
    def parse_error(response: str) -> Exception:
        error: Exception = parser_class.parse_error(response)
        refused = isinstance(error, _REFUSAL_CLASSES) or _REFUSAL.search(str(error))
        return ServerRefusal(f"Redis refuses commands: {error}") if refused else error

    return type(parser_class.__name__, (parser_class,), {"parse_error": staticmethod(parse_error)})


@cache
def renewing(connection_class: type) -> type:
    """Return redis-py's class of connections, with connections that renew themselves."""
    asynchronous = issubclass(connection_class, async_connection.AbstractConnection)
    own = _Renewing if asynchronous else _Checked
    return type(f"Renewing{connection_class.__name__}", (own, connection_class), {})


def connection_parameters(url: RedisUrl, library: Any) -> dict[str, Any]:
    """Return the arguments of redis-py's pools of connections.

    Args:
        url: The URL of Redis.
        library: ``redis.connection`` or ``redis.asyncio.connection``.
    """
    shared = {"username": url.username, "password": url.password, "db": url.db}
    if url.path:
        kind = library.UnixDomainSocketConnection
        return {"connection_class": renewing(kind), "path": url.path, **shared}
    kind = library.Connection if url.tls is None else library.SSLConnection
    return {
        "connection_class": renewing(kind),
        "host": url.host,
        "port": url.port,
        **shared,
        **(tls_options(url) or {}),
    }


def tls_options(url: RedisUrl) -> dict[str, Any] | None:
    """Return the arguments of redis-py for TLS; None for a connection without TLS."""
    if url.tls is None:
        return None
    options: dict[str, Any] = dict(url.tls)
    if check := options.get("ssl_check_hostname"):
        options["ssl_check_hostname"] = check.lower() == "true"
    return options


def celery_redis_url(text: str) -> str:
    """Return the URL of Celery's broker and result backend; TLS has settings of its own."""
    url = read_redis_url(text)
    account = ":".join(quote(part or "", safe="") for part in (url.username, url.password))
    at = f"{account}@" if account != ":" else ""
    if url.path:
        return f"redis+socket://{at}{quote(url.path)}?virtual_host={url.db}"
    scheme = "redis" if url.tls is None else "rediss"
    place = url.place.replace("%", "%25")  # the zone of an address of IPv6
    return f"{scheme}://{at}{place}/{url.db}"


def connect_redis(url: str, *, max_connections: int = 32) -> Redis:
    """Make a client whose callers wait for a free connection instead of failing."""
    pool = BlockingConnectionPool(
        **connection_parameters(read_redis_url(url), async_connection),
        max_connections=max_connections,
        timeout=None,
        socket_timeout=10,
        socket_connect_timeout=5,
        health_check_interval=25,
        decode_responses=False,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), retries=3),
    )
    return Redis.from_pool(pool)  # the pool is closed together with the client


@contextlib.contextmanager
def _connected(url: str) -> Iterator[SyncRedis]:
    pool = sync_connection.ConnectionPool(
        **connection_parameters(read_redis_url(url), sync_connection),
        socket_timeout=5,
        socket_connect_timeout=5,
        decode_responses=True,
    )
    with SyncRedis.from_pool(pool) as redis:
        yield redis


def ask_server(url: str) -> dict[str, str]:
    """Return the server's answer to HELLO, which every user may send: version, mode and role.

    Raises:
        ConfigurationError: If the server is a Redis Cluster or a Sentinel.
        redis.exceptions.RedisError: If Redis cannot be reached.
    """
    with _connected(url) as redis:
        answer: dict[str, Any] = redis.execute_command("HELLO", 3)  # type: ignore[no-untyped-call]
    return {name: str(value) for name, value in answer.items()}


def server_memory(url: str) -> dict[str, Any]:
    """Return the section about memory of the server's answer to INFO.

    Raises:
        redis.exceptions.RedisError: If Redis cannot be reached, or if the user may not send INFO.
    """
    with _connected(url) as redis:
        answer: dict[str, Any] = redis.info("memory")
    return answer


def refuse_unsuitable(url: str) -> None:
    """Refuse a Redis with which no process of AgentChord could work, at the start of a process.

    A Redis that cannot be reached is not refused, because the process waits for this Redis.

    Raises:
        ConfigurationError: If the server is a Redis Cluster or a Sentinel, or if the server refuses
            the account, the database or the certificate of REDIS_URL.
    """
    try:
        ask_server(url)
    except RedisError as error:
        _refuse_hopeless(error)


async def refuse_unsuitable_soon(redis: Redis) -> None:
    """Refuse the same servers for a client on an event loop, which must not be held up.

    A server that does not answer within ``ANSWER_S`` is not refused.

    Raises:
        ConfigurationError: As ``refuse_unsuitable``.
    """
    try:
        mode = await asyncio.wait_for(_mode(redis), ANSWER_S)
    except TimeoutError:
        return
    except RedisError as error:
        _refuse_hopeless(error)
        return
    _check_mode(mode)


async def _mode(redis: Redis) -> bytes:
    answer: Any = await redis.execute_command("HELLO")  # type: ignore[no-untyped-call]
    pairs = answer if isinstance(answer, Mapping) else dict(zip(*[iter(answer)] * 2, strict=True))
    mode: bytes = pairs.get(b"mode", b"")
    return mode


def _refuse_hopeless(error: RedisError) -> None:
    """Raise an error of the account, the database or the certificate; no answer has a password."""
    if isinstance(error, AuthenticationError) or _HOPELESS.search(str(error)):
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"Redis refuses REDIS_URL: {reason}") from error


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

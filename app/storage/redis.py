"""Connections to Redis, and its URL in the two spellings that redis-py and Celery want."""

from urllib.parse import parse_qs, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from app.errors import ConfigurationError

SCHEMES = ("redis", "rediss", "unix")


def check_redis_url(url: str) -> str:
    """Return the URL itself, if it is one of redis://, rediss:// or unix://.

    Raises:
        ConfigurationError: Otherwise; the message does not repeat it, it may hold a password.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise ConfigurationError(
            "REDIS_URL is not a Redis URL: write redis://host:6379/0, rediss://... or "
            "unix:///path/to/socket?db=0"
        )
    return url


def celery_redis_url(url: str) -> str:
    """Return the URL as Celery's broker and result backend spell it."""
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
    return Redis.from_pool(pool)  # which closes the pool with the client


def redis_place(url: str) -> str:
    """Return host and port, or the socket's path: the part of the URL without secrets."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"

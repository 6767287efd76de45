"""Connections to Postgres: one engine per process; timeouts keep it from blocking the cluster.

A frozen or cut-off process would otherwise keep its row locks until the kernel gives up on the
connection, which takes hours by default.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.errors import ConfigurationError

#: With the heartbeat's own one, a process has at most six.
MAX_CONNECTIONS = 5
SESSION_SETTINGS = {
    "idle_in_transaction_session_timeout": "15s",
    "statement_timeout": "60s",
    "lock_timeout": "20s",
    "timezone": "UTC",
    "jit": "off",  # short statements: planning a JIT costs more than it saves
}
#: For processes that move runs on: a few rows at a time, which an index finds. The planner does not
#: see how few, scans and hashes whole tables while these are small, and plans every time anew.
LOOKUP_SETTINGS = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}
TCP_SETTINGS = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
DRIVER = "postgresql+psycopg"
HOST = re.compile(r"[\w.:,%-]+")


def dumps(value: Any, *, sort_keys: bool = False) -> str:
    """Write a JSON value as text, the form that every statement takes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None).decode()


def database_url(url: str) -> URL:
    """Parse a Postgres URL of any common spelling into the one form used here.

    Raises:
        ConfigurationError: If it is not a Postgres URL; the message does not repeat it, because
            it may hold a password.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(
            "DATABASE_URL is not a URL: write it as postgresql://user:password@host:5432/name"
        ) from error
    if parsed.host and not HOST.fullmatch(parsed.host):
        raise ConfigurationError(
            f"DATABASE_URL has the host {parsed.host!r}: "
            "write it as postgresql://user:password@host:5432/name"
        )
    if parsed.drivername.split("+")[0] not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"DATABASE_URL names {parsed.drivername!r}: AgentChord keeps its records in Postgres "
            "(15 or newer), write postgresql://user:password@host:5432/name"
        )
    return parsed.set(drivername=DRIVER)


def connect_args(application_name: str, **session_settings: str) -> dict[str, Any]:
    """Return arguments of every connection: name, settings (to be overridden), keepalives."""
    session = SESSION_SETTINGS | session_settings
    options = " ".join(f"-c {name}={value}" for name, value in session.items())
    return {"application_name": application_name, "options": options, **TCP_SETTINGS}


def create_engine(
    url: str,
    *,
    application_name: str = "agentchord",
    max_connections: int = MAX_CONNECTIONS,
    session_settings: Mapping[str, str] = MappingProxyType({}),
) -> AsyncEngine:
    """Make the process's engine: READ COMMITTED, JSON through orjson, no ping per checkout.

    Args:
        url: Postgres URL.
        application_name: Name in pg_stat_activity.
        max_connections: Connections the pool may open; the heartbeat has one more of its own.
        session_settings: Settings of Postgres beside those that all sessions have.
    """
    return create_async_engine(
        database_url(url),
        connect_args=connect_args(application_name, **session_settings),
        pool_size=max_connections,
        max_overflow=0,
        pool_timeout=60,
        hide_parameters=True,  # an error message must not carry prompts and outputs into the log
        json_serializer=dumps,
        json_deserializer=orjson.loads,
    )

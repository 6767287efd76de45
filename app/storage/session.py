"""Connections to Postgres: one engine per process, with timeouts that protect the cluster.

Without the timeouts, a frozen or cut-off process would keep its row locks until the kernel closes
the connection. By default, the kernel closes the connection hours later.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.domain.json_text import read_json, write_jsonb
from app.errors import ConfigurationError

#: The heartbeat has one more connection of its own, so a process has at most six connections.
MAX_CONNECTIONS = 5
SESSION_SETTINGS = {
    "idle_in_transaction_session_timeout": "15s",
    "statement_timeout": "60s",
    "lock_timeout": "20s",
    "timezone": "UTC",
    "jit": "off",  # JIT costs more than it saves, because the statements are short
}
#: Settings of processes that advance runs. The statements of these processes read only a few rows,
#: which an index finds. Without these settings, the planner does not know that the rows are few.
#: While the tables are small, the planner would then scan and hash whole tables, and would make a
#: new plan every time.
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
    """Return a JSON value as a string, because all statements take JSON as strings."""
    return write_jsonb(value, sort_keys=sort_keys)


def database_url(url: str) -> URL:
    """Parse a Postgres URL with any common prefix, and return the URL with psycopg as its driver.

    Raises:
        ConfigurationError: If ``url`` is not a Postgres URL. The message does not repeat the URL,
            because the URL may hold a password.
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
    """Return the arguments of a connection: its name, session settings and TCP settings.

    ``session_settings`` override the settings that all sessions have.
    """
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
    """Make the process's engine.

    The engine uses READ COMMITTED transactions. The engine reads and writes JSON exactly, and does
    not ping a connection before each use.

    Args:
        url: Postgres URL.
        application_name: Name of the sessions in pg_stat_activity.
        max_connections: Number of connections that the pool may open; the heartbeat has one more
            connection of its own.
        session_settings: Settings of Postgres in addition to the settings of all sessions.
    """
    return create_async_engine(
        database_url(url),
        connect_args=connect_args(application_name, **session_settings),
        pool_size=max_connections,
        max_overflow=0,
        pool_timeout=60,
        hide_parameters=True,  # an error message must not carry prompts and outputs into the log
        json_serializer=dumps,
        json_deserializer=read_json,
    )

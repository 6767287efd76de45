"""Ends a server that still runs although the server's keeper was killed."""

import contextlib
import time
from pathlib import Path
from typing import Any

import psutil

from app.embedded.locks import POLL_S

STOP_TIMEOUT_S = 10.0


def stop_orphan(record: dict[str, Any]) -> None:
    """End the server that matches a pid file and a command line.

    A process id alone is not enough, because after a restart of the machine the id may belong to
    another process.
    """
    if not record:
        return
    pid_file = Path(record["pid_file"])
    with contextlib.suppress(OSError, ValueError, IndexError, psutil.NoSuchProcess):
        process = psutil.Process(int(pid_file.read_text(encoding="utf-8").split()[0]))
        if any(record["mark"] in word for word in process.cmdline()):
            process.send_signal(record["stop_signal"])
            if not _ended(process):
                process.kill()
                _ended(process)
    pid_file.unlink(missing_ok=True)


def _ended(process: psutil.Process) -> bool:
    """Wait for the end of the process; a zombie has ended, even if no parent reaps the zombie."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True

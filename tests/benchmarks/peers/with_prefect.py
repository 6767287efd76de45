"""Prefect: a server of its own, and one process that runs flows against it.

The server keeps its records in Postgres; without pg_trgm, which a Postgres from a wheel lacks, in
SQLite, which is Prefect's default.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.protocol import serve

READY_S = 120.0
END_S = 15.0


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _settings(port: int) -> dict[str, str]:
    """Settings: few logs, no telemetry, and records in batches."""
    home = Path(os.environ["PEER_FOLDER"]) / "prefect"
    database = os.environ["PEER_DATABASE_URL"] or f"sqlite+aiosqlite:///{home}/prefect.db"
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_API_DATABASE_CONNECTION_URL": database.replace(
            "postgresql://", "postgresql+asyncpg://"
        ),
        # By default each task run is recorded in a transaction of its own, long after its end.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


@contextmanager
def _server() -> Iterator[int]:
    """Start the server; its process id."""
    port = _free_port()
    os.environ.update(_settings(port))
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "prefect", "server", "start"),
            *("--host", "127.0.0.1", "--port", str(port), "--no-ui"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
    ) as process:
        try:
            _wait_for(process, f"http://127.0.0.1:{port}/api/health")
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            finally:
                process.kill()


def _wait_for(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline_s = time.monotonic() + READY_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline_s:
                raise
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
            raise


def main() -> None:
    """Be a contender, with a server of its own."""
    with _server() as pid:
        from tests.benchmarks.peers.prefect_flows import Prefect  # reads the settings

        prefect = Prefect()
        serve(prefect.run, processes={"server": [pid]})
        prefect.close()


if __name__ == "__main__":
    main()

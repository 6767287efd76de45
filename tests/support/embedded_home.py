"""The embedded services of one home, as tests see them: processes, sockets and data."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
from redis import Redis
from redis.exceptions import RedisError

from app.embedded import ServiceUrls
from app.embedded.locks import FileLock
from app.embedded.postgres import SUPERUSER
from tests.support.pace import scaled

USER = """
import sys
from pathlib import Path
from app.embedded import Services
services = Services(Path(sys.argv[1]))
urls = services.start()
print(urls.database_url, urls.redis_url, flush=True)
sys.stdin.read()
services.stop()
"""


def connect(urls: ServiceUrls) -> psycopg.Connection:
    return psycopg.connect(urls.database_url.replace("+psycopg", ""), autocommit=True)


def administer(urls: ServiceUrls) -> psycopg.Connection:
    """Return a connection of the superuser to the application's database."""
    url = urls.database_url.replace("+psycopg", "")
    return psycopg.connect(url, user=SUPERUSER, autocommit=True)


def answers(urls: ServiceUrls) -> bool:
    try:
        with connect(urls), Redis.from_url(urls.redis_url) as client:
            return bool(client.ping())
    except (psycopg.OperationalError, RedisError):
        return False


def silent(urls: ServiceUrls) -> bool:
    """Return whether both servers and their sockets are gone."""
    folders = (Path(urls.redis_url[7:].split("?")[0]).parent, socket_folder(urls))
    return not answers(urls) and not any(folder.exists() for folder in folders)


def socket_folder(urls: ServiceUrls) -> Path:
    return Path(urls.database_url.split("host=")[1].split("&")[0])


def server_ids(urls: ServiceUrls) -> tuple[int, int]:
    """Return the process ids that Postgres and Redis report."""
    with administer(urls) as connection, Redis.from_url(urls.redis_url) as client:
        row = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
        assert row is not None
        return int(row[0].split()[0]), int(client.info("server")["process_id"])


def keeper_ids(home: Path) -> list[int]:
    records = {str(record) for record in (home / "run").glob("*.json")}
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if records & set(process.info["cmdline"] or ())
    ]


def kill_keepers(home: Path) -> None:
    for number in keeper_ids(home):
        os.kill(number, signal.SIGKILL)
    for lock in (home / "run").glob("*.keeper.lock"):
        FileLock.acquire(lock, timeout_s=scaled(10)).release()


def gone(number: int) -> bool:
    try:
        return psutil.Process(number).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def save(urls: ServiceUrls, value: str) -> None:
    with connect(urls) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS notes (text text)")
        connection.execute("INSERT INTO notes VALUES (%s)", [value])


def saved(urls: ServiceUrls) -> list[str]:
    with connect(urls) as connection:
        return [row[0] for row in connection.execute("SELECT text FROM notes")]


@contextmanager
def user_process(home: Path) -> Iterator[tuple[subprocess.Popen[str], Callable[[], ServiceUrls]]]:
    """Start another process, which uses the home until this process's standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )

    def urls() -> ServiceUrls:
        assert process.stdout is not None
        database_url, redis_url = process.stdout.readline().split()
        return ServiceUrls(database_url=database_url, redis_url=redis_url)

    with process:
        yield process, urls
        assert process.stdin is not None
        process.stdin.close()

"""URLs whose passwords have every reserved character work in every process, and stay secret."""

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from tests.support.pace import scaled
from tests.support.servers import free_port, run_postgres, run_redis
from tests.support.stack import search_path
from tests.support.waiting import wait_until

#: Stands at both ends of the password, so that every part of it is found in an output.
MARK = "Zq9"
PASSWORD = f"{MARK}%@:/?#[]!$&'()*+,;= \"\\é{MARK}"
USER = "ada@shop"
READY_S = scaled(90.0)
WORKFLOW = """\
name: urls
agents:
  - name: counts
    kind: text_processor
    config: {operations: [word_count]}
"""


def _encoded(text: str) -> str:
    return quote(text, safe="")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Parts of URLs of a Postgres and of a Redis that ask for the password."""
    folder = tmp_path_factory.mktemp("servers")
    with (
        run_postgres(folder / "postgres", user=USER, password=PASSWORD) as postgres,
        run_redis(folder / "redis") as redis,
    ):
        with redis.client() as client:
            rules = ("on", f">{PASSWORD}", "~*", "&*", "+@all")
            client.execute_command("ACL", "SETUSER", USER, *rules)
            client.execute_command("ACL", "SETUSER", "default", "off")
        yield {
            "user": _encoded(USER),
            "password": _encoded(PASSWORD),
            "postgres": f"127.0.0.1:{postgres.port}",
            "folder": _encoded(str(postgres.folder)),
            "port": str(postgres.port),
            "redis": f"127.0.0.1:{redis.port}",
            "socket": quote(str(redis.socket)),
        }


FORMS = {
    "hosts": {
        "DATABASE_URL": "postgres://{user}:{password}@127.0.0.1:1,{postgres}/chord"
        "?application_name=shop&options=-c%20statement_timeout%3D50s",
        "REDIS_URL": "redis://{user}:{password}@{redis}?db=3",
    },
    "sockets": {
        "DATABASE_URL": "postgresql+psycopg://{user}@/chord?host={folder}&port={port}",
        "AGENTCHORD_DATABASE_PASSWORD": PASSWORD.replace("{", "{{"),
        "REDIS_URL": "unix://{user}@{socket}?db=2",
        "AGENTCHORD_REDIS_PASSWORD": PASSWORD.replace("{", "{{"),
    },
}


class Processes:
    """Processes of one test; everything that they print is kept."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.printed: list[str] = []
        self._started: list[tuple[subprocess.Popen[bytes], Path]] = []

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=READY_S,
            check=False,
        )
        self.printed += [done.stdout, done.stderr]
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *words: str) -> Path:
        """Start a process that runs until the end, and return its log."""
        log = self.folder / f"{words[0]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", *words],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=output,
            )
        self._started.append((process, log))
        return log

    def end(self) -> None:
        for process, _ in self._started:
            process.terminate()
        for process, log in self._started:
            process.wait(READY_S)
            self.printed.append(log.read_text())


@pytest.mark.parametrize("form", FORMS)
def test_a_url_works_in_every_process_and_no_process_prints_its_password(
    servers: dict[str, str], form: str, tmp_path: Path
) -> None:
    urls = {name: text.format(**servers) for name, text in FORMS[form].items()}
    (tmp_path / "urls.yaml").write_text(WORKFLOW)
    environment = {
        **os.environ,
        **urls,
        "PYTHONPATH": search_path(),
        "AGENTCHORD_HOME": str(tmp_path / "home"),
        "AGENTCHORD_FLOWER_BASIC_AUTH": "ada:pw",
        "AGENTCHORD_LOGGING__LEVEL": "DEBUG",
    }
    processes = Processes(tmp_path, environment)
    metrics, flower = free_port(), free_port()

    try:
        processes.run("migrate")
        processes.start("worker")
        processes.start("exporter", "--port", str(metrics))
        log = processes.start("flower", "--port", str(flower))
        report = processes.run("run", "urls.yaml", "-i", "text=done", "--follow", "--json")
        found = json.loads(processes.run("doctor", "--json"))
        page = answer_of(f"http://127.0.0.1:{metrics}/metrics", "agentchord_")
        brokers = answer_of(f"http://127.0.0.1:{flower}/broker", "scheduler")
    finally:
        processes.end()

    checks = {check["name"]: check for check in found}
    assert '"completed"' in report
    assert checks["postgres"]["level"] == checks["redis"]["level"] == "ok"
    assert "queue is served" in checks["workers"]["finding"]
    assert page
    assert brokers
    assert "Unable to get queues" not in log.read_text()
    assert [text for text in processes.printed if MARK in text] == []


def answer_of(url: str, word: str) -> str:
    """Wait until a page has a word, and return the page."""
    header = {"Authorization": f"Basic {b64encode(b'ada:pw').decode()}"}

    def page() -> str:
        try:
            with urlopen(Request(url, headers=header), timeout=scaled(20)) as answer:
                text = str(answer.read().decode())
        except OSError:
            return ""
        return text if word in text else ""

    return wait_until(page, timeout_s=READY_S, what=f"{url} has {word}")

"""The thin wrappers: each becomes the plain Celery command, with its settings."""

import math
import os
import re
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.support.pace import scaled
from tests.support.stack import ROOT
from tests.support.waiting import wait_until

READY_S = scaled(40.0)


@contextmanager
def running(
    environment: dict[str, str], folder: Path, *words: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    log = folder / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "app.cli", *words], env=environment, stdout=output, stderr=output
        ) as process,
    ):
        try:
            yield process, log
        finally:
            process.kill()


@pytest.fixture
def environment(database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "AGENTCHORD_HOME": str(tmp_path / "home"),
    }


def test_worker_becomes_a_celery_worker_for_its_queue(
    environment: dict[str, str], tmp_path: Path
) -> None:
    words = ("worker", "scheduler", "--threads", "2", "--name", "sched", "--loglevel", "info")
    with running(environment, tmp_path, *words) as (process, log):
        wait_until(lambda: re.search(r"sched@.+ ready", log.read_text()), timeout_s=READY_S)

        asked = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "app", "inspect", "active_queues", "--json"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        process.terminate()

        assert process.wait(scaled(20)) == 0
    assert re.findall(r'"name": "(\w+)", "exchange"', asked.stdout) == ["scheduler"]


@pytest.mark.parametrize("program", ["agentchord worker", "celery -A app worker -P threads"])
def test_a_worker_finds_modules_in_its_folder(
    environment: dict[str, str], tmp_path: Path, program: str
) -> None:
    """The commands are the installed ones, because ``python -m`` always looks in the folder."""
    (tmp_path / "orders.py").write_text(
        "from app import tool\n\n@tool\ndef order(number: int) -> str:\n    return 'sent'\n"
    )
    folder = Path(sys.executable).parent
    name, *words = program.split()
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [folder / name, *words, *("--loglevel", "info")],
            env=environment | {"AGENTCHORD_IMPORTS": "orders"},
            cwd=tmp_path,
            stdout=output,
            stderr=output,
        )
        try:
            wait_until(
                lambda: " ready" in log.read_text() or process.poll() is not None,
                timeout_s=READY_S,
            )
            process.terminate()
            assert process.wait(scaled(20)) == 0, log.read_text()
        finally:
            process.kill()


def test_beat_keeps_its_file_in_the_home(environment: dict[str, str], tmp_path: Path) -> None:
    with running(environment, tmp_path, "beat") as (process, log):
        wait_until(lambda: "beat v" in log.read_text(), timeout_s=READY_S)

        # Celery writes its file in several steps, and a signal between them is an error of Celery.
        wait_until(lambda: seconds_unchanged(tmp_path / "home") > 1.0, timeout_s=READY_S)
        process.terminate()

        assert process.wait(scaled(20)) == 0


@pytest.mark.parametrize("words", [("app.cli", "beat"), ("celery", "-A", "app", "beat")])
def test_beat_reads_no_pickle_from_a_home_in_which_others_may_write(
    environment: dict[str, str], tmp_path: Path, words: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)

    ended = subprocess.run(
        [sys.executable, "-m", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=READY_S,
        check=False,
    )

    assert ended.returncode == 1
    assert "other users may write to" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(home.iterdir()) == []


def seconds_unchanged(home: Path) -> float:
    """Age of beat's schedule; below zero while there is none."""
    written = [file.stat().st_mtime for file in home.glob("beat-schedule*")]
    return time.time() - max(written, default=math.inf)


def test_flower_asks_for_a_password_that_it_printed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running(environment, tmp_path, "flower", "--port", str(port)) as (process, log):
        printed = wait_until(
            lambda: re.search(r"user (\S+), password (\S+)", log.read_text()), timeout_s=READY_S
        )
        assert printed is not None
        wait_until(lambda: answers(port, "") is not None, timeout_s=READY_S)

        assert answers(port, "") == 401
        assert answers(port, f"{printed[1]}:{printed[2]}") == 200
        wait_until(
            lambda: "start workers with `agentchord up`" in log.read_text(), timeout_s=READY_S
        )
        process.terminate()
        assert process.wait(scaled(20)) == 0
        assert len(log.read_text().splitlines()) == 2  # the account, and that no worker answers


@pytest.mark.parametrize("program", ["app.cli flower", "celery -A app flower"])
def test_flower_refuses_an_account_without_a_password_in_one_line(
    environment: dict[str, str], program: str
) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", *program.split(), "--port=0"],
        env=environment | {"AGENTCHORD_FLOWER_BASIC_AUTH": "secret"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        "Error: Flower's account needs a name and a password: write it as user:password\n"
    )


def answers(port: int, account: str) -> int | None:
    """Status of Flower's page of workers, or None while nothing listens."""
    header = {"Authorization": f"Basic {b64encode(account.encode()).decode()}"} if account else {}
    try:
        with urlopen(
            Request(f"http://127.0.0.1:{port}/workers", headers=header), timeout=scaled(5)
        ) as page:
            return int(page.status)
    except HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None

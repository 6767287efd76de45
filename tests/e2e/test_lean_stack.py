"""A stack at rest: the memory of its processes, and what they do not import."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.support.memory import memory_by_kind
from tests.support.pace import scaled
from tests.support.stack import ROOT, search_path

#: All processes of two workers, with Postgres and Redis. They have about 350 MB.
MOST_MB = 400
#: A part of a path in the memory map of each process that has imported one of these libraries.
SERVICES = ("sqlalchemy", "psycopg", "greenlet", "aiohttp", "uvloop")
PREPARATION = """
import sys
from app.cli.preparation import main
print(main(), "alembic" in sys.modules)
"""


class Stack(NamedTuple):
    """The process of ``agentchord up``, and the ids of its workers by name."""

    up: psutil.Process
    pids: dict[str, int]


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("lean") / "home"
    keys = {"OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none", "PYTHONPATH": search_path()}
    given = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    with subprocess.Popen(
        [sys.executable, "-m", "app.cli", "up", "--workers", "2", "--json"],
        env=given | keys | {"AGENTCHORD_HOME": str(home)},
        stdout=subprocess.PIPE,
    ) as up:
        assert up.stdout is not None
        try:
            yield Stack(psutil.Process(up.pid), json.loads(up.stdout.readline())["pids"])
        finally:
            up.terminate()
            up.wait(scaled(60.0))


def imported(pid: int, libraries: tuple[str, ...]) -> set[str]:
    """The libraries of which a process has mapped an extension module."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {each for each in libraries if f"site-packages/{each}" in maps}


@pytest.mark.skipif("COVERAGE_PROCESS_START" in os.environ, reason="coverage needs memory, too")
def test_a_stack_of_two_workers_has_less_memory_than_the_bound(idle: Stack) -> None:
    found = memory_by_kind(idle.up, idle.pids)

    assert found.keys() == {
        *("up", "fork server", "workers", "scheduler", "Postgres", "Redis", "keepers")
    }
    assert sum(found.values()) < MOST_MB, found


def test_the_parent_of_a_stack_imports_nothing_that_talks_to_a_service(idle: Stack) -> None:
    assert imported(idle.up.pid, SERVICES) == set()
    # The libraries can be seen where they are.
    assert imported(idle.pids["worker1"], SERVICES) == set(SERVICES)


def test_a_migrated_database_is_prepared_without_alembic(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PREPARATION],
        env={
            "PYTHONPATH": str(ROOT),
            "AGENTCHORD_HOME": str(tmp_path / "home"),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
        },
        input="go\n",
        capture_output=True,
        text=True,
        check=True,
    )

    prepared, end = done.stdout.splitlines()
    assert json.loads(prepared)["limits"].keys() == {"anthropic", "openai"}
    assert end == "0 False"


def test_a_preparation_whose_parent_ends_does_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli.preparation"],
        env={"PYTHONPATH": str(ROOT), "AGENTCHORD_HOME": str(tmp_path / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == (b"", b"")
    assert not (tmp_path / "home").exists()


def test_services_that_cannot_be_launched_are_told_in_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "up"],
        env={"PYTHONPATH": str(ROOT), "AGENTCHORD_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "other users may write" in done.stderr

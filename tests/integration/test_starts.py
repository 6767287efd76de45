"""Every kind of process refuses at its start what it cannot use, and holds no key without need."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from app.errors import ConfigurationError
from app.storage.redis import connect_redis, refuse_unsuitable, refuse_unsuitable_soon
from app.storage.session import create_sync_engine
from tests.support.pace import scaled
from tests.support.planted import PLANTED
from tests.support.servers import RedisServer, free_port, run_redis
from tests.support.stack import search_path
from tests.support.waiting import wait_until

READY_S = scaled(120.0)
AGENTCHORD = (sys.executable, "-m", "app.cli")
CELERY = (sys.executable, "-m", "celery", "-A", "app")
#: Each kind of process, with its command.
PROCESSES = {
    "worker": (*AGENTCHORD, "worker", "scheduler"),
    "celery worker": (*CELERY, "worker", "-Q", "scheduler", "-P", "threads"),
    "exporter": (*AGENTCHORD, "exporter", "--port", "0"),
    "flower": (*CELERY, "flower", "--port=0"),
    "command": (*AGENTCHORD, "runs"),
}


@pytest.fixture
def environment(database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": search_path(),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "AGENTCHORD_HOME": str(tmp_path / "home"),
    }


def last_lines(environment: dict[str, str], folder: Path) -> dict[str, tuple[int, str]]:
    """Start each kind of process, and return how it ended and the end of what it printed."""
    started = {
        name: subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, command in PROCESSES.items()
    }
    try:
        printed = {name: each.communicate(timeout=READY_S)[0] for name, each in started.items()}
    finally:
        for each in started.values():
            each.kill()
    assert PLANTED not in "".join(printed.values())
    return {
        name: (started[name].returncode, text.strip().splitlines()[-1] if text.strip() else "")
        for name, text in printed.items()
    }


def test_a_newer_schema_is_refused_with_the_same_words(
    environment: dict[str, str], database_url: str, tmp_path: Path
) -> None:
    with create_sync_engine(database_url, application_name="agentchord test").begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    found = last_lines(environment, tmp_path)

    assert {code for code, _ in found.values()} == {1}
    words = {line.partition(": ")[2] for _, line in found.values()}
    assert len(words) == 1
    assert "'9999' is newer than this version knows" in words.pop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with run_redis(tmp_path_factory.mktemp("redis")) as server:
        with server.client() as redis:
            redis.execute_command("ACL", "SETUSER", "ada", "on", ">right", "~*", "&*", "+@all")
        yield server


@pytest.mark.parametrize(
    ("account", "end", "reason"),
    [
        ("ada:wrong@", "/0", "invalid username-password pair"),
        ("ada:right@", "/99", "DB index is out of range"),
    ],
)
def test_a_wrong_account_and_a_wrong_database_of_redis_are_refused(
    environment: dict[str, str],
    server: RedisServer,
    tmp_path: Path,
    account: str,
    end: str,
    reason: str,
) -> None:
    url = f"redis://{account}127.0.0.1:{server.port}{end}"

    found = last_lines(environment | {"REDIS_URL": url}, tmp_path)

    assert {code for code, _ in found.values()} == {1}
    assert [line for _, line in found.values() if f"REDIS_URL: {reason}" not in line] == []
    assert [line for _, line in found.values() if "wrong" in line or "right" in line] == []


@pytest.mark.anyio
async def test_a_redis_cluster_is_told_to_a_client_before_its_first_transaction(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    options = ("cluster-enabled yes", f"cluster-config-file {tmp_path / 'nodes.conf'}")
    with run_redis(tmp_path / "redis", *options) as server:
        redis = connect_redis(server.url)
        with pytest.raises(ConfigurationError, match="leads to a Redis Cluster"):
            await refuse_unsuitable_soon(redis)
        await redis.aclose()

        found = last_lines(environment | {"REDIS_URL": server.url}, tmp_path)

    assert {code for code, _ in found.values()} == {1}
    assert [line for _, line in found.values() if "leads to a Redis Cluster" not in line] == []


@pytest.mark.anyio
async def test_a_redis_that_is_away_is_waited_for(server: RedisServer) -> None:
    refuse_unsuitable("redis://127.0.0.1:1/0")
    away, fine = connect_redis("redis://127.0.0.1:1/0"), connect_redis(server.url)

    await refuse_unsuitable_soon(away)
    await refuse_unsuitable_soon(fine)

    await away.aclose()
    await fine.aclose()


KEYS = {
    "OPENAI_API_KEY": "sk-Zq9-environment",
    "anthropic_api_key": "sk-Zq9-small-letters",
    "AGENT_SECRET_REVIEW": "Zq9-secret-of-agents",
    "ACME_PASS": "Zq9-key-of-another-provider",
    "AGENTCHORD_PROVIDERS": (
        '{"acme": {"protocol": "openai", "base_url": "http://h", "api_key_env": "ACME_PASS"}}'
    ),
}
KEYLESS = {
    "beat": ((*CELERY, "beat"), "is starting"),
    "own beat": ((*AGENTCHORD, "beat"), "is starting"),
    "flower": ((*CELERY, "flower", "--port={port}"), "Flower at"),
    "own flower": ((*AGENTCHORD, "flower", "--port", "{port}"), "Flower at"),
    "exporter": ((*AGENTCHORD, "exporter", "--port", "0"), "metrics at"),
}


@contextmanager
def running(command: tuple[str, ...], environment: dict[str, str], log: Path) -> Iterator[int]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=log.parent, stdout=output, stderr=output
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(READY_S)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", KEYLESS)
def test_a_process_that_calls_no_provider_has_no_key_in_its_environment(
    environment: dict[str, str], tmp_path: Path, name: str
) -> None:
    command, ready = KEYLESS[name]
    words = tuple(word.format(port=free_port()) for word in command)
    log = tmp_path / "process.log"

    with running(words, environment | KEYS, log) as pid:
        wait_until(lambda: ready in log.read_text(), timeout_s=READY_S, what=f"{name} is ready")
        held = Path(f"/proc/{pid}/environ").read_bytes()
        kept = psutil.Process(pid).environ()

    assert b"Zq9-" not in held.replace(PLANTED.encode(), b"")
    assert kept["DATABASE_URL"] == environment["DATABASE_URL"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_worker_of_agents_keeps_the_keys(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "process.log"
    command = (*AGENTCHORD, "worker", "openai")

    with running(command, environment | KEYS, log) as pid:
        wait_until(
            lambda: psutil.Process(pid).cmdline()[1:3] == ["-m", "celery"],
            timeout_s=READY_S,
            what="the worker is Celery's worker",
        )
        held = Path(f"/proc/{pid}/environ").read_bytes()

    assert KEYS["OPENAI_API_KEY"].encode() in held

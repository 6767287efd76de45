"""A Redis that refuses commands is waited for, and a Redis that cannot serve is refused by name."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.backends.redis import RedisBackend
from kombu import Connection
from kombu.exceptions import OperationalError
from pydantic import SecretStr
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ConnectionError as RedisConnectionError

from app.celery import app as celery
from app.cli.service_checks import redis_checks
from app.configuration.settings import load_settings
from app.errors import ConfigurationError
from app.storage.celery_redis import AMQP, Backend
from app.storage.redis import ask_server, celery_redis_url, connect_redis, refuse_unsuitable
from tests.support.pace import scaled
from tests.support.servers import RedisServer, run_redis
from tests.support.stack import search_path
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio

SCRIPT = "return redis.call('SET', KEYS[1], ARGV[1])"


def cannot_save(redis: Redis) -> None:
    """Make the server's snapshots fail, after which it refuses writes with MISCONF."""
    redis.config_set("dir", "/proc")
    redis.config_set("save", "3600 1")
    redis.bgsave()
    wait_until(
        lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err",
        what="the snapshot has failed",
    )


def follow_nobody(redis: Redis) -> None:
    redis.config_set("replica-serve-stale-data", "no")
    redis.replicaof("127.0.0.1", "1")


REFUSALS: dict[str, Callable[[Redis], Any]] = {
    "READONLY": lambda redis: redis.replicaof("127.0.0.1", "1"),
    "MASTERDOWN": follow_nobody,
    "NOREPLICAS": lambda redis: redis.config_set("min-replicas-to-write", 1),
    "OOM": lambda redis: redis.config_set("maxmemory", 1),
    "MISCONF": cannot_save,
}


def heal(redis: Redis, folder: str) -> None:
    redis.replicaof("NO", "ONE")
    redis.config_set("replica-serve-stale-data", "yes")
    redis.config_set("min-replicas-to-write", 0)
    redis.config_set("maxmemory", 0)
    redis.config_set("dir", folder)
    redis.config_set("save", "")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with run_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=REFUSALS)
async def refusing(
    request: pytest.FixtureRequest, server: RedisServer, anyio_backend: str
) -> AsyncIterator[RedisServer]:
    """The server, while it refuses writes in one of the ways; afterwards it is healed."""
    with server.client() as redis:
        REFUSALS[request.param](redis)
        yield server
        heal(redis, str(server.socket.parent))


async def run_script(redis: AsyncRedis) -> None:
    await redis.eval(SCRIPT, 1, "key", "value")


async def run_transaction(redis: AsyncRedis) -> None:
    pipeline: Any
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.set("key", "value")
        await pipeline.execute()


@pytest.mark.parametrize("write", [lambda redis: redis.set("k", "v"), run_script, run_transaction])
async def test_a_refusal_is_a_lost_connection_and_closes_it(
    refusing: RedisServer, write: Callable[[AsyncRedis], Awaitable[None]]
) -> None:
    redis = connect_redis(refusing.url, max_connections=1)

    with pytest.raises(RedisConnectionError, match="Redis refuses commands"):
        await write(redis)

    opened = [each.is_connected for each in redis.connection_pool._available_connections]
    assert opened == [False]
    with refusing.client() as other:
        heal(other, str(refusing.socket.parent))
    await write(redis)
    await redis.aclose()


def channel_of(broker: Connection) -> Any:
    return broker.default_channel


def test_celerys_connections_take_a_refusal_for_a_lost_connection(refusing: RedisServer) -> None:
    broker = AMQP.Connection(celery_redis_url(refusing.url))
    backend: Any = Backend(app=celery, url=celery_redis_url(refusing.url))

    lost = (*broker.connection_errors, OperationalError)
    with broker, pytest.raises(lost, match="Redis refuses commands"):
        channel_of(broker).client.lpush("queue", "message")
    with pytest.raises(backend.connection_errors, match="Redis refuses commands"):
        backend.client.incr("counter")


def test_an_error_of_a_command_is_no_refusal(server: RedisServer) -> None:
    backend: Any = Backend(app=celery, url=celery_redis_url(server.url))
    backend.client.set("text", "x")
    before = backend.client.client_id()

    with pytest.raises(Exception, match="not an integer"):
        backend.client.incr("text")

    assert backend.client.client_id() == before
    backend.client.close()


def test_the_application_uses_these_classes() -> None:
    assert celery.amqp.Connection is AMQP.Connection
    assert isinstance(celery.backend, RedisBackend)
    assert isinstance(celery.backend, Backend)


@pytest.fixture(scope="module")
def cluster_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with run_redis(tmp_path_factory.mktemp("cluster"), "cluster-enabled yes") as server:
        yield server


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with run_redis(tmp_path_factory.mktemp("sentinel"), mode=("--sentinel",)) as server:
        yield server


@pytest.mark.parametrize(
    ("fixture", "name"), [("cluster_server", "a Redis Cluster"), ("sentinel", "a Sentinel")]
)
def test_a_redis_that_cannot_serve_is_refused_by_name(
    request: pytest.FixtureRequest, fixture: str, name: str
) -> None:
    server: RedisServer = request.getfixturevalue(fixture)

    with pytest.raises(ConfigurationError, match=f"REDIS_URL leads to {name}"):
        refuse_unsuitable(server.url)
    with (
        AMQP.Connection(celery_redis_url(server.url)) as broker,
        pytest.raises(ConfigurationError, match=f"REDIS_URL leads to {name}"),
    ):
        channel_of(broker).client.ping()
    settings = load_settings(redis_url=SecretStr(server.url))
    (check,) = redis_checks(settings, embedded=False)
    assert (check.level, name in check.finding) == ("fail", True)


def test_every_process_refuses_a_redis_cluster_in_one_line(
    cluster_server: RedisServer, database_url: str, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": search_path(),
        "DATABASE_URL": database_url,
        "REDIS_URL": cluster_server.url,
        "AGENTCHORD_HOME": str(tmp_path),
    }
    commands = [("up",), ("worker", "scheduler"), ("exporter",), ("flower", "--port", "0")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "app.cli", *command],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]

    for command, process in zip(commands, processes, strict=True):
        output, _ = process.communicate(timeout=scaled(120))
        lines = output.strip().splitlines()
        assert process.returncode == 1, (command, output)
        assert len(lines) == 1, (command, output)
        assert "REDIS_URL leads to a Redis Cluster" in lines[0]


def test_a_redis_that_is_away_is_not_refused() -> None:
    refuse_unsuitable("redis://127.0.0.1:1/0")


def test_the_doctor_needs_no_info_to_reach_redis(server: RedisServer) -> None:
    with server.client() as redis:
        redis.execute_command("ACL", "SETUSER", "ada", "on", ">pw", "~*", "&*", "+@all", "-info")
    settings = load_settings(redis_url=SecretStr(server.url.replace("//", "//ada:pw@")))

    checks = {check.name: check for check in redis_checks(settings, embedded=False)}

    assert [check.level for check in checks.values()] == ["ok", "ok", "warn"]
    assert ask_server(server.url)["version"] in checks["redis"].finding
    assert "allow INFO" in (checks["redis eviction"].remedy or "")


def test_the_doctor_reports_a_replica(server: RedisServer) -> None:
    settings = load_settings(redis_url=SecretStr(server.url))
    with server.client() as redis:
        REFUSALS["READONLY"](redis)
        checks = {check.name: check for check in redis_checks(settings, embedded=False)}
        heal(redis, str(server.socket.parent))

    assert checks["redis role"].level == "fail"

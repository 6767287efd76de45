"""What `agentchord doctor` looks at beyond the installation: settings, keys and services."""

import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from app.bootstrap import connected_settings, database_url, redis_url
from app.cli.checks import Check
from app.cli.cluster import postgres_place, quiet_logs, redis_place, served_queues
from app.configuration.settings import Settings, load_settings
from app.domain.kinds import QUEUES_OF_KINDS
from app.errors import AgentChordError
from app.local_stack.stack import SCHEDULER
from app.storage import schema
from app.storage.session import connect_args
from app.storage.session import database_url as parse

OLDEST_POSTGRES = 150_000
OLDEST_REDIS = (6, 2)
CONNECT_S = 2.0
LITTLE_DISK_BYTES = 1_000_000_000


def service_checks() -> Iterator[Check]:
    """Check the settings, then the services that they name, until a failure hides the rest."""
    quiet_logs()
    try:
        settings = load_settings()
    except AgentChordError as error:
        yield Check(name="settings", level="fail", finding=str(error), remedy="correct it")
        return
    source = str(settings.config) if settings.config else "environment and defaults"
    yield Check(name="settings", level="ok", finding=source)
    yield _disk(settings.home)
    yield from _keys(settings)
    try:
        connected = connected_settings()
    except AgentChordError as error:
        yield Check(name="services", level="fail", finding=str(error), remedy="see the message")
        return
    yield from _postgres(connected, embedded=settings.database_url is None)
    redis = list(_redis(connected, embedded=settings.redis_url is None))
    yield from redis
    if not any(check.level == "fail" for check in redis):
        yield from _queues(settings.provider_names)


def _disk(home: Path) -> Check:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    little = free < LITTLE_DISK_BYTES
    return Check(
        name="disk",
        level="warn" if little else "ok",
        finding=f"{free / 1e9:.1f} GB free for {str(home)!r}",
        remedy="free some space, or set AGENTCHORD_HOME to another disk" if little else "",
    )


def _keys(settings: Settings) -> Iterator[Check]:
    for provider in settings.provider_names:
        access = settings.access_to(provider)
        at = f", served at {access.base_url}" if access.base_url else ""
        missing = list(access.missing)
        if access.api_key_env and not access.api_key:
            missing.insert(0, access.api_key_env)
        finding = "present" if access.api_key_env else "not needed"
        yield Check(
            name=f"{provider} key",
            level="warn" if missing else "ok",
            finding=f"not set{at}" if missing else f"{finding}{at}",
            remedy=f"set {', '.join(missing)} where the workers start, if "
            "you use its models; without keys try `agentchord up --simulator`"
            if missing
            else "",
        )
        if access.base_url:
            yield _reachable(provider, access.base_url)


def _reachable(provider: str, base_url: str) -> Check:
    """Check that a server listens at a provider's base URL."""
    try:
        address = urlsplit(base_url)
        port = address.port or {"http": 80, "https": 443}[address.scheme]
        with socket.create_connection((address.hostname or "", port), timeout=CONNECT_S):
            pass
    except (OSError, ValueError) as error:
        return Check(
            name=f"{provider} server",
            level="warn",
            finding=f"nothing answers at {base_url}: {error}",
            remedy="start it, or correct its base URL",
        )
    return Check(name=f"{provider} server", level="ok", finding=f"listens at {base_url}")


def _postgres(settings: Settings, *, embedded: bool) -> Iterator[Check]:
    url = database_url(settings)
    engine = create_engine(
        parse(url), poolclass=NullPool, connect_args=connect_args("agentchord doctor")
    )
    try:
        with engine.connect() as connection:
            number = int(connection.execute(text("SHOW server_version_num")).scalar_one())
            name = connection.execute(text("SHOW server_version")).scalar_one()
    except DBAPIError as error:
        finding = schema.unreachable(url, error)
        yield Check(name="postgres", level="fail", finding=finding, remedy="check DATABASE_URL")
        return
    old = number < OLDEST_POSTGRES
    yield Check(
        name="postgres",
        level="fail" if old else "ok",
        finding=f"{name} at {postgres_place(settings)}{' (built-in)' if embedded else ''}",
        remedy="use Postgres 15 or newer" if old else "",
    )
    try:
        schema.require(url)
    except AgentChordError as error:
        remedy = "start `agentchord up`, which does it" if embedded else "run `agentchord migrate`"
        finding = str(error).partition(": ")[0]
        yield Check(name="schema", level="fail", finding=finding, remedy=remedy)
    else:
        yield Check(name="schema", level="ok", finding=schema.HEAD)


def _redis(settings: Settings, *, embedded: bool) -> Iterator[Check]:
    place = redis_place(settings)
    try:
        with Redis.from_url(redis_url(settings), socket_timeout=5, decode_responses=True) as redis:
            found = str(redis.info("server")["redis_version"])
            # CONFIG GET is forbidden on many hosted servers, INFO is not.
            policy = redis.info("memory")["maxmemory_policy"]
    except RedisError as error:
        yield Check(
            name="redis",
            level="fail",
            finding=f"Redis at {place} cannot be reached: {error}",
            remedy="check REDIS_URL and that the server runs",
        )
        return
    old = tuple(map(int, found.split(".")[:2])) < OLDEST_REDIS
    yield Check(
        name="redis",
        level="fail" if old else "ok",
        finding=f"{found} at {place}{' (built-in)' if embedded else ''}",
        remedy="use Redis 6.2 or newer" if old else "",
    )
    evicts = policy != "noeviction"
    yield Check(
        name="redis eviction",
        level="warn" if evicts else "ok",
        finding=f"maxmemory-policy is {policy}",
        remedy="CONFIG SET maxmemory-policy noeviction: queues and limits must not be evicted"
        if evicts
        else "",
    )


def _queues(providers: Sequence[str]) -> Iterator[Check]:
    queues = {*providers, *QUEUES_OF_KINDS.values(), SCHEDULER}
    try:
        unserved = sorted(queues - served_queues(queues))
    except (OperationalError, RedisError, OSError) as error:
        yield Check(name="workers", level="fail", finding=str(error), remedy="check REDIS_URL")
        return
    if unserved:
        yield Check(
            name="workers",
            level="warn",
            finding=f"no worker serves {', '.join(map(repr, unserved))}",
            remedy="start `agentchord up`, or `agentchord worker "
            f"{' '.join(unserved)}`; runs wait until then",
        )
    else:
        yield Check(name="workers", level="ok", finding="every queue is served")

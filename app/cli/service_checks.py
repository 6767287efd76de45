"""The checks of `agentchord doctor` beyond the installation: settings, keys and services."""

import asyncio
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.bootstrap import credentials_of
from app.cli.checks import Check, judged
from app.cli.cluster import quiet_logs, served_queues
from app.configuration.settings import Settings, load_settings
from app.domain.kinds import QUEUES_OF_KINDS
from app.embedded.connected import (
    connected_settings,
    database_url,
    postgres_place,
    redis_place,
    redis_url,
)
from app.errors import AgentChordError, AgentError, ConfigurationError
from app.local_stack.stack import SCHEDULER
from app.storage import schema
from app.storage.redis import ask_server, server_memory
from app.storage.session import create_sync_engine

OLDEST_POSTGRES = 150_000
OLDEST_REDIS = (6, 2)
CONNECT_S = 2.0
CHANGE_URL = "change the URL: no process starts with this server"
LITTLE_DISK_BYTES = 1_000_000_000


def service_checks() -> Iterator[Check]:
    """Check the settings, then the services; stop if a failure makes further checks useless."""
    quiet_logs()
    try:
        settings = load_settings()
    except AgentChordError as error:
        yield Check(name="settings", level="fail", finding=str(error), remedy="correct this")
        return
    yield Check(
        name="settings", level="ok", finding=str(settings.config or "environment and defaults")
    )
    yield _disk(settings.home)
    yield from _keys(settings)
    try:
        connected = connected_settings()
    except AgentChordError as error:
        yield Check(name="services", level="fail", finding=str(error), remedy="see the message")
        return
    yield from _postgres(connected, embedded=settings.database_url is None)
    redis = list(redis_checks(connected, embedded=settings.redis_url is None))
    yield from redis
    if not any(check.level == "fail" for check in redis):
        yield from _queues(settings.provider_names)


def _disk(home: Path) -> Check:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    return judged(
        "disk",
        f"{free / 1e9:.1f} GB free for {str(home)!r}",
        wrong=free < LITTLE_DISK_BYTES,
        level="warn",
        remedy="free some space, or set AGENTCHORD_HOME to another disk",
    )


def _keys(settings: Settings) -> Iterator[Check]:
    for provider in settings.provider_names:
        access = settings.access_to(provider)
        at = f", served at {access.base_url}" if access.base_url else ""
        missing = list(access.missing)
        if access.api_key_env and not access.api_key:
            missing.insert(0, access.api_key_env)
        finding = "present" if access.api_key_env else "not needed"
        if access.credentials and not missing:
            yield _token(settings, provider, at)
        else:
            yield judged(
                f"{provider} key",
                f"not set{at}" if missing else f"{finding}{at}",
                wrong=bool(missing),
                level="warn",
                remedy=f"if you use models of {provider}, set {', '.join(missing)} where the "
                "workers start; without keys try `agentchord up --simulator`",
            )
        if access.base_url:
            yield _reachable(provider, access.base_url)


def _token(settings: Settings, provider: str, at: str) -> Check:
    """Check that the function of a provider's credentials returns a token; hide the token."""
    name = f"{provider} key"
    try:
        make = credentials_of(settings, provider)
        assert make is not None, "the provider has credentials"
        found = asyncio.run(make().get())
    except ConfigurationError as error:
        remedy = "correct this: no worker starts without the function"
        return Check(name=name, level="fail", finding=str(error), remedy=remedy)
    except AgentError as error:
        remedy = f"if you use models of {provider}, repair this where the workers start"
        return Check(name=name, level="warn", finding=str(error), remedy=remedy)
    path = settings.access_to(provider).credentials
    return Check(
        name=name, level="ok", finding=f"{path} gave a token for {found.lifetime_s:,.0f} s{at}"
    )


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
            remedy="start the server, or correct the base URL",
        )
    return Check(name=f"{provider} server", level="ok", finding=f"listens at {base_url}")


def _postgres(settings: Settings, *, embedded: bool) -> Iterator[Check]:
    url = database_url(settings)
    engine = create_sync_engine(url, application_name="agentchord doctor")
    try:
        with engine.connect() as connection:
            number = int(connection.execute(text("SHOW server_version_num")).scalar_one())
            name = connection.execute(text("SHOW server_version")).scalar_one()
    except DBAPIError as error:
        finding = schema.unreachable(url, error)
        yield Check(name="postgres", level="fail", finding=finding, remedy="check DATABASE_URL")
        return
    except ConfigurationError as error:
        yield Check(name="postgres", level="fail", finding=str(error), remedy=CHANGE_URL)
        return
    yield judged(
        "postgres",
        f"{name} at {postgres_place(settings)}{' (built-in)' if embedded else ''}",
        wrong=number < OLDEST_POSTGRES,
        remedy="use Postgres 15 or newer",
    )
    try:
        schema.require(url)
    except AgentChordError as error:
        remedy = (
            "start `agentchord up`, which migrates the database"
            if embedded
            else "run `agentchord migrate`"
        )
        finding = str(error).partition(": ")[0]
        yield Check(name="schema", level="fail", finding=finding, remedy=remedy)
    else:
        yield Check(name="schema", level="ok", finding=schema.HEAD)


def redis_checks(settings: Settings, *, embedded: bool) -> Iterator[Check]:
    """Check Redis: its version, its role and its eviction policy."""
    place = redis_place(settings)
    try:
        server = ask_server(redis_url(settings))
    except ConfigurationError as error:
        yield Check(name="redis", level="fail", finding=str(error), remedy=CHANGE_URL)
        return
    except RedisError as error:
        yield Check(
            name="redis",
            level="fail",
            finding=f"Redis at {place} cannot be reached: {error}",
            remedy="check REDIS_URL and that the server runs",
        )
        return
    found = server["version"]
    yield judged(
        "redis",
        f"{found} at {place}{' (built-in)' if embedded else ''}",
        wrong=tuple(map(int, found.split(".")[:2])) < OLDEST_REDIS,
        remedy="use Redis 6.2 or newer",
    )
    yield judged(
        "redis role",
        f"{server['role']}",
        wrong=server["role"] != "master",
        remedy="let REDIS_URL lead to the server that accepts writes; until then all calls wait",
    )
    yield _eviction(settings)


def _eviction(settings: Settings) -> Check:
    """Check the eviction policy, if the user of REDIS_URL may ask for it."""
    try:
        # Many hosted servers forbid CONFIG GET, but allow INFO.
        policy = server_memory(redis_url(settings))["maxmemory_policy"]
    except RedisError as error:
        return Check(
            name="redis eviction",
            level="warn",
            finding=f"maxmemory-policy is not known: {error}",
            remedy="allow INFO to the user of REDIS_URL, or make sure that it is noeviction",
        )
    return judged(
        "redis eviction",
        f"maxmemory-policy is {policy}",
        wrong=policy != "noeviction",
        level="warn",
        remedy="CONFIG SET maxmemory-policy noeviction, so that Redis evicts no queues or limits",
    )


def _queues(providers: Sequence[str]) -> Iterator[Check]:
    queues = {*providers, *QUEUES_OF_KINDS.values(), SCHEDULER}
    try:
        unserved = sorted(queues - served_queues(queues))
    except (OperationalError, RedisError, OSError) as error:
        yield Check(name="workers", level="fail", finding=str(error), remedy="check REDIS_URL")
        return
    names = ", ".join(map(repr, unserved))
    yield judged(
        "workers",
        f"no worker serves {names}" if unserved else "every queue is served",
        wrong=bool(unserved),
        level="warn",
        remedy="start `agentchord up`, or `agentchord worker "
        f"{' '.join(unserved)}`; runs wait until then",
    )

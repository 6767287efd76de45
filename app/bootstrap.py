"""The composition root: builds every collaborator once per process.

``Platform`` has the collaborators that clients and workers share.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import click
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from app.celery import app as celery
from app.configuration.functions import load_function
from app.configuration.settings import Settings, load_settings
from app.costs.pricing import Pricing
from app.domain.protocols import PROTOCOLS
from app.domain.providers import Provider
from app.embedded.connected import connected_settings, database_url, redis_url
from app.embedded.folders import open_home
from app.errors import AgentChordError
from app.events.signals import Signals
from app.llm.base import LLMClient
from app.llm.credential_cache import CredentialCache
from app.llm.dialect import dialect_of
from app.planning.calls import CallPlanner
from app.scheduler.asks import Asks
from app.scheduler.dispatch import Dispatcher
from app.scheduler.scheduler import Scheduler
from app.storage.redis import connect_redis
from app.storage.schema import refuse_newer
from app.storage.session import create_engine

#: Commands of Celery that call no provider.
KEYLESS_COMMANDS = ("beat", "flower")
#: The key for providers that need no key. The SDKs do not work without a key.
NO_KEY = "none"


def celery_settings() -> Settings:
    """Return the connected settings for celeryconfig.py, as the command line of Celery needs them.

    Beat and Flower start again without keys, because they call no provider. An error ends a command
    of Celery with one line of text, but reaches every other program.
    """
    context = click.get_current_context(silent=True)
    command = context.info_name if context else None
    if context is None or context.find_root().command.name != "celery":
        return connected_settings()
    with ending_in_one_line():
        if command in KEYLESS_COMMANDS:
            restart_without_keys()
        settings = connected_settings()
        if command == "beat":
            # The file of beat is a pickle, so no other user may be able to write the file.
            open_home(settings.home)
        if command == "flower":
            refuse_newer(database_url(settings))
        return settings


def restart_without_keys() -> None:
    """Replace this process with the same program without the keys of providers.

    Only a new program has another environment for other processes of the machine
    (``/proc/PID/environ``). Without this step, the keys would stay there until the process ends.
    """
    environment = load_settings().environment_without_keys()
    if environment is not None:
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606


@contextlib.contextmanager
def ending_in_one_line() -> Iterator[None]:
    """End this process with one line of text after an error for which Celery shows a traceback."""
    try:
        yield
    except AgentChordError as error:
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(1) from error


def client_factories(settings: Settings) -> dict[str, Callable[[], LLMClient]]:
    """Return a factory for each provider; the factory reads the key when it makes a client.

    Raises:
        ConfigurationError: If a function of ``credentials`` cannot be imported.
    """
    return {
        provider.name: partial(_client, settings, provider, credentials_of(settings, provider.name))
        for provider in settings.all_providers()
    }


def credentials_of(settings: Settings, provider: str) -> Callable[[], CredentialCache] | None:
    """Return a function that makes a provider's cache of tokens; None if no tokens are needed.

    Raises:
        ConfigurationError: If the function that returns the tokens cannot be imported.
    """
    path = settings.access_to(provider).credentials
    if path is None:
        return None
    function = load_function(f"providers.{provider}.credentials", path)
    return partial(CredentialCache, function, path=path, provider=provider)


def _client(
    settings: Settings, provider: Provider, credentials: Callable[[], CredentialCache] | None
) -> LLMClient:
    access = settings.access_to(provider.name)
    form = {} if provider.api is None else {"api": provider.api}
    return dialect_of(PROTOCOLS[provider.protocol]).client(
        secret(access.api_key) if access.api_key_env else NO_KEY,
        base_url=access.base_url,
        provider=provider.name,
        api_key_env=access.api_key_env or "",
        headers={name: value.get_secret_value() for name, value in access.headers.items()},
        query=access.query,
        credentials=credentials and credentials(),
        parameters=provider.parameters,
        **form,
    )


def secret(value: SecretStr | None) -> str | None:
    """Return a secret as a plain string, or None if the value is None."""
    return None if value is None else value.get_secret_value()


def call_planner(settings: Settings) -> CallPlanner:
    """Build the planner of calls for workers, and also for programs that show a plan."""
    providers = settings.all_providers()
    return CallPlanner(
        Pricing(settings.costs, providers),
        default_max_tokens=settings.engine.default_max_tokens,
        providers=providers,
    )


@dataclass(frozen=True, kw_only=True)
class Platform:
    """The collaborators that enqueue, advance and read runs, bound to the running event loop.

    Attributes:
        has_embedded_postgres: Whether Postgres is the embedded server. If this is true, error
            messages have hints about the embedded server.
    """

    settings: Settings
    has_embedded_postgres: bool
    engine: AsyncEngine
    redis: Redis
    signals: Signals
    dispatcher: Dispatcher
    scheduler: Scheduler

    async def close(self) -> None:
        """Close all connections."""
        await self.signals.close()
        await self.redis.aclose()
        await self.engine.dispose()


def build_platform(
    *, application_name: str, session_settings: Mapping[str, str] = MappingProxyType({})
) -> Platform:
    """Build a platform; call this function once on each event loop that uses a platform.

    Args:
        application_name: Name of the platform's sessions in pg_stat_activity.
        session_settings: Settings of the platform's sessions in Postgres.
    """
    settings = connected_settings()
    engine = create_engine(
        database_url(settings),
        application_name=application_name,
        session_settings=session_settings,
    )
    redis = connect_redis(redis_url(settings))
    signals = Signals(redis)
    dispatcher = Dispatcher(celery, redis, lane_width=settings.engine.lane_width)
    scheduler = Scheduler(
        engine,
        dispatcher,
        signals,
        max_running=settings.engine.max_concurrent_workflows,
        max_collected_bytes=settings.engine.max_collected_bytes,
        asks=Asks(redis),
    )
    return Platform(
        settings=settings,
        has_embedded_postgres=load_settings().database_url is None,
        engine=engine,
        redis=redis,
        signals=signals,
        dispatcher=dispatcher,
        scheduler=scheduler,
    )

"""The settings with the URLs of Postgres and Redis, which may be the embedded servers.

This module imports neither SQLAlchemy nor Celery, so a process that only starts others stays small.
"""

import atexit

from pydantic import SecretStr

from app.concurrency.once import once
from app.configuration.service_urls import read_postgres_url, read_redis_url
from app.configuration.settings import Settings, load_settings
from app.embedded.services import Services


@once(survives_fork=True)
def connected_settings() -> Settings:
    """Return the settings, with the URLs of both services filled in.

    If DATABASE_URL or REDIS_URL is not set, this process uses the embedded service of
    AGENTCHORD_HOME until the process ends. The process starts this service, or joins the service if
    it runs already.

    Raises:
        ConfigurationError: If a setting is wrong.
        EmbeddedServicesError: If an embedded service cannot be started.
    """
    settings = load_settings()
    found: dict[str, SecretStr] = {}
    if settings.database_url is None or settings.redis_url is None:
        services = Services(settings.home)
        if settings.database_url is None:
            atexit.register(services.postgres.stop)
            found["database_url"] = SecretStr(services.postgres.start())
        if settings.redis_url is None:
            atexit.register(services.redis.stop)
            found["redis_url"] = SecretStr(services.redis.start())
    return settings.model_copy(update=found)


def launch_services(settings: Settings) -> None:
    """Launch the embedded services that these settings need, for a process that is no client.

    The services run until this process ends. They may not answer yet, but a client that calls
    ``connected_settings`` in another process waits for them.

    Raises:
        EmbeddedServicesError: If an embedded service cannot be launched.
    """
    services = Services(settings.home)
    for server in (services.postgres, services.redis):
        atexit.register(server.stop)
    services.launch(postgres=settings.database_url is None, redis=settings.redis_url is None)


def running_database(settings: Settings) -> str | None:
    """Return the URL of Postgres for a process that needs no Postgres.

    Returns:
        The URL of the settings, or else the URL of the embedded Postgres, which this process then
        joins. None if the embedded Postgres does not run.
    """
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    postgres = Services(settings.home).postgres
    if not postgres.is_running():
        return None
    atexit.register(postgres.stop)
    return postgres.start()


def database_url(settings: Settings) -> str:
    """Return the Postgres URL of connected settings as a plain string."""
    assert settings.database_url is not None
    return settings.database_url.get_secret_value()


def redis_url(settings: Settings) -> str:
    """Return the Redis URL of connected settings as a plain string."""
    assert settings.redis_url is not None
    return settings.redis_url.get_secret_value()


def postgres_place(settings: Settings) -> str:
    """Return the address of Postgres, without user and password."""
    return read_postgres_url(database_url(settings)).place


def redis_place(settings: Settings) -> str:
    """Return the address of Redis, without user and password."""
    return read_redis_url(redis_url(settings)).place

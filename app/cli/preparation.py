"""The preparation of a stack: migrates the database and reads the limits, in a process of its own.

``agentchord up`` runs for months and only starts other processes. So it leaves to this process all
that needs SQLAlchemy, Alembic, Celery or a connection, which would take 60 MB until its end. The
preparation imports these modules while the services are launched, and while the fork server imports
the same and more on the other core.
"""

import asyncio
import select
import subprocess
import sys
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from app.cli.messages import say, tell
from app.domain.json_text import read_json, write_json
from app.embedded.connected import (
    connected_settings,
    database_url,
    postgres_place,
    redis_place,
    redis_url,
)
from app.errors import AgentChordError, ServiceUnavailable
from app.local_stack.supervisor import inherited_environment

if TYPE_CHECKING:
    from app.configuration.settings import Settings


#: The line that tells a preparation that the services are launched.
GO = b"go\n"


class Limit(NamedTuple):
    """A provider's limit of requests per minute.

    Attributes:
        requests_per_minute: The limit, or None.
        built_in: Whether nobody has chosen the limit.
    """

    requests_per_minute: int | None
    built_in: bool


class Prepared(NamedTuple):
    """The results of a preparation.

    Attributes:
        postgres: Address of Postgres, without user and password.
        redis: Address of Redis, without user and password.
        limits: The limits by provider.
    """

    postgres: str
    redis: str
    limits: dict[str, Limit]


class Preparation:
    """The process of a preparation; it imports at once, and leaving the block ends it.

    Example:
        with Preparation() as preparation:
            launch_services(settings)
            prepared = preparation.result()
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env=inherited_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the process that waits
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()

    def result(self) -> Prepared:
        """Prepare the services, which were launched before, and return the results.

        Raises:
            SystemExit: If the preparation has failed; its own line on standard error says why.
        """
        answer, _ = self._process.communicate(GO)
        if self._process.returncode != 0:
            raise SystemExit(1)
        found = read_json(answer)
        limits = {name: Limit(*limit) for name, limit in found.pop("limits").items()}
        return Prepared(**found, limits=limits)


def prepare(settings: "Settings") -> Prepared:
    """Migrate the database, and read the limits."""
    from app.storage.redis import refuse_unsuitable
    from app.storage.schema import upgrade

    refuse_unsuitable(redis_url(settings))
    upgrade(database_url(settings))
    limits = asyncio.run(_read_limits(settings))
    return Prepared(postgres_place(settings), redis_place(settings), limits)


async def _read_limits(settings: "Settings") -> dict[str, Limit]:
    """Return the limits by provider."""
    from sqlalchemy.exc import DBAPIError

    from app.configuration.sections import DEFAULT_BUCKET
    from app.rate_limits.stored import limit_table
    from app.storage.limits import read_limits
    from app.storage.schema import unreachable
    from app.storage.session import create_engine

    url = database_url(settings)
    engine = create_engine(url, application_name="agentchord preparation")
    try:
        async with engine.connect() as connection:
            stored = await read_limits(connection)
    except DBAPIError as error:
        raise ServiceUnavailable(unreachable(url, error)) from error
    finally:
        await engine.dispose()
    table = limit_table(settings.rate_limits, stored, settings.provider_names)
    found = {}
    for provider in settings.provider_names:
        limit = table.values[f"{provider}/{DEFAULT_BUCKET}"]["requests_per_minute"]
        found[provider] = Limit(limit.value, limit.source == "built-in")
    return found


def load() -> None:
    """Import what a preparation needs, while the services are launched."""
    import app.rate_limits.stored
    import app.storage.redis
    import app.storage.schema  # noqa: F401

    # Only the launch in a new home takes so long, and a new home has to be migrated.
    if not select.select([sys.stdin], [], [], 0)[0]:
        import alembic.command  # noqa: F401


def main() -> int:
    """Print the results as JSON, or the error as one line; return the exit code."""
    from app.cli.application import explain

    load()
    if not sys.stdin.readline():
        return 1  # the parent has ended, or says itself why the services cannot be launched
    try:
        tell(write_json(prepare(connected_settings())._asdict()).decode())
    except (AgentChordError, OSError) as error:
        say(explain(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

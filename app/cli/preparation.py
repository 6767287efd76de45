"""The preparation of a stack: migrates the database and reads the limits, in a process of its own.

``agentchord up`` runs for months and only starts other processes. So it leaves to this process all
that needs SQLAlchemy, Alembic and Celery, which would take 50 MB until its end. Meanwhile the fork
server imports the same and more on the other core.
"""

import subprocess
import sys
from types import TracebackType
from typing import NamedTuple, Self

from app.domain.json_text import read_json, write_json
from app.local_stack.supervisor import inherited_environment


class Limit(NamedTuple):
    """A provider's limit of requests per minute.

    Attributes:
        requests_per_minute: The limit, or None.
        built_in: Whether nobody has chosen the limit.
    """

    requests_per_minute: int | None
    built_in: bool


class Preparation:
    """The process of a preparation; it begins at once, and leaving the block ends it.

    Example:
        with Preparation() as preparation:
            limits = preparation.limits()
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env=inherited_environment(),
            stdin=subprocess.DEVNULL,
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

    def limits(self) -> dict[str, Limit]:
        """Wait for the end, and return the limits by provider.

        Raises:
            SystemExit: If the preparation has failed; its own line on standard error says why.
        """
        answer, _ = self._process.communicate()
        if self._process.returncode != 0:
            raise SystemExit(1)
        return {name: Limit(**limit) for name, limit in read_json(answer).items()}


def prepare() -> dict[str, Limit]:
    """Migrate the database, and return the limits by provider."""
    from app.client.process import close_process, process
    from app.configuration.sections import DEFAULT_BUCKET
    from app.embedded.connected import connected_settings, database_url, redis_url
    from app.storage import schema
    from app.storage.redis import refuse_unsuitable

    settings = connected_settings()
    refuse_unsuitable(redis_url(settings))
    schema.upgrade(database_url(settings))
    table = process().run(lambda client: client.limits.read())
    close_process()
    found = {}
    for provider in settings.provider_names:
        limit = table.values[f"{provider}/{DEFAULT_BUCKET}"]["requests_per_minute"]
        found[provider] = Limit(limit.value, limit.source == "built-in")
    return found


def main() -> int:
    """Print the limits as JSON, or the error as one line; return the exit code."""
    from app.cli.application import explain
    from app.cli.messages import say, tell
    from app.errors import AgentChordError

    try:
        limits = {name: limit._asdict() for name, limit in prepare().items()}
        tell(write_json(limits).decode())
    except (AgentChordError, OSError) as error:
        say(explain(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

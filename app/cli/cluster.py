"""The commands' access to the cluster: one client, its transactions, logs on standard error."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.celery import app
from app.client.client import Client
from app.client.process import Process, process
from app.configuration.sections import LoggingSettings
from app.monitoring.progress import find_run
from app.telemetry.logging import configure_logging

Item = TypeVar("Item")
Result = TypeVar("Result")
INSPECT_S = 0.4
INSPECT_AGAIN_S = 1.0


def connect() -> Process:
    """Return this process's client and loop; start the built-in services if no URLs are given.

    Raises:
        ConfigurationError: If a setting is wrong.
        EmbeddedServicesError: If a built-in service cannot be started.
    """
    quiet_logs()
    return process()


def quiet_logs() -> None:
    """Log only warnings and errors, on standard error; standard output is for answers."""
    configure_logging(LoggingSettings(level="WARNING"))


def ask(step: Callable[[Client], Awaitable[Result]]) -> Result:
    """Run one step with this process's client, on the client's loop."""
    return connect().run(step)


def transaction(step: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
    """Run one transaction on the cluster's database, and raise the errors of ``app.errors``."""
    return ask(lambda client: client.transaction(step))


def find(run: str) -> UUID:
    """Return the full id of a run that the user named by its id, or by the beginning or end of it.

    Raises:
        UnknownRun: If no run has such an id, or if several runs have such an id.
    """
    return transaction(partial(find_run, name=run))


def arriving(
    begin: Callable[[Client], AsyncGenerator[Item, None]],
) -> AsyncGenerator[Item, None]:
    """Iterate, on the caller's event loop, over a stream of the client's event loop."""
    return connect().iterate_async(begin)


def served_queues(wanted: set[str]) -> set[str]:
    """Return the wanted queues that at least one worker serves.

    Args:
        wanted: Names of queues; the workers are asked a second time only if a queue is missing.

    Raises:
        kombu.exceptions.OperationalError: If Redis cannot be reached.
    """
    found: set[str] = set()
    for timeout_s in (INSPECT_S, INSPECT_AGAIN_S):
        answers = app.control.inspect(timeout=timeout_s).active_queues() or {}
        found |= {queue["name"] for queues in answers.values() for queue in queues}
        if wanted <= found:
            break
    return found & wanted

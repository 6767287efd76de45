"""Handlers of Celery's signals: a worker process is checked, opened, drained and closed."""

import os
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import structlog
from celery.signals import celeryd_init, worker_init, worker_shutdown, worker_shutting_down

from app.concurrency.error_texts import described, traceback_of
from app.embedded.connected import connected_settings, database_url, redis_url
from app.errors import AgentChordError, ServiceUnavailable
from app.storage import schema
from app.storage.redis import refuse_unsuitable
from app.telemetry.logging import configure_logging
from app.telemetry.redaction import Redactor
from workers import deliveries, remote_control
from workers.runtime import Runtime

STARTUP_MAX_WAIT_S = 30.0
STARTUP_POLL_S = 2.0

_runtime: Runtime | None = None

# Messages are JSON and carry only ids. So a message cannot bring code that the user root would
# execute.
warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")

log = structlog.get_logger(__name__)


def runtime() -> Runtime:
    """Return this process's runtime; the runtime is opened before the first task arrives."""
    assert _runtime is not None, "no Celery worker has been initialised in this process"
    return _runtime


@celeryd_init.connect
def name_node(instance: Any = None, **_: Any) -> None:
    """Put the process id into the name of a worker that has only Celery's default name.

    This default is ``celery@host`` for every worker that was started without the option ``-n``.
    """
    name, _, host = instance.hostname.partition("@")
    if name == "celery":
        instance.hostname = f"celery-{os.getpid()}@{host}"


@celeryd_init.connect
def find_local_modules(**_: Any) -> None:
    """Find the modules of ``imports`` in the current folder, as ``agentchord worker`` does.

    The command ``celery`` looks there only for its own application.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)


@celeryd_init.connect
def mistrust_redis(**_: Any) -> None:
    """Let no message from Redis end this worker or change what it does."""
    deliveries.install()
    remote_control.install(obey_all=connected_settings().engine.remote_control)


@worker_init.connect
def open_runtime(sender: Any = None, **_: Any) -> None:
    """Open the runtime; if this fails, end the process with one line of text."""
    global _runtime  # noqa: PLW0603  Celery offers no other place for a process's objects
    settings = connected_settings()
    configure_logging(settings.logging, Redactor(settings.secret_values()))
    pool = sender.pool_cls if isinstance(sender.pool_cls, str) else sender.pool_cls.__module__
    if not pool.endswith(("thread", "threads", "thread:TaskPool")):
        refuse(f"the worker's pool is {pool!r}, AgentChord needs threads: start it with -P threads")
    try:
        refuse_unsuitable(redis_url(settings))
        _await_database(database_url(settings))
        _runtime = Runtime(
            f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}",
            node=sender.hostname,
            queues=sender.app.amqp.queues.consume_from,
        )
    except AgentChordError as error:
        refuse(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001
        # Celery would only log an exception. The worker would then go on and drop every task. A
        # SystemExit of a user's module would end the process with the status 0.
        log.error("worker_not_opened", exception=traceback_of(error))  # noqa: TRY400
        refuse(described(error))


@worker_shutting_down.connect
def drain_runtime(**_: Any) -> None:
    """Drain the runtime when a warm shutdown begins; see ``Runtime.drain``."""
    if _runtime is not None:
        _runtime.drain()


@worker_shutdown.connect
def close_runtime(**_: Any) -> None:
    """Close everything when the last lane has ended."""
    if _runtime is not None:
        _runtime.close()


def _await_database(url: str) -> None:
    """Check the schema, and wait for a Postgres server that is still starting."""
    deadline_s = time.monotonic() + STARTUP_MAX_WAIT_S
    while True:
        try:
            schema.require(url)
        except ServiceUnavailable as error:
            if time.monotonic() > deadline_s:
                raise
            log.warning("waiting_for_postgres", error=str(error))
            time.sleep(STARTUP_POLL_S)
        else:
            return


def refuse(reason: str) -> NoReturn:
    """End the process with one readable line."""
    sys.stderr.write(f"agentchord worker: {reason}\n")
    raise SystemExit(1)

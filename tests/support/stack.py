"""The whole stack for tests: separate services, the simulator, and real Celery workers.

Tests ask for ``stack``: one stack serves all tests of a process. While a test
has the stack, this process is a client of the stack, too. So ``enqueue`` and
``OrchestrationEngine`` work as in a user's program. After the test, AgentChord's ledger must equal
the simulator's ledger.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy.engine import make_url

from app.domain.protocols import PROTOCOLS
from app.embedded import Services, ServiceUrls
from app.local_stack.command_lines import worker_arguments
from app.local_stack.fork_server import Forked, ForkServer
from app.local_stack.forking import Order
from app.local_stack.stack import simulated
from app.simulator import SimulatorProcess, run_in_process
from tests.support.forked_commands import run_command
from tests.support.history_checks import assert_history_is_complete
from tests.support.ledgers import DIFFERENT_TOTALS, assert_ledgers_agree
from tests.support.pace import scaled
from tests.support.planted import assert_not_logged, assert_not_printed, plant
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
ALL_QUEUES = ("openai", "anthropic", "function", "http", "scheduler")
READY_S = scaled(60.0)
END_S = scaled(20.0)
GRACE_S = 5.0
# No test reaches these limits; a test of limits configures its own limits.
CONFIGURATION = """\
imports: [app.examples.tools, app.examples.functions, tests.support.agent_functions]
allow_addresses: [127.0.0.1]
rate_limits:
  openai:
    default: {concurrent_requests: 500}
  anthropic:
    default: {concurrent_requests: 500}
engine:
  drain_grace_s: 3
  long_wait_s: 60  # a busy machine keeps agents waiting; long waits have a stack of their own
"""


class ForkedProcess:
    """A forked worker with the methods of ``subprocess.Popen``."""

    def __init__(self, worker: Forked) -> None:
        self.pid = worker.pid
        self._worker = worker
        self._code: int | None = None
        self._closed = False

    def poll(self) -> int | None:
        """Return the exit code, or None if the worker runs."""
        with suppress(TimeoutError):
            return self.wait(0.0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the worker, and return its exit code."""
        if self._code is None:
            self._code = self._worker.wait(timeout)
        return self._code

    def send_signal(self, number: int) -> None:
        """Send a signal to the worker if it runs."""
        if self.poll() is None:
            self._worker.send_signal(number)

    def terminate(self) -> None:
        """Ask the worker to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the worker, wait for its end, and release its descriptors."""
        self.send_signal(signal.SIGKILL)
        self.wait()
        if not self._closed:
            self._closed = True
            self._worker.close()


@dataclass
class Worker:
    """A Celery worker process; when this process ends, the worker ends, too."""

    process: ForkedProcess | subprocess.Popen[bytes]
    lifeline: socket.socket
    log: Path

    def stop(self) -> int:
        """Ask the worker to end, wait for its end, and return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(END_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill the worker."""
        self.process.kill()
        self.lifeline.close()


@lru_cache
def fork_server() -> ForkServer:
    """Return the server that forks the workers of this process's tests."""
    server = ForkServer({**os.environ, "PYTHONPATH": search_path()}, sorted(PROTOCOLS))
    atexit.register(server.close)
    return server


@dataclass
class Stack:
    """Services, simulator and workers, and the environment variables for their clients."""

    urls: ServiceUrls
    simulator: SimulatorProcess
    folder: Path
    overrides: Mapping[str, str] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Variables for clients and workers; an empty variable counts as not set."""
        return {
            "DATABASE_URL": self.urls.database_url,
            "REDIS_URL": self.urls.redis_url,
            "AGENTCHORD_CONFIG": str(self.folder / "agentchord.yaml"),
            "AGENTCHORD_HOME": str(self.folder / "home"),
            **simulated(self.simulator),
            **self.overrides,
        }

    def _variables(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return all variables of a process of this stack; its own variables come first."""
        return {**os.environ, "PYTHONPATH": search_path(), **self.environment, **own}

    @contextmanager
    def worker(self, *queues: str, threads: int = 32) -> Iterator[Worker]:
        """Run a worker for these queues; without queues, the worker serves all queues."""
        name = f"w{len(self.workers)}-{os.getpid()}"
        worker = self.start_worker(*queues or ALL_QUEUES, name=name, threads=threads)
        self.workers.append(worker)
        try:
            yield worker
        finally:
            self.workers.remove(worker)
            worker.stop()

    def command(
        self, *words: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `agentchord` with these words, as a client of this stack."""
        done = run_command(
            *words,
            cwd=cwd or self.folder,
            environment=self._variables(environment),
            timeout_s=END_S,
        )
        assert_not_printed(done.stdout, done.stderr)
        return done

    def python(
        self, *arguments: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a Python program, as a client of this stack and outside the source tree."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd or self.folder,
            env=self._variables(environment),
            capture_output=True,
            text=True,
            timeout=END_S,
            check=False,
        )
        assert_not_printed(done.stdout, done.stderr)
        return done

    def start_python(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a program as ``python`` does, but do not wait for the program's end."""
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self._variables(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Return the rows of a statement as dicts."""
        address = make_url(self.urls.database_url).set(drivername="postgresql")
        text = address.render_as_string(hide_password=False)
        with psycopg.connect(text, row_factory=dict_row) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def start_worker(
        self,
        *queues: str,
        name: str,
        threads: int = 32,
        program: Sequence[str] = (),
        **environment: str,
    ) -> Worker:
        """Start a worker, and wait until it is ready; the caller must end the worker.

        Args:
            *queues: Queues that the worker serves.
            name: First part of the worker's node name and of the name of its log.
            threads: Number of lanes that the worker runs at the same time.
            program: The module that runs the worker, and arguments before the usual arguments; an
                empty sequence forks the worker, as ``agentchord up`` does.
            **environment: Variables that differ from the stack's.
        """
        order = Order(
            arguments=worker_arguments(queues, threads=threads, name=name),
            environment=os.environ | {"PYTHONPATH": search_path()} | self.environment | environment,
            folder=str(self.folder),
            grace_s=GRACE_S,
        )
        process: ForkedProcess | subprocess.Popen[bytes]
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            if program:
                process, ours = _spawned(program, order, output)
            else:
                forked = fork_server().fork(order, output=output.fileno())
                process, ours = ForkedProcess(forked), forked.connection
        worker = Worker(process=process, lifeline=ours, log=log)
        ours.settimeout(READY_S)
        try:
            if not ours.recv(16):
                raise RuntimeError(f"the worker did not start:\n{log.read_text(errors='replace')}")
        except BaseException:
            worker.kill()
            raise
        return worker


def _spawned(
    program: Sequence[str], order: Order, output: BinaryIO
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", *program),
                *(str(theirs.fileno()), str(order.grace_s), *order.arguments),
            ],
            cwd=order.folder,
            env=order.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(),),
        )
    return process, ours


@contextmanager
def run_stack(
    folder: Path,
    *queues: str,
    configuration: str = CONFIGURATION,
    **overrides: str,
) -> Iterator[Stack]:
    """Run a stack with one worker, separate services and a separate simulator.

    Args:
        folder: Folder for all files of the stack.
        *queues: Queues of the worker; without queues, the worker serves all queues.
        configuration: The YAML file.
        **overrides: Environment variables; an empty variable removes the default.
    """
    from app.storage.schema import upgrade

    (folder / "agentchord.yaml").write_text(configuration, encoding="utf-8")
    with ExitStack() as parts:
        parts.callback(assert_not_logged, folder)
        urls = plant(parts.enter_context(Services(folder / "services")))
        upgrade(urls.database_url)
        simulator = parts.enter_context(run_in_process())
        stack = Stack(urls, simulator, folder, overrides)
        parts.enter_context(stack.worker(*queues))
        yield stack


@pytest.fixture(scope="session")
def running_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack of this process's tests; ask for ``stack`` instead."""
    with run_stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack
        _close_client()


@pytest.fixture
def stack(running_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """The stack with a reset simulator; this process is a client of the stack."""
    from app.embedded.connected import connected_settings

    for name, value in running_stack.environment.items():
        monkeypatch.setenv(name, value)
    connected_settings.forget()
    lead_celery_to(running_stack.urls.redis_url)
    running_stack.simulator.reset()
    (before,) = running_stack.sql("SELECT coalesce(max(id), 0) AS id FROM cost_entries")
    yield running_stack
    wait_until(lambda: _quiet(running_stack), what="nothing is in progress any more")
    entries = running_stack.sql("SELECT * FROM cost_entries WHERE id > %s", before["id"])
    assert_ledgers_agree(entries, running_stack.simulator.ledger())
    assert running_stack.sql(DIFFERENT_TOTALS) == []
    assert_history_is_complete(running_stack.sql)


def _quiet(stack: Stack) -> bool:
    (open_,) = stack.sql(
        "SELECT (SELECT count(*) FROM runs WHERE status IN ('pending', 'running', 'paused'))"
        " + (SELECT count(*) FROM holds) AS things"
    )
    return not open_["things"] and not stack.simulator.summary()["in_flight"]


@contextmanager
def client_of(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make this process a client of a stack that tests do not share, inside the block."""
    from app.embedded.connected import connected_settings

    _close_client()
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    connected_settings.forget()
    lead_celery_to(stack.urls.redis_url)
    yield
    _close_client()


def lead_celery_to(redis_url: str) -> None:
    """Give the URLs of the Redis in use to the Celery instance, which reads its URLs only once."""
    from kombu import pools

    from app.celery import app
    from app.storage.redis import celery_redis_url

    celery: Any = app
    url = celery_redis_url(redis_url)
    if celery.conf.broker_url != url:
        celery.conf.update(broker_url=url, result_backend=url)
        pools.reset()
        celery._pool = celery.amqp._producer_pool = celery._backend_cache = None
        celery._local = threading.local()


def _close_client() -> None:
    """Close this process's client before its services end."""
    from app.client.process import close_process

    close_process()


def search_path() -> str:
    """Return the path of the source tree, for a process in any folder."""
    inherited = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(part for part in (inherited, str(ROOT)) if part)

"""The cluster of the fault suite: three workers, the scheduler's worker, and ways to disturb them.

The first worker reaches Postgres and Redis through proxies, whose network can be cut.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import psutil
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.engine import make_url

from app import Run, Workflow, enqueue
from app.domain.agent import PROVIDERS
from app.embedded import Services
from app.errors import ServiceUnavailable
from app.simulator import run_in_process
from app.storage.schema import upgrade
from tests.faults.database import BACK_S, Database
from tests.faults.disk import Disk
from tests.faults.proxy import Proxy
from tests.faults.scenario import Scale
from tests.faults.seams import give
from tests.support.planted import PLANTED, assert_not_logged, plant
from tests.support.stack import Stack, Worker
from tests.support.waiting import wait_until

WORKERS = ("worker1", "worker2", "worker3")
SCHEDULER = "scheduler"
RECOVERIES, RECOVERIES_OF_MIXES = 3, 20
OCCASION_S = 5.0
ANSWER_S = 2.0


@dataclass
class Cluster:
    """A stack whose workers take orders.

    Attributes:
        stack: Services, simulator, and their addresses.
        scale: The size of the suite.
        database: The suite's own connection to Postgres.
        postgres: The proxy between the first worker and Postgres.
        redis: The proxy between the first worker and Redis.
        disk: The file system of Postgres and Redis.
        max_recoveries: ``engine.max_recoveries`` of its workers.
        broken: Parts that are switched off in all workers; see ``Orders``.
        workers: The processes by name.
        stopped: Names of the workers that are stopped now.
        orders: Orders of the workers, by name.
        trouble: Present faults of the providers: rules of the simulator.
        missed: Faults that had no opportunity to happen.
        enqueued: The runs of the case.
    """

    stack: Stack
    scale: Scale
    database: Database
    postgres: Proxy
    redis: Proxy
    disk: Disk
    max_recoveries: int = RECOVERIES
    broken: str = ""
    workers: dict[str, Worker] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    trouble: list[dict[str, Any]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    enqueued: list[tuple[Run, Workflow]] = field(default_factory=list)

    def start(self, *names: str) -> None:
        """Start these workers again, in parallel, and wait until they are ready."""
        with ThreadPoolExecutor(len(names) or 1) as pool:
            list(pool.map(self._start, names))

    def replace_dead(self) -> None:
        """Start the workers that have ended, like a supervisor."""
        self.start(*(name for name, worker in self.workers.items() if not alive(worker)))

    def allow(self, *, max_recoveries: int) -> None:
        """Give all workers another ``engine.max_recoveries``, with a restart."""
        if max_recoveries != self.max_recoveries:
            self.max_recoveries = max_recoveries
            self.kill(*self.workers)
            self.start(*WORKERS, SCHEDULER)

    def stop(self) -> None:
        """End all workers."""
        with ThreadPoolExecutor(len(self.workers) or 1) as pool:
            list(pool.map(end, self.workers.values()))

    def enqueue(self, workflow: Workflow) -> Run:
        """Enqueue a run, to be checked with the others."""
        key = uuid4().hex
        run = wait_until(
            lambda: _enqueued(workflow, key), timeout_s=BACK_S, what="the client has enqueued"
        )
        assert run is not None
        self.enqueued.append((run, workflow))
        return run

    @property
    def runs(self) -> list[Run]:
        """The runs of the case."""
        return [run for run, _ in self.enqueued]

    def ended(self) -> bool:
        """Whether all runs have ended."""
        ids = [run.id for run in self.runs]
        query = "SELECT 1 FROM runs WHERE id = ANY(%s::uuid[]) AND status IN ('pending', 'running')"
        return not self.sql(query, ids)

    def clear(self) -> None:
        """End all faults, and the runs that a failed case has left."""
        for name in list(self.stopped):
            self.thaw(name)
        self.trouble.clear()
        self.stack.simulator.configure(faults=[], latency_s=0, jitter_s=0)
        self.replace_dead()
        self.broken = ""
        self.quiet()
        for run in self.runs:
            run.cancel()
        wait_until(self.ended, timeout_s=BACK_S, what="the cancelled runs have ended")
        wait_until(self.idle, timeout_s=BACK_S, what="the money of the cancelled runs is booked")

    def idle(self) -> bool:
        """Whether no money is held, and no call is under way."""
        (row,) = self.sql("SELECT count(*) AS holds FROM holds")
        return not row["holds"] and not self.stack.simulator.summary()["in_flight"]

    def trouble_with_providers(self, rule: dict[str, Any], *, begins: bool) -> None:
        """Add a fault of the providers to the present ones, or remove it."""
        (self.trouble.append if begins else self.trouble.remove)(rule)
        self.stack.simulator.configure(faults=self.trouble)

    def freeze(self, name: str) -> None:
        """Stop a worker in the middle of its work."""
        self.stopped.add(name)
        self.workers[name].process.send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it continue."""
        self.workers[name].process.send_signal(signal.SIGCONT)
        self.stopped.discard(name)

    def kill(self, *names: str) -> None:
        """Kill these workers, and wait until they are gone."""
        for name in names:
            self.workers[name].process.kill()
        for name in names:
            self.workers[name].process.wait(BACK_S)
            self.stopped.discard(name)

    def order(self, name: str, **changes: Any) -> None:
        """Add orders to those of a worker; see ``tests.faults.seams.Orders``."""
        orders = self.orders.setdefault(name, {})
        orders.update(changes)
        # A worker that has just died by an order needs no others.
        with suppress(OSError, EOFError):
            give(self._socket(name), broken=self.broken, **orders)

    def quiet(self, *orders: str) -> None:
        """Remove these orders from every worker; without arguments, all orders but ``broken``."""
        for name in self.able():
            given = self.orders.setdefault(name, {})
            for order in orders or tuple(given):
                given.pop(order, None)
            self.order(name)

    def able(self, *of: str) -> list[str]:
        """The workers (of these, if some are named) that have neither ended nor been stopped."""
        return [
            name
            for name in of or self.workers
            if alive(self.workers[name]) and name not in self.stopped
        ]

    def busy(self) -> str:
        """The worker with the most calls under way; any worker if no call starts in OCCASION_S."""
        return self._occasion(*WORKERS) or next(iter(self.able(*WORKERS)), WORKERS[0])

    def await_calls_of(self, name: str) -> None:
        """Wait until this worker has a call under way, for OCCASION_S at most."""
        self._occasion(name)

    def _occasion(self, *of: str) -> str:
        """Wait for a call, and return the worker in ``of`` that has the most calls under way."""

        def most() -> str:
            rows = self.sql(
                "SELECT a.worker FROM agent_runs a JOIN holds h ON h.agent_run_id = a.id"
                " WHERE a.worker IS NOT NULL"
            )
            pids = [int(row["worker"].split(":")[1]) for row in rows]
            calls = {name: pids.count(self.workers[name].process.pid) for name in self.able(*of)}
            return max((name for name in calls if calls[name]), key=lambda n: calls[n], default="")

        found = ""
        with suppress(AssertionError):
            found = wait_until(most, timeout_s=OCCASION_S)
        return found

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of a statement; Postgres may be down at the moment."""
        return self.database.sql(statement, *values)

    @contextmanager
    def client_of_redis(self) -> Iterator[Redis]:
        """A connection of the suite to Redis."""
        with Redis.from_url(self.stack.urls.redis_url, socket_timeout=ANSWER_S) as redis:
            yield redis

    def set_up_redis(self, step: Callable[[Redis], object]) -> None:
        """Change Redis, also if it is paused or down at the moment."""

        def changed() -> bool:
            with suppress(RedisError), self.client_of_redis() as redis:
                step(redis)
                return True
            return False

        wait_until(changed, timeout_s=BACK_S, what="Redis has taken the change")

    def redis_process(self) -> psutil.Process:
        """The server's process, also while it does not answer."""
        data = self.stack.folder / "services" / "redis"
        return psutil.Process(int((data / "redis.pid").read_text()))

    def postgres_process(self) -> psutil.Process:
        """The server's first process."""
        (row,) = self.sql("SELECT pg_read_file('postmaster.pid') AS text")
        return psutil.Process(int(row["text"].split()[0]))

    def services_are_back(self) -> None:
        """Wait until Postgres and Redis answer."""
        self.sql("SELECT 1")
        wait_until(self._redis_answers, timeout_s=BACK_S, what="Redis answers")

    def _redis_answers(self) -> bool:
        try:
            with self.client_of_redis() as redis:
                return bool(redis.ping())
        except RedisError:
            return False

    def _socket(self, name: str) -> Path:
        return self.stack.folder / f"{name}.orders"

    def _start(self, name: str) -> None:
        if name in self.workers:
            end(self.workers[name])
        self.orders.pop(name, None)
        first = json.dumps({"broken": self.broken})
        self.workers[name] = self.stack.start_worker(
            *((SCHEDULER,) if name == SCHEDULER else PROVIDERS),
            name=f"{name}-{os.getpid()}",
            program=("tests.faults.seams", str(self._socket(name)), first),
            AGENTCHORD_ENGINE__MAX_RECOVERIES=str(self.max_recoveries),
            **(self._through_proxies() if name == WORKERS[0] else {}),
        )

    def _through_proxies(self) -> dict[str, Any]:
        database = make_url(self.stack.urls.database_url)
        address = database.set(host="127.0.0.1", port=self.postgres.port, query={})
        return {
            "DATABASE_URL": address.render_as_string(hide_password=False),
            "REDIS_URL": f"redis://default:{PLANTED}@127.0.0.1:{self.redis.port}/0",
        }


def _enqueued(workflow: Workflow, key: str) -> Run | None:
    """Like a client, enqueue again with the same key while Postgres does not answer."""
    try:
        return enqueue(workflow, key=key)
    except ServiceUnavailable:
        return None


def alive(worker: Worker) -> bool:
    """Whether its process has not ended."""
    return worker.process.poll() is None


def end(worker: Worker) -> None:
    """End a worker, also one that is stopped."""
    if alive(worker):
        worker.process.send_signal(signal.SIGCONT)
    worker.stop()


@contextmanager
def run_cluster(
    folder: Path, scale: Scale, *, max_recoveries: int = RECOVERIES
) -> Iterator[Cluster]:
    """A cluster with services and a simulator of its own."""
    (folder / "agentchord.yaml").write_text(scale.configuration(), encoding="utf-8")
    with ExitStack() as parts:
        disk = parts.enter_context(Disk(folder / "services"))
        parts.callback(assert_not_logged, folder)
        urls = plant(parts.enter_context(Services(folder / "services")))
        upgrade(urls.database_url)
        simulator = parts.enter_context(run_in_process())
        query = make_url(urls.database_url).query
        socket = Path(str(query["host"])) / f".s.PGSQL.{query['port']}"
        redis = Path(unquote(urlsplit(urls.redis_url).path))
        cluster = Cluster(
            stack=Stack(urls, simulator, folder),
            scale=scale,
            database=Database(urls.database_url),
            postgres=parts.enter_context(Proxy(socket)),
            redis=parts.enter_context(Proxy(redis)),
            disk=disk,
            max_recoveries=max_recoveries,
        )
        parts.callback(cluster.database.close)
        parts.callback(cluster.stop)
        cluster.start(*WORKERS, SCHEDULER)
        yield cluster


def now() -> datetime:
    """This machine's clock, which is also the database's."""
    return datetime.now(UTC)

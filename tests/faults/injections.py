"""The faults: one small context manager each, which starts the fault and ends it.

A fault changes workers through the cluster, so that faults may overlap. Faults that end by
themselves, such as a kill, do nothing at their end.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
from redis.exceptions import RedisError

from app.embedded.postgres import DATABASE
from tests.faults.cluster import SCHEDULER, WORKERS, Cluster, alive
from tests.faults.database import BACK_S
from tests.faults.disk import may_mount
from tests.faults.proxy import Way
from tests.faults.scenario import AT_ONCE, BURST, Scale, tight
from tests.faults.seams import BOUNDARIES, Orders, disturb_messages
from tests.support.embedded_home import gone
from tests.support.waiting import wait_until

Injection = Callable[[Cluster], AbstractContextManager[None]]
FIVE_MINUTES_S = 300.0
HALF = 0.5
DISK_FULL = "disk full"


def _at_once(_: Scale) -> float:
    return 0.0


def _longer_than_a_lease(scale: Scale) -> float:
    return scale.stop_s


def _for_a_while(scale: Scale) -> float:
    return scale.trouble_s


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault.

    Attributes:
        name: Its name in the table.
        inject: Starts and ends it.
        lasts_s: Its duration, by the size of the suite.
        closes_calls: Whether calls may end with an unknown outcome.
        permits: Permits that a stopped process, or a Redis that lost its data, may use late: the
            number of requests by which the limit may be exceeded.
        outlived: Whether no process ends by it.
        until_restart: Whether it lasts until ended processes are started again.
        by_itself: Whether it happens at a moment of its own, for which no other part waits.
    """

    name: str
    inject: Injection
    lasts_s: Callable[[Scale], float] = _at_once
    closes_calls: bool = False
    permits: int = 0
    outlived: bool = False
    until_restart: bool = False
    by_itself: bool = False


@contextmanager
def nothing(_: Cluster) -> Iterator[None]:
    """No fault, for comparison."""
    yield


@contextmanager
def kill_worker(cluster: Cluster) -> Iterator[None]:
    """SIGKILL for the worker with the most calls under way; it is started again at the end."""
    cluster.kill(cluster.busy())
    yield


@contextmanager
def kill_every_worker(cluster: Cluster) -> Iterator[None]:
    """SIGKILL for all workers that make calls."""
    cluster.busy()
    cluster.kill(*WORKERS)
    yield


@contextmanager
def kill_scheduler(cluster: Cluster) -> Iterator[None]:
    """SIGKILL for the worker of the scheduler's queue."""
    cluster.kill(SCHEDULER)
    yield


@contextmanager
def freeze_worker(cluster: Cluster) -> Iterator[None]:
    """SIGSTOP until long after its leases have expired, then SIGCONT."""
    name = cluster.busy()
    cluster.freeze(name)
    yield
    if name in cluster.stopped:
        cluster.thaw(name)


@contextmanager
def freeze_and_kill(cluster: Cluster) -> Iterator[None]:
    """SIGSTOP, then SIGKILL: messages that the broker sent to the open fetch are lost."""
    name = cluster.busy()
    cluster.freeze(name)
    cluster.enqueue(tight(cluster.scale, f"while {name} is stopped"))
    yield
    if name in cluster.stopped:
        cluster.kill(name)


@contextmanager
def die_at(cluster: Cluster, boundary: str) -> Iterator[None]:
    """A worker dies when it next passes a boundary."""
    name = cluster.busy()
    worker = cluster.workers[name]
    cluster.order(name, die_at=boundary, passings=1)
    yield
    wait_until(
        lambda: not alive(worker) or cluster.ended(),
        timeout_s=BACK_S,
        what=f"{name} has died at {boundary}",
    )
    if alive(worker):
        cluster.missed.append(boundary)
        cluster.quiet("die_at")


@contextmanager
def bend_clocks(cluster: Cluster) -> Iterator[None]:
    """One worker's clock is 5 minutes ahead, another's 5 minutes behind."""
    able = cluster.able(*WORKERS)
    for name, seconds in zip(able, (FIVE_MINUTES_S, -FIVE_MINUTES_S), strict=False):
        cluster.order(name, clock_s=seconds)
    yield
    cluster.quiet("clock_s")


@contextmanager
def disturb(cluster: Cluster, lost: float, doubled: float, late: float) -> Iterator[None]:
    """Messages are lost, doubled and overtaken, from all workers and from the client."""
    for seed, name in enumerate(cluster.able()):
        cluster.order(name, seed=seed, lost=lost, doubled=doubled, late=late)
    client = Orders()
    client.take({"lost": lost, "doubled": doubled, "late": late})
    with ExitStack() as own:
        own.callback(disturb_messages(client))
        cluster.enqueue(tight(cluster.scale, "with bad messages"))
    yield
    cluster.quiet("lost", "doubled", "late")


@contextmanager
def provider_fails(cluster: Cluster, **fault: Any) -> Iterator[None]:
    """Half of the requests to both providers fail."""
    rule = {"rate": HALF, **fault}
    cluster.trouble_with_providers(rule, begins=True)
    yield
    cluster.trouble_with_providers(rule, begins=False)


@contextmanager
def flush_redis(cluster: Cluster) -> Iterator[None]:
    """FLUSHALL: queues, limits and circuits are gone."""
    # A paused one does it when it continues.
    with suppress(RedisError), cluster.client_of_redis() as redis:
        redis.flushall()
    yield


@contextmanager
def restart_redis(cluster: Cluster) -> Iterator[None]:
    """Redis is killed; its keeper starts it again with its stored data."""
    server = cluster.redis_process()
    server.kill()
    yield
    wait_until(lambda: gone(server.pid), timeout_s=BACK_S, what="the old Redis has ended")


@contextmanager
def pause_redis(cluster: Cluster) -> Iterator[None]:
    """Redis runs, but does not answer."""
    server = cluster.redis_process()
    server.suspend()
    yield
    with suppress(psutil.NoSuchProcess):
        server.resume()


@contextmanager
def kill_redis_clients(cluster: Cluster) -> Iterator[None]:
    """CLIENT KILL for every connection."""
    with cluster.client_of_redis() as redis:
        for kind in ("normal", "pubsub"):
            with suppress(RedisError):
                redis.client_kill_filter(_type=kind)
    yield


@contextmanager
def restart_postgres(cluster: Cluster) -> Iterator[None]:
    """Postgres ends at once, rolls back what is open, and is started again."""
    server = cluster.postgres_process()
    server.send_signal(signal.SIGINT)
    yield
    wait_until(lambda: gone(server.pid), timeout_s=BACK_S, what="the old Postgres has ended")


@contextmanager
def terminate_connections(cluster: Cluster) -> Iterator[None]:
    """Postgres ends every connection but the suite's."""
    cluster.sql("""
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
    """)
    yield


@contextmanager
def make_postgres_read_only(cluster: Cluster) -> Iterator[None]:
    """Every new session is read-only, and stays so; every old session ends, as in a failover."""
    cluster.sql(f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = on")
    with terminate_connections(cluster):
        yield
    cluster.sql("SET default_transaction_read_only = off")
    cluster.sql(f"ALTER DATABASE {DATABASE} RESET default_transaction_read_only")


@contextmanager
def fill_disk(cluster: Cluster) -> Iterator[None]:
    """The file system of Postgres and Redis has no free block."""
    cluster.disk.fill()
    yield
    cluster.disk.free()


@contextmanager
def make_redis_a_replica(cluster: Cluster) -> Iterator[None]:
    """Redis follows another server, which does not answer, and refuses all writes."""
    with cluster.client_of_redis() as redis:
        redis.replicaof("127.0.0.1", "1")
    yield
    cluster.set_up_redis(lambda redis: redis.replicaof("NO", "ONE"))


@contextmanager
def refuse_writes_of_redis(cluster: Cluster) -> Iterator[None]:
    """Redis has no free memory, and refuses all writes, but no reads."""
    with cluster.client_of_redis() as redis:
        redis.config_set("maxmemory", 1)
    yield
    cluster.set_up_redis(lambda redis: redis.config_set("maxmemory", 0))


@contextmanager
def cut_network(cluster: Cluster, service: str, way: Way) -> Iterator[None]:
    """No data passes between the first worker and a service, in one direction or both."""
    cluster.await_calls_of(WORKERS[0])
    with (cluster.postgres if service == "Postgres" else cluster.redis).cut(way):
        yield


def _cuts() -> Iterator[Fault]:
    ways = {Way.THERE: "to", Way.BACK: "from", Way.BOTH: "to and from"}
    for service in ("Postgres", "Redis"):
        for way, word in ways.items():
            yield Fault(
                name=f"nothing gets {word} {service}",
                inject=partial(cut_network, service=service, way=way),
                lasts_s=_longer_than_a_lease,
                closes_calls=True,
                permits=AT_ONCE,
            )


def _deaths() -> Iterator[Fault]:
    places = dict(
        zip(
            BOUNDARIES,
            ("a claim", "a hold", "sending", "the response", "the record, before its commit"),
            strict=True,
        )
    )
    for boundary, place in places.items():
        yield Fault(
            name=f"killed after {place}",
            inject=partial(die_at, boundary=boundary),
            closes_calls=True,
            by_itself=True,
        )


def _provider(name: str, *, closes_calls: bool = False, **fault: Any) -> Fault:
    return Fault(
        name=f"provider: {name}",
        inject=partial(provider_fails, **fault),
        lasts_s=_for_a_while,
        closes_calls=closes_calls,
    )


FAULTS: tuple[Fault, ...] = (
    Fault(name="nothing", inject=nothing),
    Fault(name="a worker killed", inject=kill_worker, closes_calls=True),
    Fault(
        name="every worker killed",
        inject=kill_every_worker,
        closes_calls=True,
        until_restart=True,
    ),
    Fault(name="the scheduler's worker killed", inject=kill_scheduler, until_restart=True),
    Fault(
        name="a worker stopped, then awake",
        inject=freeze_worker,
        lasts_s=_longer_than_a_lease,
        closes_calls=True,
        permits=AT_ONCE,
    ),
    Fault(
        name="a worker stopped, then killed",
        inject=freeze_and_kill,
        lasts_s=_for_a_while,
        closes_calls=True,
        permits=AT_ONCE,
    ),
    *_deaths(),
    Fault(name="Redis flushed", inject=flush_redis, permits=BURST),
    Fault(name="Redis killed and restarted", inject=restart_redis, permits=BURST),
    Fault(name="Redis paused", inject=pause_redis, lasts_s=_longer_than_a_lease),
    Fault(name="all Redis connections killed", inject=kill_redis_clients),
    Fault(name="Redis a replica", inject=make_redis_a_replica, outlived=True, lasts_s=_for_a_while),
    Fault(
        name="Redis refuses writes",
        outlived=True,
        inject=refuse_writes_of_redis,
        lasts_s=_for_a_while,
    ),
    Fault(name="Postgres restarted", inject=restart_postgres),
    Fault(name="all Postgres connections ended", inject=terminate_connections),
    Fault(
        name="Postgres read-only",
        outlived=True,
        inject=make_postgres_read_only,
        lasts_s=_longer_than_a_lease,
    ),
    Fault(name=DISK_FULL, inject=fill_disk, outlived=True, lasts_s=_longer_than_a_lease),
    *_cuts(),
    _provider("429", kind="status", status=429, retry_after_s=1),
    _provider("500", kind="status", status=500),
    _provider("529", kind="status", status=529),
    _provider("garbage", kind="garbage"),
    _provider("cut streams", kind="cut_stream"),
    _provider("hangs", kind="hang", closes_calls=True),
    Fault(
        name="5 % of messages lost, 10 % doubled, 10 % late",
        inject=partial(disturb, lost=0.05, doubled=0.1, late=0.1),
        lasts_s=_for_a_while,
    ),
    Fault(
        name="all messages lost",
        inject=partial(disturb, lost=1.0, doubled=0.0, late=0.0),
        lasts_s=_for_a_while,
    ),
    Fault(name="clocks 5 minutes off", inject=bend_clocks, lasts_s=_for_a_while),
)


def possible_faults() -> list[Fault]:
    """The faults that the user of this process can make."""
    return [fault for fault in FAULTS if fault.name != DISK_FULL or may_mount()]

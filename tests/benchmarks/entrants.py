"""The entrants, and their start on a shared stack."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy.engine import make_url

from app.domain.agent import PROVIDERS
from app.embedded.postgres import SUPERUSER
from app.local_stack.stack import SCHEDULER, SCHEDULER_THREADS
from tests.benchmarks.contenders import BenchmarkFailed, Contender
from tests.benchmarks.processes import Roles, shares_mb, with_descendants
from tests.support.embedded_home import administer
from tests.support.stack import ROOT, Stack

AGENTCHORD = "AgentChord"
PLAIN = "plain asyncio"
RAW_CELERY = "raw Celery"
WORKER_THREADS = 128
#: Folder in which scripts/peers makes the environments of peers.
ENVIRONMENTS = ROOT / ".bench"
#: Redis database of a peer; AgentChord has the first.
PEER_DB = 1


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """An entrant of the benchmark.

    Attributes:
        name: Its name in the tables.
        module: Module of this package that calls ``serve``.
        environment: Folder of its environment; empty for this project's own. A database of the same
            name is made for it.
        extension: Extension of Postgres that it needs; without it on the server no database is
            made, and the peer uses a store of its own.
    """

    name: str
    module: str
    environment: str = ""
    extension: str = ""

    @property
    def python(self) -> Path | None:
        """Interpreter of its environment; None for this one's."""
        return ENVIRONMENTS / self.environment / "bin" / "python" if self.environment else None

    @property
    def installed(self) -> bool:
        """Whether its environment is installed."""
        return self.python is None or self.python.exists()


OWN = (
    Entrant(name=AGENTCHORD, module="agentchord"),
    Entrant(name=PLAIN, module="plain_asyncio"),
    Entrant(name=RAW_CELERY, module="peers.raw_celery"),
)
PEERS = (
    Entrant(name="LangGraph", module="peers.with_langgraph", environment="langgraph"),
    Entrant(name="DBOS", module="peers.with_dbos", environment="dbos"),
    Entrant(
        name="Prefect",
        module="peers.with_prefect",
        environment="prefect",
        extension="pg_trgm",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Application:
    """The processes of an entrant.

    Attributes:
        contender: The process that gets the workloads.
        roles: All processes by role, with the contender's own.
        watched: Processes whose memory is measured: all.
        idle_mb: Their memory before the first run.
    """

    contender: Contender
    roles: Roles
    watched: Sequence[psutil.Process]
    idle_mb: float


def entrant_named(name: str) -> Entrant:
    """Find an entrant by its name."""
    return next(entrant for entrant in (*OWN, *PEERS) if entrant.name == name)


@contextmanager
def open_entrant(entrant: Entrant, stack: Stack, *, workers: int) -> Iterator[Application]:
    """Start the processes of an entrant, and end them afterwards.

    Args:
        entrant: The entrant.
        stack: Services and simulator, shared by all.
        workers: Worker processes, if the entrant has any.

    Raises:
        BenchmarkFailed: If it does not start.
    """
    if not entrant.installed:
        raise BenchmarkFailed(f"{entrant.name} is not installed: run scripts/peers first")
    with ExitStack() as parts:
        roles: Roles = {}
        variables = _variables(stack, workers)
        if entrant.name == AGENTCHORD:
            roles = _agentchord_workers(parts, stack, workers)
        elif entrant.environment:
            variables["PEER_DATABASE_URL"] = _own_database(stack, entrant)
        contender = parts.enter_context(
            Contender(
                entrant.name, entrant.module, stack, python=entrant.python, variables=variables
            )
        )
        roles = {**contender.roles, **roles}
        watched = with_descendants(roles)
        yield Application(
            contender=contender, roles=roles, watched=watched, idle_mb=shares_mb(watched)
        )


def _agentchord_workers(parts: ExitStack, stack: Stack, workers: int) -> Roles:
    serving = [
        parts.enter_context(stack.worker(*PROVIDERS, threads=WORKER_THREADS))
        for _ in range(workers)
    ]
    scheduler = parts.enter_context(stack.worker(SCHEDULER, threads=SCHEDULER_THREADS))
    return {
        "workers": [psutil.Process(worker.process.pid) for worker in serving],
        "scheduler": [psutil.Process(scheduler.process.pid)],
    }


def _variables(stack: Stack, workers: int) -> dict[str, str]:
    """Environment of a peer, beside the simulator's address."""
    socket = stack.urls.redis_url.removeprefix("unix://").partition("?")[0]
    return {
        "PEER_REDIS_URL": f"redis+socket://{socket}?virtual_host={PEER_DB}",
        "PEER_WORKERS": str(workers),
        "PEER_FOLDER": str(stack.folder),
    }


def _own_database(stack: Stack, entrant: Entrant) -> str:
    """Create a database; its address in libpq's form, or "" if an extension is missing."""
    name = entrant.environment
    server = make_url(stack.urls.database_url)
    with administer(stack.urls) as postgres:
        if (
            entrant.extension
            and not postgres.execute(
                "SELECT FROM pg_available_extensions WHERE name = %s", [entrant.extension]
            ).fetchone()
        ):
            return ""
        postgres.execute(f"CREATE DATABASE {name}".encode())
    # Some peers make extensions and further databases.
    url = server.set(drivername="postgresql", username=SUPERUSER, database=name)
    return url.render_as_string(hide_password=False)

"""Fixtures for all tests: real services, a database for each test, a clean environment.

One Postgres and one Redis serve all tests of a process (of an xdist worker). The schema is migrated
once, into a template; each test gets a clone of it, which takes 20 ms.
"""

import os
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from importlib import import_module
from itertools import chain, count, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from hypothesis import HealthCheck, settings
from redis import Redis
from sqlalchemy.engine import make_url

from app.embedded import Services, ServiceUrls
from tests.support.databases import address, administration, clone
from tests.support.pace import scaled
from tests.support.planted import plant, pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]  # a hook, which pytest finds here
#: Also one that lets each of our many processes compile every module again.
FOREIGN_VARIABLES = (
    "PYTHONDONTWRITEBYTECODE",
    "OPENAI_",
    "ANTHROPIC_",
    "AGENTCHORD_",
    "DATABASE_URL",
    "REDIS_URL",
)
#: Kinds whose tests start services and wait.
SLOW = ("e2e", "faults")
KINDS = ("unit", "integration", "e2e", "faults", "browser", "benchmark")
FOLDERS = {"benchmarks": "benchmark", "fuzz": "unit", "repository": "unit", "simulation": "faults"}
TEMPLATE = "agentchord_template"
REDIS_DATABASES = 16

settings.register_profile("dev", deadline=None)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# The eight subjects of tests/fuzz make over 10,000 cases together.
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=1450,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("dev")

_numbers = count()


def pytest_collection() -> None:
    """Import what Hypothesis imports late, in the midst of a test.

    pytest compiles this module. CPython 3.11 breaks off a compilation if the garbage collector runs
    code meanwhile that compiles, too, such as the report of an object that was not closed.
    """
    import_module("hypothesis.strategies._internal.regex")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Other versions of Redis: `make test ARGS="--redis-url redis://... -k rate_limits"`.

    More seeds: `make test ARGS="--seeds 50 -k random_moments"`.
    """
    parser.addoption(
        "--redis-url",
        help="Redis for tests that need nothing else; its databases 0 to 15 are emptied",
    )
    parser.addoption(
        "--seeds", type=int, default=8, help="how often tests at random moments are repeated"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for ``seed`` once for each of ``--seeds`` seeds."""
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(metafunc.config.getoption("--seeds")))


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """Mark each test with the kind of its folder, and begin with the slow kinds."""
    root = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(root).parts[0]
        kind = FOLDERS.get(folder, folder)
        if kind in KINDS:
            item.add_marker(kind)
    yield
    if processes := getattr(config, "workerinput", {}).get("workercount"):
        items[:] = _dealt(items, processes)
    if config.getoption("timeout") is None:
        _scale_timeouts(items, float(config.getini("timeout")))


def _scale_timeouts(items: Sequence[pytest.Item], usual_s: float) -> None:
    """Let the ceiling of each test grow with the slowness of the machine."""
    for item in items:
        own = item.get_closest_marker("timeout")
        item.add_marker(pytest.mark.timeout(scaled(own.args[0] if own else usual_s)), append=False)


def _dealt(items: Sequence[pytest.Item], processes: int) -> list[pytest.Item]:
    """Order the tests for xdist, which gives each process an equal number in a row.

    Each process begins with its share of the modules that start services and wait. At the end only
    tests of milliseconds are left to be stolen, and few modules are split.
    """
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    slow = [tests for tests in modules.values() if any(map(tests[0].get_closest_marker, SLOW))]
    slow.sort(key=lambda tests: tests[0].get_closest_marker("timeout") is None)
    quick = chain.from_iterable(tests for tests in modules.values() if tests not in slow)
    dealt: list[pytest.Item] = []
    for process in range(processes):
        own = list(chain.from_iterable(slow[process::processes]))
        share = (len(items) - len(dealt)) // (processes - process)
        dealt += own + list(islice(quick, max(share - len(own), 0)))
    return dealt


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """Remove variables that could make a test spend money or write to a real database."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(FOREIGN_VARIABLES):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def interrupts_reach_the_processes_of_tests() -> None:
    """Reset SIGINT: a shell ignores it for background jobs, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceUrls]:
    """Real Postgres and Redis, empty, for all tests of this process."""
    with Services(tmp_path_factory.mktemp("services")) as urls:
        yield plant(urls)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home for embedded services of this test; servers that it leaves running are ended."""
    yield tmp_path / "home"
    for process in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path) in word for word in process.info["cmdline"] or ()):
            process.terminate()  # a keeper ends its server


@pytest.fixture
def runnable(tmp_path: Path) -> Iterator[Path]:
    """A folder whose programs can be run; ``/tmp`` may be mounted so that its programs cannot."""
    if not os.statvfs(tmp_path).f_flag & os.ST_NOEXEC:
        yield tmp_path
        return
    with TemporaryDirectory(dir=sys.prefix) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def database_template(services: ServiceUrls) -> str:
    """Name of a migrated database without connections."""
    # Imported late, so that tests of the pure parts start without the SQL layer.
    from app.storage.schema import upgrade

    server = make_url(services.database_url)
    with administration(server) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE} OWNER {server.username}".encode())
        upgrade(address(server, TEMPLATE))
        connection.execute(f"ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false")
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
            [TEMPLATE],
        )
    return TEMPLATE


@pytest.fixture
def database_url(services: ServiceUrls, database_template: str) -> Iterator[str]:
    """URL of a migrated, empty database that this test has to itself."""
    server, name = make_url(services.database_url), f"test_{next(_numbers)}"
    yield clone(server, database_template, name)
    with administration(server) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_url(services: ServiceUrls, pytestconfig: pytest.Config) -> str:
    """URL of an empty Redis database, not the one the previous tests used."""
    given = pytestconfig.getoption("--redis-url") or services.redis_url
    address, _, _ = str(given).partition("?")
    url = f"{address}?db={next(_numbers) % REDIS_DATABASES}"
    with Redis.from_url(url) as client:
        client.flushdb()
    return url

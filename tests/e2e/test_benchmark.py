"""The benchmark in short form: its contenders do the work that is measured."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.benchmarks.at_rest import measure_at_rest
from tests.benchmarks.bench import Bench
from tests.benchmarks.contenders import Contender
from tests.benchmarks.counters import Counters
from tests.benchmarks.entrants import (
    AGENTCHORD,
    PLAIN,
    RAW_CELERY,
    Application,
    entrant_named,
    open_entrant,
)
from tests.benchmarks.results import percentile
from tests.benchmarks.verification import verify_requests
from tests.benchmarks.workloads import AT_REST, WORKLOADS, Workload
from tests.support.stack import Stack

pytestmark = pytest.mark.e2e

LEVELS = replace(WORKLOADS["W2"], levels=3, width=10, latency_s=0.0)
CHAINS = replace(WORKLOADS["W3"], runs=10, levels=3, latency_s=0.0)
AT_ONCE = replace(WORKLOADS["W4"], width=30, latency_s=0.0)
THREADS = replace(WORKLOADS["W5"], runs=7, levels=2, latency_s=0.0, threads=3)
SINGLES = replace(WORKLOADS["W6"], runs=20)
ALONE = replace(AT_REST, runs=3, latency_s=0.01, pause_s=0.01)
WORKLOADS_IN_SHORT = {
    "levels": LEVELS,
    "chains": CHAINS,
    "at once": AT_ONCE,
    "threads": THREADS,
    "singles": SINGLES,
}
#: The moments of a run in the order in which they come; ``accepted`` is not ordered among them.
MOMENTS = ("called", "admitted", "claimed", "arrived", "answered", "recorded", "ended", "known")


@pytest.fixture(scope="module")
def raw_celery(running_stack: Stack) -> Iterator[Application]:
    with open_entrant(entrant_named(RAW_CELERY), running_stack, workers=2) as application:
        yield application


@pytest.fixture(scope="module")
def plain(running_stack: Stack) -> Iterator[Application]:
    with open_entrant(entrant_named(PLAIN), running_stack, workers=2) as application:
        yield application


@pytest.fixture(scope="module")
def agentchord(running_stack: Stack) -> Iterator[Bench]:
    """AgentChord's client on the worker that all tests share."""
    with Contender(AGENTCHORD, "agentchord", running_stack) as contender:
        log = running_stack.folder / "services" / "log" / "postgres.log"
        counters = Counters(running_stack.urls, log)
        application = Application(
            contender=contender, roles=contender.roles, watched=[], idle_mb=0.0
        )
        yield Bench(
            stack=running_stack,
            applications={AGENTCHORD: application},
            servers={},
            counters=counters,
        )
        counters.close()


@pytest.mark.parametrize("workload", WORKLOADS_IN_SHORT.values(), ids=WORKLOADS_IN_SHORT)
def test_raw_celery_makes_the_same_calls_as_plain_asyncio(
    stack: Stack, raw_celery: Application, plain: Application, workload: Workload
) -> None:
    tokens = []

    for application in (raw_celery, plain):
        stack.simulator.reset()
        application.contender.run(workload)
        tokens.append(verify_requests(workload, stack.simulator.ledger()))

    stack.simulator.reset()  # no ledger has these calls
    assert tokens[0] == tokens[1]


def test_the_workers_of_raw_celery_are_told_from_its_client(raw_celery: Application) -> None:
    assert {role: len(group) for role, group in raw_celery.roles.items()} == {
        "client": 1,
        "workers": 2,
    }


@pytest.mark.parametrize("workload", [CHAINS, THREADS], ids=["coroutines", "threads"])
def test_each_run_of_agentchord_has_its_times(agentchord: Bench, workload: Workload) -> None:
    sample = agentchord.measure(AGENTCHORD, workload)  # verifies the runs, too

    assert len(set(sample.run_ids)) == len(sample.times_s) == workload.runs
    for called_s, accepted_s, known_s in sample.times_s:
        assert called_s < accepted_s < known_s
    assert max(sample.latencies_s) <= sample.wall_s


def test_the_steps_of_a_run_at_rest_come_in_order(agentchord: Bench) -> None:
    found = measure_at_rest(agentchord, ALONE)

    assert len(found) == ALONE.runs
    for moments in found:
        order = [moments[name] for name in MOMENTS]
        assert order == sorted(order)
        assert moments["called"] < moments["accepted"] < moments["known"]
        assert moments["answered"] - moments["arrived"] >= ALONE.latency_s


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        (range(1, 101), 50, 50),
        (range(1, 101), 99, 99),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([3.0, 1.0, 2.0], 99, 3.0),
        ([7.0], 1, 7.0),
    ],
)
def test_a_percentile_is_one_of_the_values(
    values: list[float], share: int, expected: float
) -> None:
    assert percentile(values, share) == expected

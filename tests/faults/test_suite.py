"""Every fault of the suite once, in small, and some mixes; `make faults` has the full form."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.faults.case import mix, run_case
from tests.faults.cluster import RECOVERIES_OF_MIXES, Cluster, run_cluster
from tests.faults.injections import (
    FAULTS,
    Fault,
    freeze_worker,
    kill_worker,
    possible_faults,
)
from tests.faults.scenario import SHORT
from tests.faults.seams import FENCING, WATCHDOG
from tests.support.pace import scaled
from tests.support.stack import client_of
from tests.support.waiting import wait_until

MIXES = 3
#: Tries in which a broken promise must be noticed; mostly it is the first.
CASES = 4


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for all tests of a process: it takes seconds to start."""
    folder = tmp_path_factory.mktemp("faults")
    with run_cluster(folder, SHORT, max_recoveries=RECOVERIES_OF_MIXES) as cluster:
        yield cluster


@pytest.fixture
def cluster(clusters: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, with this process as its client; it is restored afterwards."""
    with client_of(clusters.stack, monkeypatch):
        yield clusters
        clusters.scale = SHORT
        clusters.clear()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost_and_no_promise_is_broken_by(cluster: Cluster, fault: Fault) -> None:
    if fault not in possible_faults():
        pytest.skip("this user may not mount a small file system")
    run_case(cluster, fault)


@pytest.mark.parametrize("mixed", range(MIXES))
def test_nothing_is_lost_and_no_promise_is_broken_by_a_mix(cluster: Cluster, mixed: int) -> None:
    run_case(cluster, *mix(mixed), name=f"mix {mixed}", seed=mixed)


@contextmanager
def frozen_until_others_have_taken_over(cluster: Cluster) -> Iterator[None]:
    """A worker with several calls under way: a single one may end without an effect."""
    summary = cluster.stack.simulator.summary
    wait_until(lambda: summary()["in_flight"] >= 6, timeout_s=scaled(30), what="calls to be out")
    with freeze_worker(cluster):
        ids = [run.id for run in cluster.runs]
        query = (
            "SELECT 1 FROM attempts t JOIN agent_runs a ON a.id = t.agent_run_id"
            " WHERE a.run_id = ANY(%s::uuid[]) AND t.outcome = 'lost'"
        )
        wait_until(
            lambda: cluster.sql(query, ids), timeout_s=scaled(30), what="its leases are gone"
        )
        yield


def test_the_suite_notices_that_fencing_is_off(cluster: Cluster) -> None:
    cluster.scale = replace(SHORT, latency_s=0.5)
    cluster.broken = FENCING
    cluster.quiet()
    awake = Fault(name="awake", inject=frozen_until_others_have_taken_over, closes_calls=True)

    # By chance the late answers may have no effect, so several cases are run.
    with pytest.raises(AssertionError, match=r"accepted|came to|is open"):  # noqa: PT012
        for seed in range(CASES):
            run_case(cluster, awake, seed=seed)


def test_the_suite_notices_that_the_watchdog_is_off(cluster: Cluster) -> None:
    cluster.scale = replace(SHORT, ends_in_s=6.0)
    cluster.broken = WATCHDOG
    cluster.quiet()

    with pytest.raises(AssertionError, match="all runs have ended"):
        run_case(cluster, Fault(name="killed", inject=kill_worker, closes_calls=True))

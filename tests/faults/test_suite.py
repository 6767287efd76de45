"""Every fault of the suite once, in small, and some mixes; `make faults` has the full form."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.faults.case import mix, run_case
from tests.faults.cluster import RECOVERIES_OF_MIXES, Cluster, run_cluster
from tests.faults.injections import FAULTS, Fault
from tests.faults.scenario import SHORT
from tests.faults.seams import FENCING, WATCHDOG
from tests.stack import client_of

MIXES = 3
BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for all tests of a process: it takes seconds to start."""
    folder = tmp_path_factory.mktemp("faults")
    with run_cluster(folder, SHORT, max_recoveries=RECOVERIES_OF_MIXES) as cluster:
        yield cluster


@pytest.fixture
def cluster(clusters: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, with this process as its client, and left as it was found."""
    with client_of(clusters.stack, monkeypatch):
        yield clusters
        clusters.scale = SHORT
        clusters.clear()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost_and_no_promise_is_broken_by(cluster: Cluster, fault: Fault) -> None:
    run_case(cluster, fault)


@pytest.mark.parametrize("mixed", range(MIXES))
def test_nothing_is_lost_and_no_promise_is_broken_by_a_mix(cluster: Cluster, mixed: int) -> None:
    run_case(cluster, *mix(mixed), name=f"mix {mixed}", seed=mixed)


@pytest.mark.parametrize(
    ("broken", "fault", "complaint"),
    [
        (FENCING, "a worker stopped, then awake", "accepted|came to pending"),
        (WATCHDOG, "a worker killed", "all runs have ended"),
    ],
)
def test_the_suite_notices_a_protocol_without(
    cluster: Cluster, broken: str, fault: str, complaint: str
) -> None:
    cluster.broken = broken
    cluster.quiet()
    cluster.scale = replace(SHORT, ends_in_s=6.0)

    with pytest.raises(AssertionError, match=complaint):
        run_case(cluster, BY_NAME[fault])

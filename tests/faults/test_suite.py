"""Every fault of the suite once, in small, and some random mixes; `make faults` has the full form."""

from collections.abc import Iterator

import pytest

from tests.faults.case import mix, run_case
from tests.faults.cluster import RECOVERIES_OF_MIXES, Cluster, run_cluster
from tests.faults.injections import FAULTS, Fault
from tests.faults.scenario import SHORT
from tests.stack import client_of

MIXES = 3


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with run_cluster(tmp_path_factory.mktemp("faults"), SHORT) as cluster:
        yield cluster


@pytest.fixture
def cluster(clusters: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, with this process as its client."""
    with client_of(clusters.stack, monkeypatch):
        yield clusters


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost_and_nothing_is_paid_twice_with(cluster: Cluster, fault: Fault) -> None:
    cluster.change(max_recoveries=3)

    print(run_case(cluster, fault))


@pytest.mark.parametrize("mixed", range(MIXES))
def test_nothing_is_lost_in_a_random_mix(cluster: Cluster, mixed: int) -> None:
    cluster.change(max_recoveries=RECOVERIES_OF_MIXES)

    print(run_case(cluster, *mix(mixed), name=f"mix {mixed}", seed=mixed))

"""The benchmark in short form: its contenders do the work that is measured."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.benchmarks.entrants import PLAIN, RAW_CELERY, Application, entrant_named, open_entrant
from tests.benchmarks.verification import verify_requests
from tests.benchmarks.workloads import WORKLOADS, Workload
from tests.support.stack import Stack

pytestmark = pytest.mark.e2e

LEVELS = replace(WORKLOADS["W2"], levels=3, width=10, latency_s=0.0)
CHAINS = replace(WORKLOADS["W3"], runs=10, levels=3, latency_s=0.0)
AT_ONCE = replace(WORKLOADS["W4"], width=30, latency_s=0.0)


@pytest.fixture(scope="module")
def raw_celery(running_stack: Stack) -> Iterator[Application]:
    with open_entrant(entrant_named(RAW_CELERY), running_stack, workers=2) as application:
        yield application


@pytest.fixture(scope="module")
def plain(running_stack: Stack) -> Iterator[Application]:
    with open_entrant(entrant_named(PLAIN), running_stack, workers=2) as application:
        yield application


@pytest.mark.parametrize("workload", [LEVELS, CHAINS, AT_ONCE], ids=["levels", "chains", "at once"])
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

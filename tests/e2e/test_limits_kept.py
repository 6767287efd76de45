"""Limits are kept, and used: the short form of `make limits`, on the whole stack."""

from dataclasses import replace
from typing import Any

import pytest

from tests.benchmarks.limit_scenarios import (
    SCENARIOS,
    Outcome,
    limited_stack,
    measure_together,
    workers,
)
from tests.support.stack import client_of

pytestmark = pytest.mark.timeout(400)

PROCESSES = 2
AGENTS = 100
# Limits that 100 agents fill within a minute: a request is due every half second. So a process that
# the machine delays by some hundred milliseconds changes little. `make limits` has exact figures.
SERVERS: dict[str, dict[str, Any]] = {
    "bucket": {"requests_per_minute": 100, "burst": 10},
    "paced": {"requests_per_minute": 100, "burst": 1},
    "window": {"requests_per_minute": 50, "enforcement": "window"},
    "tokens": {"tokens_per_minute": 40_000},
    "apart": {"input_tokens_per_minute": 30_000, "output_tokens_per_minute": 10_000},
    "uncapped": {"output_tokens_per_minute": 15_000},
    "twice": {"requests_per_minute": 100, "burst": 10},
}
BELIEVED: dict[str, dict[str, Any]] = {"twice": {"requests_per_minute": 200, "burst": 20}}
#: A busy machine sends late and so loses a part of a limit. A limiter that is wrong loses half.
LEAST_USED = {"twice": 0.7}
USED = 0.8
#: Requests that arrive too close to each other, because one of them was late. Where the believed
#: burst is too high, the provider also refuses the difference.
MOST_THROTTLED = {"twice": 15}
THROTTLED = 5


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    scenarios = {
        scenario.name: replace(
            scenario,
            server=SERVERS[scenario.name],
            believed=BELIEVED.get(scenario.name, {}),
            agents=AGENTS,
        )
        for scenario in SCENARIOS
        if scenario.name in SERVERS
    }
    folder = tmp_path_factory.mktemp("limits")
    with (
        pytest.MonkeyPatch.context() as patch,
        limited_stack(folder, list(scenarios.values()), [PROCESSES]) as stack,
        workers(stack, PROCESSES),
        client_of(stack, patch),
    ):
        outcomes = measure_together(stack, list(scenarios.values()), PROCESSES)
    return dict(zip(scenarios, outcomes, strict=True))


@pytest.mark.parametrize("name", SERVERS)
def test_a_limit_is_kept_and_used(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]

    assert outcome.answered == AGENTS
    assert len(outcome.throttled_s) <= MOST_THROTTLED.get(name, THROTTLED)
    assert outcome.used >= LEAST_USED.get(name, USED)

"""Limits are kept, and used: the short form of `make limits`, on the whole stack."""

from dataclasses import replace
from typing import Any

import pytest

from tests.benchmarks.limit_scenarios import (
    SCENARIOS,
    Outcome,
    limited_stack,
    measure,
    measure_together,
    workers,
)
from tests.support.stack import client_of

pytestmark = pytest.mark.timeout(400)

PROCESSES = 2
AGENTS = 100
# Ten times the limits of `make limits`, or limits that 100 agents fill within a minute.
SERVERS: dict[str, dict[str, Any]] = {
    "bucket": {"requests_per_minute": 6000, "burst": 10},
    "paced": {"requests_per_minute": 600, "burst": 1},
    "window": {"requests_per_minute": 50, "enforcement": "window"},
    "tokens": {"tokens_per_minute": 40_000},
    "apart": {"input_tokens_per_minute": 30_000, "output_tokens_per_minute": 10_000},
    "uncapped": {"output_tokens_per_minute": 20_000},
    "twice": {"requests_per_minute": 600, "burst": 10},
}
#: Measured one after the other, without other load, because milliseconds count. The other
#: scenarios mostly wait, and run together.
ALONE = ("bucket", "paced", "twice")
#: A scenario lasts only some seconds. Other tests on the machine delay some of its requests, and
#: the last answer is expected to be a long one. `make limits` has the full figures.
LEAST_USED = {"bucket": 0.8, "paced": 0.85, "uncapped": 0.85, "twice": 0.7}
#: A process that is delayed may send a request too early or too late; and where the believed limits
#: are wrong, the provider has to refuse requests.
MOST_THROTTLED = {"bucket": 1, "paced": 2, "twice": 2}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    scenarios = {
        scenario.name: replace(scenario, server=SERVERS[scenario.name], agents=AGENTS)
        for scenario in SCENARIOS
        if scenario.name in SERVERS
    }
    together = [scenario for name, scenario in scenarios.items() if name not in ALONE]
    folder = tmp_path_factory.mktemp("limits")
    with (
        pytest.MonkeyPatch.context() as patch,
        limited_stack(folder, list(scenarios.values()), [PROCESSES]) as stack,
        workers(stack, PROCESSES),
        client_of(stack, patch),
    ):
        found = {name: measure(stack, scenarios[name], PROCESSES) for name in ALONE}
        outcomes = measure_together(stack, together, PROCESSES)
    return found | {s.name: outcome for s, outcome in zip(together, outcomes, strict=True)}


@pytest.mark.parametrize("name", SERVERS)
def test_a_limit_is_kept_and_used(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]

    assert outcome.answered == AGENTS
    assert len(outcome.throttled_s) <= MOST_THROTTLED.get(name, 0)
    assert outcome.used >= LEAST_USED.get(name, 0.95)

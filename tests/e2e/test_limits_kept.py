"""Limits are kept, and used: the short form of `make limits`, on the whole stack."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.benchmarks.limit_scenarios import (
    SCENARIOS,
    Outcome,
    Scenario,
    limited_stack,
    measure_together,
    workers,
)
from tests.stack import client_of

PROCESSES = 2
AGENTS = 100
# Ten times what `make limits` enforces, or what 100 agents fill within a minute.
SERVERS: dict[str, dict[str, Any]] = {
    "bucket": {"requests_per_minute": 6000, "burst": 10},
    "paced": {"requests_per_minute": 600, "burst": 1},
    "window": {"requests_per_minute": 50, "enforcement": "window"},
    "tokens": {"tokens_per_minute": 40_000},
    "apart": {"input_tokens_per_minute": 30_000, "output_tokens_per_minute": 10_000},
    "uncapped": {"output_tokens_per_minute": 20_000},
    "twice": {"requests_per_minute": 600, "burst": 10},
}
#: On a machine that does other things as well; requests of a second or two end with its margins.
LEAST_USED = {"bucket": 0.85, "paced": 0.85, "twice": 0.8}
#: Where a request that is milliseconds late makes the next one early, and where limits are wrong.
MOST_THROTTLED = {"bucket": 1, "paced": 3, "twice": 3}


def short_form() -> Iterator[Scenario]:
    for scenario in SCENARIOS:
        if scenario.name in SERVERS:
            yield replace(scenario, server=SERVERS[scenario.name], agents=AGENTS)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """All scenarios at the same time: they mostly wait."""
    scenarios = list(short_form())
    folder = tmp_path_factory.mktemp("limits")
    with (
        pytest.MonkeyPatch.context() as patch,
        limited_stack(folder, scenarios, [PROCESSES]) as stack,
        workers(stack, PROCESSES),
        client_of(stack, patch),
    ):
        found = measure_together(stack, scenarios, PROCESSES)
    return {scenario.name: outcome for scenario, outcome in zip(scenarios, found, strict=True)}


@pytest.mark.parametrize("name", SERVERS)
def test_a_limit_is_kept_and_used(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]

    assert outcome.answered == AGENTS
    assert len(outcome.throttled_s) <= MOST_THROTTLED.get(name, 0)
    assert outcome.used >= LEAST_USED.get(name, 0.97)

"""Facts about a call in the database: its provider, and the estimate of its prompt."""

from dataclasses import replace
from decimal import Decimal

import pytest

from app.costs.estimates import read_estimates
from app.domain.usage import Usage
from app.storage.limits import recent_calls
from tests.support.database_cluster import Cluster, agent, call, ending, hold_request

pytestmark = pytest.mark.anyio


async def test_a_call_whose_worker_died_is_booked_on_the_model_that_it_asked(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"))
    (claimed,) = (await cluster.claim(run_id, lease_s=0.0)).agents
    asked = replace(hold_request(claimed), provider="anthropic", model="claude-haiku-4-5")
    before_it_was_kept = hold_request(claimed, "0.1")

    await cluster.hold(asked)
    await cluster.hold(before_it_was_kept)
    in_flight = await cluster.commit(lambda c: recent_calls(c, 60))
    await cluster.recover()

    entries = await cluster.rows(
        "SELECT provider, model, kind FROM cost_entries ORDER BY cost_usd DESC"
    )
    assert [tuple(entry) for entry in entries] == [
        ("anthropic", "claude-haiku-4-5", "unconfirmed"),
        ("openai", "gpt-4o-mini", "unconfirmed"),
    ]
    assert {(line.provider, line.requests) for line in in_flight} == {
        ("anthropic", 1),
        ("openai", 1),
    }


async def test_estimates_are_measured_against_what_was_counted(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    (claimed,) = (await cluster.claim(run_id)).agents
    made = []
    for expected, bound, usage in (
        (90, 400, Usage(input_tokens=60, cached_tokens=40)),
        (330, 600, Usage(input_tokens=300)),
    ):
        hold = hold_request(claimed, "0.1")
        await cluster.hold(hold)
        made.append(
            call(claimed, hold, "0.05", usage=usage, expected_tokens=expected, bound_tokens=bound)
        )
    # Answered from the cache, failed, or older: nothing to compare.
    made += [
        call(claimed, hold_request(claimed), "0", kind="cached"),
        call(
            claimed,
            hold_request(claimed),
            "0",
            outcome="Overloaded",
            bound_tokens=9,
            expected_tokens=9,
        ),
        call(claimed, hold_request(claimed), "0.01", usage=Usage(input_tokens=7)),
    ]

    await cluster.record(ending(claimed, calls=made))
    (line,) = await cluster.commit(read_estimates)

    assert (line.provider, line.model, line.calls, line.prompt_tokens) == (
        "openai",
        "gpt-4o-mini",
        2,
        400,
    )
    assert (line.bias_percent, line.error_percent) == (Decimal("5.0"), Decimal("10.0"))
    assert (line.bound_factor, line.most_of_bound) == (Decimal("2.50"), Decimal("0.5000"))
    assert line.above_bound == 0

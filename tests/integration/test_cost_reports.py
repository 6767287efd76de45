from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from app.costs.reports import DIMENSIONS, costs_by, total_costs
from app.domain.usage import Usage
from tests.integration.cluster import Cluster, agent, call, ending, wish

pytestmark = pytest.mark.anyio

TOMORROW = datetime.now(UTC) + timedelta(days=1)


async def run_with_calls(cluster: Cluster) -> UUID:
    """A run of two agents: the first called twice, one of them for nothing."""
    run_id = await cluster.start(agent("a", module="HR"), agent("b", module="Finance"))
    claim = await cluster.claim(run_id)
    first, second = claim.agents
    holds = [wish(first), wish(first), wish(second)]
    for hold in holds:
        await cluster.hold(hold)
    usage = Usage(input_tokens=100, cached_tokens=20, output_tokens=7)
    calls = [
        call(first, holds[0], "0.25", outcome="ServerFailure", kind="unconfirmed", module="HR"),
        call(first, holds[1], "0.1", usage=usage, module="HR"),
    ]
    await cluster.record(
        ending(first, calls=calls),
        ending(second, calls=[call(second, holds[2], "0.02", usage=usage, module="Finance")]),
    )
    return run_id


@pytest.mark.parametrize("by", DIMENSIONS)
async def test_every_report_adds_up_to_the_total(by: str, cluster: Cluster) -> None:
    run_id = await run_with_calls(cluster)
    await run_with_calls(cluster)

    lines = await cluster.commit(lambda c: costs_by(c, by))
    of_run = await cluster.commit(lambda c: costs_by(c, by, run_id=run_id))
    total = await cluster.commit(total_costs)

    assert total.calls == sum(line.calls for line in lines) == 6
    assert total.cost_usd == sum(line.cost_usd for line in lines) == Decimal("0.74")
    assert sum(line.cost_usd for line in of_run) == Decimal("0.37")
    assert [line.cost_usd for line in lines] == sorted((x.cost_usd for x in lines), reverse=True)


async def test_a_report_tells_tokens_waste_and_what_is_not_sure(cluster: Cluster) -> None:
    run_id = await run_with_calls(cluster)

    hr, finance = await cluster.commit(lambda c: costs_by(c, "module", run_id=run_id))

    assert (hr.key, hr.calls, hr.input_tokens, hr.cached_tokens) == ("HR", 2, 120, 20)
    assert (hr.output_tokens, hr.cost_usd) == (7, Decimal("0.35"))
    assert (hr.wasted_usd, hr.unconfirmed_usd) == (Decimal("0.25"), Decimal("0.25"))
    assert finance.key == "Finance"
    assert finance.wasted_usd == finance.unconfirmed_usd == Decimal(0)


async def test_a_report_may_begin_at_a_time(cluster: Cluster) -> None:
    await run_with_calls(cluster)

    lines = await cluster.commit(lambda c: costs_by(c, "day", since=TOMORROW))
    total = await cluster.commit(lambda c: total_costs(c, since=TOMORROW))

    assert lines == []
    assert (total.calls, total.cost_usd) == (0, Decimal(0))

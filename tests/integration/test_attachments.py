"""The hash of attachments in the database: the first attempt writes it, later attempts compare."""

from functools import partial
from uuid import UUID

import pytest

from app.domain.status import AgentStatus
from app.storage.attachments import Attached, fix_attachments
from app.storage.claims import ClaimedAgent
from tests.support.database_cluster import Cluster, agent, ending
from tests.support.run_control import admit, retry

pytestmark = pytest.mark.anyio


async def claimed(cluster: Cluster, run_id: UUID) -> ClaimedAgent:
    (one,) = (await cluster.claim(run_id)).agents
    return one


async def fixed(cluster: Cluster, of: ClaimedAgent, digest: str) -> str | None:
    given = Attached(id=of.id, attempt=of.attempt, digest=digest)
    (stored,) = await cluster.commit(partial(fix_attachments, attached=[given]))
    return stored


async def test_the_first_hash_stays_over_all_attempts(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    first = await claimed(cluster, run_id)
    assert await fixed(cluster, first, "one") == "one"
    await cluster.record(
        ending(first, AgentStatus.PENDING, output=None, ready_in_s=0.0, retry=True)
    )
    second = await claimed(cluster, run_id)

    assert await fixed(cluster, second, "other") == "one"
    assert await fixed(cluster, second, "one") == "one"


async def test_an_attempt_that_has_lost_its_agent_writes_nothing(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    first = await claimed(cluster, run_id)
    await cluster.record(
        ending(first, AgentStatus.PENDING, output=None, ready_in_s=0.0, retry=True)
    )
    second = await claimed(cluster, run_id)

    assert await fixed(cluster, first, "late") is None
    assert await fixed(cluster, second, "mine") == "mine"


async def test_a_batch_answers_each_attempt_in_order(cluster: Cluster) -> None:
    run_id = await cluster.start(*(agent(f"a{number}") for number in range(5)))
    agents = (await cluster.claim(run_id, width=5)).agents
    given = [Attached(id=one.id, attempt=one.attempt, digest=one.name) for one in agents]
    stranger = Attached(id=UUID(int=1), attempt=1, digest="x")

    stored = await cluster.commit(partial(fix_attachments, attached=[*reversed(given), stranger]))

    assert stored == [*(one.name for one in reversed(agents)), None]


async def test_a_retry_by_a_client_begins_anew(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    first = await claimed(cluster, run_id)
    await fixed(cluster, first, "wrong")
    await cluster.record(ending(first, AgentStatus.FAILED, output=None, error="no"))
    await cluster.advance(run_id, 0)
    assert await retry(cluster, run_id)
    await admit(cluster)

    assert await fixed(cluster, await claimed(cluster, run_id), "right") == "right"

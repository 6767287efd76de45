from functools import partial
from uuid import UUID

import pytest

from app.errors import UnknownRun
from app.monitoring.progress import find_run, read_progress
from tests.support.database_cluster import Cluster, agent, ending

pytestmark = pytest.mark.anyio


async def test_progress_shows_the_agents_level_by_level(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("b", "a"), agent("a"), agent("c", "a"))
    claim = await cluster.claim(run_id)
    await cluster.record(ending(claim.agents[0]))

    run = await cluster.commit(lambda c: read_progress(c, run_id))

    assert [[one.name for one in level] for level in run.levels()] == [["a"], ["b", "c"]]
    assert (run.workflow, run.status, run.level_count) == ("test", "running", 2)
    assert run.agents[0].status == "completed"
    assert run.agents[0].finished_at is not None
    assert run.agents[1].started_at is None


async def test_a_run_is_found_by_any_beginning_that_is_its_own(cluster: Cluster) -> None:
    first = await cluster.start(agent("a"))
    second = await cluster.start(agent("a"))

    for prefix in (str(first), first.hex, str(first)[:30], first.hex[:31].upper()):
        assert await cluster.commit(partial(find_run, prefix=prefix)) == first
    with pytest.raises(UnknownRun, match="several runs"):
        await cluster.commit(lambda c: find_run(c, str(second)[:4]))


@pytest.mark.parametrize("prefix", ["", "-", "x", "f" * 33, str(UUID(int=0)), "ffff"])
async def test_what_is_no_beginning_of_an_id_is_an_unknown_run(
    prefix: str, cluster: Cluster
) -> None:
    await cluster.start(agent("a"))

    with pytest.raises(UnknownRun, match="agentchord runs"):
        await cluster.commit(lambda c: find_run(c, prefix))


async def test_reading_the_progress_of_no_run_is_refused(cluster: Cluster) -> None:
    with pytest.raises(UnknownRun, match="agentchord runs"):
        await cluster.commit(lambda c: read_progress(c, UUID(int=0)))

from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.run_ids import short_id
from app.errors import UnknownRun
from app.monitoring.progress import FIND_RUNS, find_run, read_progress
from tests.support.database_cluster import Cluster, agent, ending

pytestmark = pytest.mark.anyio

COLUMNS = """
    SELECT column_name::text FROM information_schema.columns
    WHERE table_name = 'runs' AND is_generated = 'NEVER'
"""


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


async def test_a_run_is_found_by_any_beginning_or_end_that_is_its_own(cluster: Cluster) -> None:
    first = await cluster.start(agent("a"))
    second = await cluster.start(agent("a"))

    ends = (short_id(first), first.hex[-9:], str(first)[-20:].upper())
    for name in (str(first), first.hex, str(first)[:30], first.hex[:31].upper(), *ends):
        assert await cluster.commit(partial(find_run, name=name)) == first
    with pytest.raises(UnknownRun, match="several runs") as refused:
        await cluster.commit(lambda c: find_run(c, str(second)[:4]))
    for each in (first, second):
        assert f"{short_id(each)} (test, running, " in str(refused.value)


async def test_an_end_that_several_runs_have_is_refused_with_the_runs_named(
    cluster: Cluster,
) -> None:
    run_id = await cluster.start(agent("a"))
    other = "2" if run_id.hex[-10] == "1" else "1"
    twin = UUID(f"0{'1' * 21}{other}{run_id.hex[-9:]}")
    columns = await cluster.commit(lambda c: c.scalars(text(COLUMNS)))
    copied = ", ".join(each for each in columns if each not in ("id", "key", "input_hash"))
    copy = f"INSERT INTO runs (id, {copied}) SELECT :twin, {copied} FROM runs WHERE id = :id"
    await cluster.commit(lambda c: c.execute(text(copy), {"twin": twin, "id": run_id}))

    with pytest.raises(UnknownRun) as refused:
        await cluster.commit(lambda c: find_run(c, short_id(run_id)))
    for each in (run_id, twin):
        assert f"{each.hex[-10:]} (test, running, " in str(refused.value)
        assert await cluster.commit(partial(find_run, name=each.hex[-10:])) == each


async def test_the_end_of_an_id_is_found_by_an_index(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))
    digits = short_id(run_id)
    given = {"low": UUID(digits.ljust(32, "0")), "high": UUID(digits.ljust(32, "f"))}

    async def plan(c: AsyncConnection) -> str:
        # A table of a few rows would be read whole.
        await c.execute(text("SET LOCAL enable_seqscan = off"))
        lines = await c.scalars(
            text(f"EXPLAIN {FIND_RUNS.text}"), given | {"digits": digits, "most": 6}
        )
        return "\n".join(lines)

    assert "ix_runs_short_id" in await cluster.commit(plan)


@pytest.mark.parametrize("name", ["", "-", "x", "f" * 33, str(UUID(int=0)), "ffff"])
async def test_what_is_no_part_of_an_id_is_an_unknown_run(name: str, cluster: Cluster) -> None:
    await cluster.start(agent("a"))

    with pytest.raises(UnknownRun, match="agentchord runs"):
        await cluster.commit(lambda c: find_run(c, name))


async def test_fewer_than_eight_digits_of_the_end_name_no_run(cluster: Cluster) -> None:
    run_id = await cluster.start(agent("a"))

    with pytest.raises(UnknownRun, match="begins or ends with"):
        await cluster.commit(lambda c: find_run(c, short_id(run_id)[1:]))


async def test_reading_the_progress_of_no_run_is_refused(cluster: Cluster) -> None:
    with pytest.raises(UnknownRun, match="agentchord runs"):
        await cluster.commit(lambda c: read_progress(c, UUID(int=0)))

"""Many runs in one call: all of them are stored or none, and they share their reads."""

import asyncio
from collections.abc import Collection
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.client import enqueues, waiting
from app.client.client import Client
from app.client.enqueues import Wanted
from app.domain.run_options import RunOptions
from app.domain.scope import Scope
from app.domain.status import WorkflowStatus
from app.domain.workflow import Workflow
from app.errors import (
    OutOfScope,
    RunConflict,
    SeveralMistakes,
    UnknownModel,
    UnknownRun,
    WaitTimeout,
    WorkflowError,
)
from app.storage.runs import read_statuses
from tests.support.database_cluster import Cluster, agent
from tests.support.pace import scaled
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio

WORKFLOW = Workflow(name="pair", agents=[agent("a", prompt_template="{topic}"), agent("b", "a")])
OTHER = Workflow(name="single", agents=[agent("c", prompt_template="{topic}")], labels={"of": "c"})
UNPRICED = Workflow(name="unpriced", agents=[agent("a")])
UNPRICED.agents[0].llm_config = {"model": "gpt-99"}
WAIT_S = scaled(20)
NONE = RunOptions()


def wanted(
    workflow: Workflow = WORKFLOW, topic: Any = "tides", options: RunOptions = NONE
) -> Wanted:
    return Wanted(workflow=workflow, input={"topic": topic}, options=options)


async def count(cluster: Cluster) -> int:
    ((number,),) = await cluster.rows("SELECT count(*) FROM runs")
    return int(number)


async def test_all_runs_of_a_list_are_stored_in_order_by_one_transaction(
    client: Client, cluster: Cluster
) -> None:
    number = enqueues.PORTION_RUNS + 20
    given = [wanted((WORKFLOW, OTHER)[place % 2], place) for place in range(number)]

    ids = await client.runs.enqueue_many(given)

    stored = await cluster.rows(
        "SELECT r.id, r.xmin::text AS written, r.input, r.labels, w.name, count(a.id) AS agents "
        "FROM runs r JOIN workflows w ON w.id = r.workflow_id JOIN agent_runs a ON a.run_id = r.id "
        "GROUP BY r.id, w.name"
    )
    by_id = {row.id: row for row in stored}
    assert len({row.written for row in stored}) == 1
    assert len(ids) == len(by_id) == number
    assert [by_id[id_].input["topic"] for id_ in ids] == list(range(number))
    assert [by_id[id_].name for id_ in ids[:2]] == ["pair", "single"]
    assert [by_id[id_].agents for id_ in ids[:2]] == [2, 1]
    assert [by_id[id_].labels for id_ in ids[:2]] == [{}, {"of": "c"}]


async def test_large_inputs_are_divided_among_statements(
    client: Client, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueues, "PORTION_BYTES", 1000)

    ids = await client.runs.enqueue_many([wanted(topic="x" * size) for size in (2000, 10, 900, 5)])

    rows = await cluster.rows("SELECT id, length(input ->> 'topic') AS size FROM runs")
    sizes = {row.id: row.size for row in rows}
    assert [sizes[id_] for id_ in ids] == [2000, 10, 900, 5]


async def test_an_empty_list_needs_nothing(client: Client, cluster: Cluster) -> None:
    assert await client.runs.enqueue_many([]) == []
    assert await client.runs.wait_all([], 0.0) == []
    assert await count(cluster) == 0


async def test_all_mistakes_of_a_list_are_named_and_nothing_is_stored(
    client: Client, cluster: Cluster
) -> None:
    same = RunOptions(key="invoice-1")
    given = [
        wanted(options=same),
        Wanted(workflow=WORKFLOW, input={"topci": "tides"}, options=NONE),
        wanted(UNPRICED),
        wanted(UNPRICED),
        wanted(topic=float("nan")),
        wanted(options=same),
        wanted(options=RunOptions(tenant="e\u0301")),
        wanted(options=RunOptions(labels={f"l{number}": "x" for number in range(16)})),
        wanted(OTHER, options=RunOptions(labels={f"l{number}": "x" for number in range(16)})),
    ]

    with pytest.raises(SeveralMistakes) as caught:
        await client.runs.enqueue_many(given)

    assert [mistake.field for mistake in caught.value.mistakes] == [
        "runs[1].agents[0].prompt_template",
        "runs[4].input.topic",
        "runs[6].tenant",
        "runs[8].labels",
        "runs[5].key",
        "runs[2].agents[0].llm_config",
    ]
    assert "runs[5]: the key 'invoice-1' is also the key of runs[0]" in str(caught.value)
    assert await count(cluster) == 0


async def test_a_single_mistake_keeps_its_class(client: Client, cluster: Cluster) -> None:
    with pytest.raises(UnknownModel, match=r"^runs\[1\]: "):
        await client.runs.enqueue_many([wanted(), wanted(UNPRICED)])
    with pytest.raises(WorkflowError, match=r"^runs\[0\]: ") as caught:
        await client.runs.enqueue_many([wanted(topic=b"bytes"), wanted()])

    assert caught.value.field == "runs[0].input.topic"
    assert await count(cluster) == 0


async def test_a_run_of_the_list_that_exists_already_is_not_stored_again(
    client: Client, cluster: Cluster
) -> None:
    key = RunOptions(key="tides-1")
    before = await client.runs.enqueue(WORKFLOW, {"topic": "tides"}, key)

    ids = await client.runs.enqueue_many([wanted(topic="new"), wanted(options=key)])
    again = await client.runs.enqueue_many([wanted(options=key)])

    assert ids[1] == again[0] == before != ids[0]
    assert await count(cluster) == 2


async def test_a_key_of_another_run_refuses_the_whole_list(
    client: Client, cluster: Cluster
) -> None:
    key = RunOptions(key="tides-1")
    await client.runs.enqueue(WORKFLOW, {"topic": "tides"}, key)

    with pytest.raises(RunConflict, match="another input"):
        await client.runs.enqueue_many([wanted(), wanted(topic="ebb", options=key), wanted()])

    assert await count(cluster) == 1


async def test_a_list_stays_within_the_scope_of_its_client(
    client: Client, cluster: Cluster
) -> None:
    acme = client.within(Scope(tenant="acme"))

    (own,) = await acme.runs.enqueue_many([wanted()])
    with pytest.raises(OutOfScope):
        await acme.runs.enqueue_many([wanted(), wanted(options=RunOptions(tenant="other"))])

    assert await count(cluster) == 1
    with pytest.raises(UnknownRun):
        await client.within(Scope(tenant="other")).runs.wait_all([own], 0.0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of runs of each statement that reads states."""
    sizes: list[int] = []
    read = read_statuses

    async def counted(connection: Any, ids: Collection[UUID], **scope: Any) -> Any:
        sizes.append(len(ids))
        return await read(connection, ids, **scope)

    monkeypatch.setattr(waiting, "read_statuses", counted)
    return sizes


async def test_one_wait_for_a_list_reads_all_news_with_one_statement_at_a_time(
    client: Client, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "POLL_S", WAIT_S)  # only signals lead to reads
    ids = await client.runs.enqueue_many([wanted() for _ in range(60)])
    await client.runs.enqueue_many([wanted() for _ in range(40)])
    task = asyncio.create_task(client.runs.wait_all([*ids, ids[0]], WAIT_S))

    async def has_read() -> bool:
        return bool(reads)

    await wait_until_async(has_read, what="the first read")

    await asyncio.gather(*(client.control.cancel(id_, "enough") for id_ in ids))
    states = await task

    assert states == [WorkflowStatus.CANCELLED] * 61
    assert reads[0] == 60
    assert len(reads) < 60  # a read for each run would be 60 reads more than the first
    assert sum(reads[1:]) <= 4 * 60  # a run is read again only after a signal about it


async def test_many_callers_share_their_reads(client: Client, reads: list[int]) -> None:
    ids = await client.runs.enqueue_many([wanted() for _ in range(100)])

    waits = [client.runs.wait(id_, 0.0) for id_ in ids]
    ends = await asyncio.gather(*waits, return_exceptions=True)

    assert {type(end) for end in ends} == {WaitTimeout}
    assert len(reads) <= 2


async def test_a_wait_that_is_over_names_the_runs_that_go_on(client: Client) -> None:
    ids = await client.runs.enqueue_many([wanted() for _ in range(5)])
    await client.control.cancel(ids[0], "enough")

    with pytest.raises(WaitTimeout) as caught:
        await client.runs.wait_all(ids, 0.0)

    message = str(caught.value)
    assert message.startswith("4 of 5 runs have not ended after 0 s (")
    assert str(ids[0]) not in message
    assert "and 1 more" in message


async def test_an_unknown_run_of_the_list_is_named_at_once(client: Client) -> None:
    ids = await client.runs.enqueue_many([wanted()])
    unknown = UUID(int=7)

    with pytest.raises(UnknownRun, match=str(unknown)):
        await client.runs.wait_all([*ids, unknown], WAIT_S)


async def test_a_workflow_that_a_restored_backup_lacks_is_stored_again(
    client: Client, cluster: Cluster
) -> None:
    await client.runs.enqueue_many([wanted(), wanted(OTHER)])
    await cluster.commit(lambda c: c.execute(text("TRUNCATE runs, workflows CASCADE")))

    one = await client.runs.enqueue(WORKFLOW, {"topic": "ebb"})
    many = await client.runs.enqueue_many([wanted(OTHER), wanted()])

    rows = await cluster.rows(
        "SELECT r.id, w.name FROM runs r JOIN workflows w ON w.id = r.workflow_id"
    )
    names = {row.id: row.name for row in rows}
    assert [names[id_] for id_ in (one, *many)] == ["pair", "single", "pair"]


async def test_what_a_failed_transaction_has_stored_is_not_remembered(
    client: Client, cluster: Cluster
) -> None:
    key = RunOptions(key="tides-1")
    await client.runs.enqueue(WORKFLOW, {"topic": "tides"}, key)

    with pytest.raises(RunConflict):
        await client.runs.enqueue(OTHER, {"topic": "tides"}, key)
    id_ = await client.runs.enqueue(OTHER, {"topic": "tides"})

    assert (await client.runs.read(id_)).workflow == "single"

"""Labels of runs in Postgres, and the lists of runs that they filter."""

import random
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest

from app.client.client import Client
from app.domain.run_filter import RunFilter
from app.domain.run_options import RunOptions
from app.domain.scope import Scope
from app.domain.status import WorkflowStatus
from app.domain.workflow import Workflow
from app.errors import WorkflowError
from app.monitoring.progress import read_progress
from app.storage.rerun import rerun
from app.storage.run_lists import find_unknown, list_runs
from tests.support.database_cluster import Cluster, agent, ending
from tests.support.nesting import CHECK, claim_check, inner_of, start, sub_run

pytestmark = pytest.mark.anyio

WORKFLOW = Workflow(name="mails", agents=[agent("a")], labels={"team": "claims", "tier": "gold"})
OWN = {"team": "sales", "batch": "2026-11"}
WHOLE = {"team": "sales", "tier": "gold", "batch": "2026-11"}
TEAMS, BATCHES, TENANTS, NAMES = ("a", "b", None), ("1", "2", None), ("x", "y", None), ("u", "v")


async def labels_of(cluster: Cluster, run_id: UUID) -> dict[str, str]:
    ((labels,),) = await cluster.rows("SELECT labels FROM runs WHERE id = :id", id=run_id)
    return dict(labels)


async def test_a_run_has_its_labels_and_those_of_its_workflow(
    client: Client, cluster: Cluster
) -> None:
    run_id = await client.runs.enqueue(WORKFLOW, {}, RunOptions(labels=OWN))

    progress = await cluster.commit(partial(read_progress, run_id=run_id))
    ((created,),) = await cluster.rows("SELECT data FROM events WHERE type = 'run_created'")
    (listed,) = await client.runs.list()
    assert (await client.runs.read(run_id)).labels == listed.labels == progress.labels == WHOLE
    assert created["labels"] == WHOLE


async def test_too_many_labels_in_total_are_refused_before_anything_is_stored(
    client: Client, cluster: Cluster
) -> None:
    many = {f"label{n}": "a" for n in range(15)}

    with pytest.raises(WorkflowError, match="labels are 17: give at most 16"):
        await client.runs.enqueue(WORKFLOW, {}, RunOptions(labels=many))

    assert await cluster.rows("SELECT FROM runs") == []


async def test_an_inner_run_has_the_labels_of_the_outer_run(cluster: Cluster) -> None:
    outer = await cluster.start(CHECK, own_labels=OWN)
    inner_workflow = Workflow(name="inner", agents=[agent("x")], labels={"kind": "inner"})

    await start(cluster, sub_run(await claim_check(cluster, outer), inner_workflow))

    assert await labels_of(cluster, await inner_of(cluster, outer)) == OWN


async def test_a_rerun_has_the_labels_of_the_old_run(cluster: Cluster) -> None:
    old = await cluster.start(agent("a"), own_labels=OWN)
    (claimed,) = (await cluster.claim(old)).agents
    await cluster.record(ending(claimed))
    await cluster.advance(old, 0)

    new = await cluster.commit(partial(rerun, run_id=old, agent="a"))

    assert await labels_of(cluster, new) == OWN


async def test_a_run_with_the_same_key_keeps_its_labels(client: Client, cluster: Cluster) -> None:
    first = await client.runs.enqueue(WORKFLOW, {}, RunOptions(key="k", labels=OWN))

    second = await client.runs.enqueue(WORKFLOW, {}, RunOptions(key="k", labels={"team": "x"}))

    assert first == second
    assert await labels_of(cluster, first) == WHOLE


async def test_labels_cost_an_enqueue_no_further_trip_to_the_database(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.runs.enqueue(WORKFLOW, {})
    execute, statements = psycopg.AsyncCursor.execute, 0

    async def counted(*args: Any, **options: Any) -> Any:
        nonlocal statements
        statements += 1
        return await execute(*args, **options)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", counted)

    async def trips(options: RunOptions) -> int:
        before = statements
        await client.runs.enqueue(WORKFLOW, {}, options)
        return statements - before

    assert await trips(RunOptions(labels=OWN)) == await trips(RunOptions()) == 1


async def test_a_list_has_exactly_the_runs_that_fulfil_its_filter(cluster: Cluster) -> None:
    chance = random.Random(7)
    runs: list[dict[str, Any]] = []
    for number in range(60):
        drawn = {"team": chance.choice(TEAMS), "batch": chance.choice(BATCHES)}
        labels = {key: value for key, value in drawn.items() if value is not None}
        run = {"labels": labels, "tenant": chance.choice(TENANTS), "name": chance.choice(NAMES)}
        workflow: dict[str, Any] = {"name": run["name"], "tenant": run["tenant"]}
        workflow["own_labels"] = labels
        # Workflows of one name have several versions.
        id_ = await cluster.start(agent("a"), **workflow, priority=1 + number % 3)
        runs.insert(0, run | {"id": id_})

    for tenant in TENANTS:
        for name in (*NAMES, None):
            for team in ("a", "b", "any", None):
                for batch in ("1", None):
                    wanted: dict[str, str | None] = {"team": team} if team else {}
                    wanted = {key: None if v == "any" else v for key, v in wanted.items()}
                    wanted |= {"batch": batch} if batch else {}
                    only = RunFilter(tenant=tenant, workflow=name, labels=wanted)
                    found = await cluster.commit(partial(list_runs, only=only, limit=5))
                    expected = [run["id"] for run in runs if fulfils(run, only)][:5]
                    assert [each.id for each in found] == expected, only


def fulfils(run: dict[str, Any], only: RunFilter) -> bool:
    return (
        only.tenant in (None, run["tenant"])
        and only.workflow in (None, run["name"])
        and all(
            key in run["labels"] and value in (None, run["labels"][key])
            for key, value in only.labels.items()
        )
    )


async def test_a_list_has_a_state_and_no_inner_runs(cluster: Cluster) -> None:
    outer = await cluster.start(CHECK, own_labels=OWN)
    await start(cluster, sub_run(await claim_check(cluster, outer)))
    only = RunFilter(labels=OWN)

    running = await cluster.commit(partial(list_runs, only=only, status=WorkflowStatus.RUNNING))
    failed = await cluster.commit(partial(list_runs, only=only, status=WorkflowStatus.FAILED))

    assert [run.id for run in running] == [outer]
    assert failed == []


async def test_a_filter_does_not_reach_beyond_the_scope(client: Client) -> None:
    options = RunOptions(tenant="acme", labels=OWN)
    run_id = await client.runs.enqueue(WORKFLOW, {}, options)
    acme, other = (client.within(Scope(tenant=name)) for name in ("acme", "other"))

    for only in (RunFilter(labels=OWN), RunFilter(tenant="acme"), RunFilter(workflow="mails")):
        assert [run.id for run in await acme.runs.list(only=only)] == [run_id]
        assert await other.runs.list(only=only) == []


@pytest.mark.parametrize(
    ("only", "sentences"),
    [
        (RunFilter(tenant="acne"), ["there is no tenant 'acne'; did you mean 'acme'?"]),
        (RunFilter(workflow="mail"), ["there is no workflow 'mail'; did you mean 'mails'?"]),
        (RunFilter(labels={"taem": "x"}), ["there is no label 'taem'; did you mean 'team'?"]),
        (RunFilter(tenant="zzz", workflow="mails"), ["there is no tenant 'zzz'"]),
        (RunFilter(tenant="acme", workflow="mails", labels={"team": "nobody"}), []),
    ],
)
async def test_a_name_that_nothing_has_is_told(
    cluster: Cluster, only: RunFilter, sentences: list[str]
) -> None:
    for tenant in ("acme", "blue", None, "zoo"):
        await cluster.start(agent("a"), name="mails", tenant=tenant, own_labels={"team": "claims"})

    assert await cluster.commit(partial(find_unknown, only=only)) == sentences

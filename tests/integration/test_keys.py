"""Runs with keys: the same key twice gives one run."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from app.domain.run_options import RunOptions
from app.domain.workflow import Workflow
from app.errors import RunConflict, WorkflowError
from app.storage import new_runs, runs
from tests.support.database_cluster import Cluster, agent

pytestmark = pytest.mark.anyio

WORKFLOW = Workflow(name="invoices", agents=[agent("reader", prompt_template="{invoice}")])


async def enqueue(
    cluster: Cluster,
    input_: dict[str, Any],
    workflow: Workflow = WORKFLOW,
    **options: Any,
) -> UUID:
    async def create(connection):  # type: ignore[no-untyped-def]
        workflow_id = await runs.store_workflow(connection, workflow)
        given = RunOptions(**options)
        return await new_runs.create_run(connection, workflow, workflow_id, input_, given)

    return await cluster.commit(create)


async def test_a_key_makes_one_run_however_often_it_is_asked_for(cluster: Cluster) -> None:
    first = await enqueue(cluster, {"invoice": "a", "page": 1}, key="invoice-42")

    second = await enqueue(cluster, {"page": 1, "invoice": "a"}, key="invoice-42")

    assert second == first
    assert await cluster.rows("SELECT id FROM runs") == [(first,)]
    counted = "SELECT count(*) FROM agent_runs UNION ALL SELECT count(*) FROM events"
    assert await cluster.rows(counted) == [(1,), (1,)]


async def test_a_key_asked_for_by_many_at_once_makes_one_run(cluster: Cluster) -> None:
    made = await asyncio.gather(
        *(enqueue(cluster, {"invoice": "a"}, key="invoice-42") for _ in range(5))
    )

    assert len(set(made)) == 1
    assert await cluster.rows("SELECT count(*) FROM runs") == [(1,)]
    assert await cluster.rows("SELECT count(*) FROM budgets") == [(1,)]


async def test_without_a_key_every_enqueue_is_a_run(cluster: Cluster) -> None:
    made = [await enqueue(cluster, {"invoice": "a"}) for _ in range(2)]

    assert len(set(made)) == 2


async def test_another_input_workflow_version_or_tenant_under_the_same_key_is_refused(
    cluster: Cluster,
) -> None:
    first = await enqueue(cluster, {"invoice": "a"}, key="invoice-42")
    changed = Workflow(name="invoices", agents=[agent("reader", prompt_template="Read {invoice}")])
    other = Workflow(name="orders", agents=[agent("reader", prompt_template="{invoice}")])

    with pytest.raises(RunConflict, match=f"'invoice-42' belongs to run {first}.*another input"):
        await enqueue(cluster, {"invoice": "b"}, key="invoice-42")
    with pytest.raises(RunConflict, match="workflow 'invoices' v1"):
        await enqueue(cluster, {"invoice": "a"}, changed, key="invoice-42")
    with pytest.raises(RunConflict, match="workflow 'invoices' v1"):
        await enqueue(cluster, {"invoice": "a"}, other, key="invoice-42")
    with pytest.raises(RunConflict, match="tenant None"):
        await enqueue(cluster, {"invoice": "a"}, key="invoice-42", tenant="acme")

    assert await cluster.rows("SELECT id FROM runs") == [(first,)]
    assert await cluster.rows("SELECT name, version FROM workflows") == [("invoices", 1)]


@pytest.mark.parametrize("key", ["", " padded ", "two\nlines", "x" * 201, 42])
def test_what_is_no_name_is_no_key(key: Any) -> None:
    with pytest.raises(WorkflowError, match="key of the run"):
        RunOptions(key=key)

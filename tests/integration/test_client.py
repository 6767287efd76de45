"""Clients on a program's own event loop, as in a service: nothing is bound to a process."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from app.bootstrap import build_platform
from app.client import process
from app.client.client import Client
from app.domain.run_options import RunOptions
from app.domain.status import WorkflowStatus
from app.domain.workflow import Workflow
from app.errors import SeveralMistakes, UnknownRun, UnknownWorkflow, WaitTimeout, WorkflowError
from tests.support.database_cluster import Cluster, agent, ending
from tests.support.pace import scaled

pytestmark = pytest.mark.anyio

WORKFLOW = Workflow(name="pair", agents=[agent("a", prompt_template="{topic}"), agent("b", "a")])
INPUT = {"topic": "tides"}
WAIT_S = scaled(20)
UNKNOWN = UUID(int=7)


async def test_two_clients_of_one_loop_work_on_the_same_runs(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "process", None)  # calling it fails
    other = Client(build_platform(application_name="agentchord other"))
    run_id = await client.runs.enqueue(WORKFLOW, INPUT, RunOptions(key="pair-1"))

    assert await other.runs.enqueue(WORKFLOW, INPUT, RunOptions(key="pair-1")) == run_id
    assert (await other.runs.read(run_id)).status is WorkflowStatus.PENDING
    assert [each.name for each in await other.runs.agents(run_id)] == ["a", "b"]
    assert [run.id for run in await other.runs.list(None, 10)] == [run_id]
    with pytest.raises(WaitTimeout, match="has not ended"):
        await client.runs.wait(run_id, 0.2)
    waiting = asyncio.create_task(client.runs.wait(run_id, WAIT_S))
    assert await other.control.cancel(run_id, "enough")
    assert await waiting is WorkflowStatus.CANCELLED
    assert not await client.control.cancel(run_id, "again")
    await other.close()


async def test_a_run_is_read_with_its_workflow_history_and_results(
    client: Client, cluster: Cluster
) -> None:
    run_id = await cluster.start(agent("a", prompt_template="{topic}"))
    (claimed,) = (await cluster.claim(run_id)).agents
    await cluster.record(ending(claimed, output="high and low"))
    await cluster.advance(run_id, 0)

    state = await client.runs.wait(run_id, WAIT_S)
    events = [event.type async for event in client.history.events(run_id, 0)]
    workflow = await client.results.workflow(run_id)

    assert state is WorkflowStatus.COMPLETED
    assert (events[0], events[-1]) == ("run_created", "run_completed")
    assert await client.results.outputs(run_id) == {"a": "high and low"}
    assert await client.results.context(run_id) == {}
    assert (await client.results.by_agent(run_id))["a"].output == "high and low"
    assert workflow.status is WorkflowStatus.COMPLETED
    assert (await client.workflows.of_run(run_id)).name == "test"
    assert (
        await client.workflows.read((await client.runs.read(run_id)).workflow_id)
    ).name == "test"


async def test_a_hundred_callers_share_transactions(client: Client, cluster: Cluster) -> None:
    made = await asyncio.gather(*(client.runs.enqueue(WORKFLOW, INPUT) for _ in range(100)))

    assert len(set(made)) == 100
    ((transactions,),) = await cluster.rows("SELECT count(DISTINCT xmin::text) FROM runs")
    assert transactions <= 3


async def test_enqueue_names_the_mistakes_of_a_workflow_and_its_input_at_once_and_stores_nothing(
    client: Client, cluster: Cluster
) -> None:
    judge = agent("judge", for_each="rows", prompt_template="{item.text}")
    judge.llm_config = {"model": "gpt-4o-mini", "max_token": 5}
    judge.output_schema = {"type": "object", "properties": {"verdict": {}}}
    wrong = Workflow(
        name="wrong", agents=[judge, agent("reader", "judge", prompt_template="{judge[0].x}")]
    )

    with pytest.raises(SeveralMistakes) as caught:
        await client.runs.enqueue(wrong, {"rows": [{"text": "a"}, {}]})
    fields = [mistake.field for mistake in caught.value.mistakes]
    # Without a mistake in the input, the mistakes of the workflow are named as well.
    with pytest.raises(SeveralMistakes) as of_workflow:
        await client.runs.enqueue(wrong, {"rows": []})

    assert fields == [
        "agents[0].llm_config.max_token",
        "agents[1].prompt_template",
        "input.rows[1]",
    ]
    assert [mistake.field for mistake in of_workflow.value.mistakes] == fields[:2]
    assert await cluster.rows("SELECT id FROM runs") == []


@pytest.mark.parametrize("method", ["agents", "outputs", "context", "by_agent", "workflow"])
async def test_what_is_read_of_a_run_that_does_not_exist(client: Client, method: str) -> None:
    subject: Any = client.runs if method == "agents" else client.results
    with pytest.raises(UnknownRun, match="no run has the id"):
        await getattr(subject, method)(UNKNOWN)


async def test_a_workflow_that_does_not_exist(client: Client) -> None:
    with pytest.raises(UnknownWorkflow, match="no workflow has the id"):
        await client.workflows.read(UNKNOWN)


async def test_limits_are_set_read_and_forgotten(client: Client) -> None:
    table = await client.limits.set("openai", "default", {"requests_per_minute": 7})

    assert table.resolve("openai", "any")[1].requests_per_minute == 7
    assert await client.limits.forget("openai", "default", []) == ["requests_per_minute"]
    assert (await client.limits.read()).resolve("openai", "any")[1].requests_per_minute != 7


@pytest.mark.parametrize("reason", ["a\0b", "\ud800", 5])
async def test_a_text_that_cannot_be_stored_is_refused_and_the_run_goes_on(
    client: Client, reason: Any
) -> None:
    run_id = await client.runs.enqueue(WORKFLOW, INPUT)

    with pytest.raises(WorkflowError, match=r"^the reason (contains|is)"):
        await client.control.cancel(run_id, reason)
    with pytest.raises(WorkflowError, match=r"^the agent's name (contains|is)"):
        await client.control.rerun(run_id, reason)

    assert not (await client.runs.read(run_id)).status.is_final

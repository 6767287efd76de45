"""How lanes share a worker, a provider's queue, and the places of a run."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from app import Agent, Workflow, WorkflowStatus, enqueue, enqueue_async
from app.scheduler.asks import CHANNEL
from tests.support.pace import scaled
from tests.support.stack import CONFIGURATION, Stack, client_of, run_stack
from tests.support.waiting import wait_until

MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}


def agents(count: int, provider: str, prompt: str = "go", **fields: Any) -> list[Agent]:
    return [
        Agent(
            name=f"{provider}_{index}",
            prompt_template=prompt,
            llm_config={"model": MODELS[provider], "max_tokens": 20},
            **fields,
        )
        for index in range(count)
    ]


def test_one_place_is_passed_on_from_provider_to_provider(stack: Stack) -> None:
    stack.simulator.configure(latency_s=0.05)
    workflow = Workflow(
        name="narrow",
        agents=agents(4, "openai") + agents(3, "anthropic"),
        max_parallel_agents=1,
    )

    run = enqueue(workflow)

    assert run.wait(scaled(30)) is WorkflowStatus.COMPLETED
    assert stack.simulator.summary()["peak_in_flight"] == 1


def test_max_parallel_agents_holds_across_lanes_and_is_used(stack: Stack) -> None:
    stack.simulator.configure(latency_s=0.2)
    workflow = Workflow(
        name="wide",
        agents=agents(40, "openai") + agents(20, "anthropic"),
        max_parallel_agents=12,
    )

    run = enqueue(workflow)

    assert run.wait(scaled(30)) is WorkflowStatus.COMPLETED
    assert 10 <= stack.simulator.summary()["peak_in_flight"] <= 12


def test_a_retry_waits_out_its_backoff_and_then_succeeds(stack: Stack) -> None:
    (agent,) = agents(1, "openai", prompt="[[sim:status=503,times=2]] retry me")

    run = enqueue(Workflow(name="retry", agents=[agent]))

    assert run.wait(scaled(30)) is WorkflowStatus.COMPLETED
    (result,) = run.results.values()
    assert result.retry_count == 2
    entries = stack.sql("SELECT outcome FROM cost_entries WHERE run_id = %s ORDER BY id", run.id)
    assert [entry["outcome"] for entry in entries] == ["Overloaded", "Overloaded", "ok"]


def test_a_run_that_takes_long_makes_way_for_one_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        run_stack(tmp_path, "scheduler") as stack,
        stack.worker("openai", threads=1),
        client_of(stack, monkeypatch),
    ):
        stack.simulator.configure(latency_s=0.5)
        long = enqueue(Workflow(name="long", agents=agents(40, "openai"), max_parallel_agents=2))
        wait_until(lambda: long.status is WorkflowStatus.RUNNING)

        short = enqueue(Workflow(name="short", agents=agents(1, "openai")))

        assert short.wait(scaled(15)) is WorkflowStatus.COMPLETED
        assert long.status is WorkflowStatus.RUNNING


def test_runs_that_start_at_once_share_messages_and_end_each_for_itself(stack: Stack) -> None:
    stack.simulator.configure(latency_s=0.05)
    (good,) = agents(1, "openai")
    (bad,) = agents(1, "openai", prompt="[[sim:status=400]] go")
    shapes = {
        "fine": Workflow(name="fine", agents=[good]),
        "broken": Workflow(name="broken", agents=[bad]),
    }
    names = ["broken" if index % 7 == 3 else "fine" for index in range(48)]

    async def run_all() -> list[WorkflowStatus]:
        runs = await asyncio.gather(*(enqueue_async(shapes[name]) for name in names))
        return await asyncio.gather(*(run.wait_async(scaled(30)) for run in runs))

    with Redis.from_url(stack.urls.redis_url) as redis:
        before = redis.info("commandstats")["cmdstat_lpush"]["calls"]
        ends = asyncio.run(run_all())
        sent = redis.info("commandstats")["cmdstat_lpush"]["calls"] - before

    wanted = {"fine": WorkflowStatus.COMPLETED, "broken": WorkflowStatus.FAILED}
    assert ends == [wanted[name] for name in names]
    assert sent < len(names)


def test_a_worker_of_the_schedulers_queue_listens_to_requests_for_admission(stack: Stack) -> None:
    with Redis.from_url(stack.urls.redis_url) as redis:
        assert dict(redis.pubsub_numsub(CHANNEL))[CHANNEL.encode()] == len(stack.workers)


def test_a_queue_of_small_runs_needs_few_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = CONFIGURATION + "  max_concurrent_workflows: 3\n"
    with (
        run_stack(tmp_path, "scheduler", "openai", configuration=narrow) as stack,
        client_of(stack, monkeypatch),
        Redis.from_url(stack.urls.redis_url) as redis,
    ):
        workflow = Workflow(name="small", agents=agents(1, "openai"))
        begun = [enqueue(workflow) for _ in range(3)]
        assert {run.wait(scaled(30)) for run in begun} == {WorkflowStatus.COMPLETED}

        async def run_all() -> list[WorkflowStatus]:
            runs = await asyncio.gather(*(enqueue_async(workflow) for _ in range(60)))
            return await asyncio.gather(*(run.wait_async(scaled(30)) for run in runs))

        before = redis.info("commandstats")["cmdstat_lpush"]["calls"]
        ends = asyncio.run(run_all())
        sent = redis.info("commandstats")["cmdstat_lpush"]["calls"] - before

    assert set(ends) == {WorkflowStatus.COMPLETED}
    assert sent < len(ends) / 2


def test_a_lane_takes_over_runs_of_its_provider_that_are_no_wider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one = CONFIGURATION + "  max_concurrent_workflows: 1\n"
    with (
        run_stack(tmp_path, "scheduler", "openai", configuration=one_by_one) as stack,
        stack.worker("anthropic"),
        client_of(stack, monkeypatch),
    ):
        shapes = [
            Workflow(name="small", agents=agents(1, "openai")),
            Workflow(name="wide", agents=agents(60, "openai"), max_parallel_agents=60),
            Workflow(name="small again", agents=agents(1, "openai")),
            Workflow(name="other", agents=agents(2, "anthropic")),
            Workflow(name="both", agents=agents(2, "openai") + agents(2, "anthropic")),
            Workflow(name="last", agents=agents(1, "openai")),
        ]

        runs = [enqueue(shape) for shape in shapes]

        assert {run.wait(scaled(60)) for run in runs} == {WorkflowStatus.COMPLETED}
        attempts = stack.sql("SELECT count(*) AS number FROM attempts")
        assert attempts[0]["number"] == sum(len(shape.agents) for shape in shapes)


def test_a_chain_records_each_agent_and_starts_the_next_in_one_transaction(stack: Stack) -> None:
    chain = agents(5, "openai")
    for earlier, agent in pairwise(chain):
        agent.dependencies = [earlier.name]

    run = enqueue(Workflow(name="chain", agents=chain))

    assert run.wait(scaled(30)) is WorkflowStatus.COMPLETED
    written = stack.sql(
        "SELECT e.xmin::text, array_agg(e.type ORDER BY e.id) AS types FROM events e"
        " WHERE run_id = %s GROUP BY 1 ORDER BY min(e.id)",
        run.id,
    )
    ends = [each["types"] for each in written if "agent_completed" in each["types"]]
    assert ends == [
        *[["agent_completed", "agent_started"]] * 4,
        ["agent_completed", "run_completed"],
    ]

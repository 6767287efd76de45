"""Agents that share answers: one call for equal requests, in however many processes."""

from typing import Any

from redis import Redis

from app import Agent, Workflow, WorkflowStatus, enqueue
from app.client.run import Run
from tests.support.pace import scaled
from tests.support.stack import Stack


def labels(name: str, count: int, prompt: str, **fields: Any) -> Workflow:
    config = {"model": "gpt-4o-mini", "max_tokens": 60}
    return Workflow(
        name=name,
        agents=[
            Agent(
                name=f"a{number}",
                prompt_template=prompt,
                llm_config=config,
                **{"cache": True, **fields},
            )
            for number in range(count)
        ],
        max_parallel_agents=count,
    )


def finished(workflow: Workflow, **options: Any) -> Run:
    run = enqueue(workflow, **options)
    run.wait(timeout=scaled(30))
    assert run.status is WorkflowStatus.COMPLETED
    return run


def kinds(stack: Stack, run: Run) -> dict[str, int]:
    rows = stack.sql(
        "SELECT kind, count(*) AS n FROM cost_entries WHERE run_id = %s GROUP BY kind", run.id
    )
    return {row["kind"]: row["n"] for row in rows}


def test_equal_requests_at_the_same_time_are_one_call_across_processes(stack: Stack) -> None:
    workflow = labels("at once", 60, "Name a colour. [[sim:latency=0.5]]")

    with stack.worker("openai"):
        runs = [enqueue(workflow) for _ in range(2)]
        for run in runs:
            run.wait(timeout=scaled(30))

    assert len(stack.simulator.ledger()) == 1
    assert len({text for run in runs for text in run.outputs.values()}) == 1
    total = [kinds(stack, run) for run in runs]
    assert sum(found.get("actual", 0) for found in total) == 1
    assert sum(found.get("cached", 0) for found in total) == 119


def test_savings_are_booked_and_nothing_else(stack: Stack) -> None:
    workflow = labels("saved", 1, "Name a river.")

    first, second = finished(workflow), finished(workflow)

    (paid,) = stack.sql("SELECT * FROM cost_entries WHERE run_id = %s", first.id)
    (saved,) = stack.sql("SELECT * FROM cost_entries WHERE run_id = %s", second.id)
    assert (saved["kind"], saved["outcome"], saved["cost_usd"]) == ("cached", "ok", 0)
    assert saved["saved_usd"] == paid["cost_usd"] > 0
    assert (saved["input_tokens"], saved["output_tokens"]) == (0, 0)
    assert second.outputs == first.outputs
    assert second.cost == 0


def test_tenants_share_nothing_and_neither_do_other_requests(stack: Stack) -> None:
    prompt = "Name a mountain."

    finished(labels("mine", 1, prompt), tenant="a")
    finished(labels("theirs", 1, prompt), tenant="b")
    finished(labels("other words", 1, f"{prompt}!"), tenant="a")
    finished(labels("not asked for", 1, prompt, cache=False), tenant="a")

    assert len(stack.simulator.ledger()) == 4


def test_answers_that_were_cut_short_are_not_kept(stack: Stack) -> None:
    workflow = labels("cut", 1, "Go on. [[sim:output_tokens=500]]")

    finished(workflow)
    finished(workflow)

    assert len(stack.simulator.ledger()) == 2


def test_refused_answers_are_not_kept(stack: Stack) -> None:
    workflow = labels("refused", 1, "Misbehave. [[sim:refuse]]")

    ends = [enqueue(workflow).wait(timeout=scaled(30)) for _ in range(2)]

    assert ends == ["failed", "failed"]
    assert len(stack.simulator.ledger()) == 2


def test_a_waiting_agent_calls_itself_when_the_first_one_has_failed(stack: Stack) -> None:
    prompt = "Fail at first. [[sim:status=400,latency=0.3,times=1]]"
    workflow = labels("failing", 6, prompt, max_retries=0)

    run = enqueue(workflow)
    run.wait(timeout=scaled(30))

    found = stack.sql("SELECT status FROM agent_runs WHERE run_id = %s", run.id)
    failed = sum(row["status"] == "failed" for row in found)
    assert failed == 1
    assert sum(row["status"] == "completed" for row in found) == 5


def test_a_flushed_redis_is_a_miss(stack: Stack) -> None:
    workflow = labels("flushed", 1, "Name a lake.")
    finished(workflow)

    with Redis.from_url(stack.urls.redis_url) as redis:
        redis.flushall()
    run = finished(workflow)

    assert kinds(stack, run) == {"actual": 1}

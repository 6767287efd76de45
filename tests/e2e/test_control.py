"""Pause, resume, retry, rerun, keys and retention in a user's program."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from app import Agent, OpenAIClient, OrchestrationEngine, Run, Workflow, enqueue
from app.errors import RunConflict
from tests.support.commands import answer, cli
from tests.support.pace import scaled
from tests.support.stack import Stack
from tests.support.waiting import wait_until

WAIT_S = scaled(30.0)


def agent(name: str, prompt: str = "go", *dependencies: str, **fields: Any) -> Agent:
    fields.setdefault("llm_config", {"model": "gpt-4o-mini", "max_tokens": 60})
    return Agent(name=name, prompt_template=prompt, dependencies=dependencies, **fields)


def workflow(*agents: Agent, **rules: Any) -> Workflow:
    return Workflow(name=rules.pop("name", "control"), agents=agents, **rules)


def states(run: Run) -> dict[str, int]:
    return Counter(result.status.value for result in run.results.values())


def in_flight(stack: Stack) -> int:
    return int(stack.simulator.summary()["in_flight"])


def at_rest(stack: Stack, run: Run) -> bool:
    """Whether the run has no lease, no hold and no place in the queue for money."""
    (row,) = stack.sql(
        """
        SELECT (SELECT count(*) FROM agent_runs WHERE run_id = %s AND status = 'running')
            + (SELECT count(*) FROM holds) + (SELECT count(*) FROM hold_queue q
                JOIN agent_runs a ON a.id = q.agent_run_id AND a.status = 'running') AS things
        """,
        run.id,
    )
    return not row["things"]


def lanes_of(run: Run) -> list[Any]:
    """The run's lanes that workers are running now."""
    from app.celery import app

    active = app.control.inspect(timeout=0.5).active() or {}
    return [task for tasks in active.values() for task in tasks if run.id in str(task["args"])]


def test_a_paused_run_ends_its_calls_and_then_rests_until_it_is_resumed(stack: Stack) -> None:
    stack.simulator.configure(latency_s=0.4)
    agents = [agent(f"a{number}") for number in range(8)]
    run = enqueue(workflow(*agents, agent("last", "go", "a0"), max_parallel_agents=3))
    wait_until(lambda: in_flight(stack) == 3)

    paused = run.pause()
    served = stack.simulator.summary()["requests"]
    wait_until(lambda: at_rest(stack, run), what="the calls in flight have ended")
    wait_until(lambda: not lanes_of(run), what="no lane is left")

    assert paused
    assert run.status == "paused"
    assert stack.simulator.summary()["requests"] == served
    assert states(run) == {"completed": served, "pending": 9 - served}
    assert run.resume()
    assert run.wait(WAIT_S) == "completed"
    assert stack.simulator.summary()["requests"] == 9
    kinds = [event.type for event in run.events() if event.type.startswith("run_")]
    assert kinds == [
        *("run_created", "run_started", "run_paused", "run_resumed", "run_continued"),
        "run_completed",
    ]


def test_who_waits_for_money_when_the_run_is_paused_gives_its_place_back(stack: Stack) -> None:
    stack.simulator.configure(latency_s=0.6)
    config = {"model": "gpt-4o-mini", "max_tokens": 1000}
    agents = [agent(f"a{number}", llm_config=config) for number in range(4)]
    # The worst case of one call is about 0.0007 dollars: two of them do not fit.
    run = enqueue(workflow(*agents, cost_budget=0.001))
    wait_until(lambda: len(stack.sql("SELECT 1 FROM hold_queue")) == 3)

    run.pause()
    wait_until(lambda: at_rest(stack, run))

    assert states(run) == {"completed": 1, "pending": 3}
    outcomes = stack.sql(
        "SELECT outcome FROM attempts t JOIN agent_runs a"
        " ON a.id = t.agent_run_id WHERE a.run_id = %s",
        run.id,
    )
    assert Counter(row["outcome"] for row in outcomes) == {"completed": 1, "handed_back": 3}
    assert run.resume()
    assert run.wait(WAIT_S) == "completed"
    assert stack.simulator.summary()["requests"] == 4


def test_a_conversation_is_not_continued_while_its_run_is_paused(stack: Stack) -> None:
    stack.simulator.configure(latency_s=0.4)
    prompt = "[[sim:tool_turns=1]] go"
    run = enqueue(workflow(agent("caller", prompt, tools=["check_total"])))
    wait_until(lambda: in_flight(stack) == 1)

    run.pause()
    wait_until(lambda: at_rest(stack, run))

    assert states(run) == {"pending": 1}
    assert stack.simulator.summary()["requests"] == 1
    run.resume()
    assert run.wait(WAIT_S) == "completed"


def test_a_paused_run_that_is_cancelled_ends_at_once(stack: Stack) -> None:
    stack.simulator.configure(latency_s=0.4)
    run = enqueue(workflow(agent("a"), agent("b", "go", "a")))
    wait_until(lambda: in_flight(stack) == 1)
    run.pause()
    wait_until(lambda: at_rest(stack, run))

    assert run.cancel()

    assert run.wait(1) == "cancelled"
    assert states(run) == {"completed": 1, "cancelled": 1}
    assert not run.resume()


def test_retrying_repeats_only_what_failed_and_keeps_what_it_cost(stack: Stack) -> None:
    run = enqueue(
        workflow(
            agent("good"),
            agent("bad", "[[sim:status=400,times=1]] once"),
            agent("after_good", "{good}", "good"),
            agent("after_bad", "{bad}", "bad"),
        )
    )
    assert run.wait(WAIT_S) == "partially_completed"
    cost, results = run.cost, run.results

    retried = run.retry_failed()

    assert retried
    assert run.wait(WAIT_S) == "completed"
    assert run.cost > cost > 0
    assert stack.simulator.summary()["requests"] == 5
    for name in ("good", "after_good"):
        assert run.results[name] == results[name]
    assert {name: result.metadata["attempts"] for name, result in run.results.items()} == {
        "good": 1,
        "bad": 2,
        "after_good": 1,
        "after_bad": 1,
    }
    assert not run.retry_failed()


def test_a_run_out_of_money_goes_on_with_a_higher_budget(stack: Stack) -> None:
    config = {"model": "gpt-4o-mini", "max_tokens": 1000}
    run = enqueue(workflow(agent("a", llm_config=config), cost_budget=0.0001))
    assert run.wait(WAIT_S) == "failed"

    again = (run.retry_failed(), run.wait(WAIT_S))
    raised = (run.retry_failed(cost_budget=0.01), run.wait(WAIT_S))

    assert again == (True, "failed")
    assert raised == (True, "completed")
    with pytest.raises(ValueError, match="cost_budget of the run is nan"):
        run.retry_failed(cost_budget=float("nan"))


def test_a_rerun_is_a_run_of_its_own_that_costs_only_what_it_repeats(stack: Stack) -> None:
    run = enqueue(workflow(agent("a", "[[sim:reply=one]]"), agent("b", "after {a}", "a")))
    assert run.wait(WAIT_S) == "completed"
    cost = run.cost

    again = run.rerun("b")

    assert again.id != run.id
    assert again.wait(WAIT_S) == "completed"
    assert again.outputs["a"] == "one"
    assert [record["prompt"] for record in stack.simulator.ledger()][-2:] == ["after one"] * 2
    assert run.cost == cost
    (entry,) = stack.sql("SELECT agent, cost_usd FROM cost_entries WHERE run_id = %s", again.id)
    assert (entry["agent"], entry["cost_usd"]) == ("b", again.cost)


ENQUEUE_WITH_A_KEY = """
import sys, time
from tests.e2e.test_control import agent, enqueue, workflow
from app.client.process import process
process()
print("ready", flush=True)
sys.stdin.readline()
print(enqueue(workflow(agent("a", "read {invoice}")), {"invoice": "a"}, key="both").id)
"""


def test_two_processes_that_enqueue_a_key_at_the_same_moment_get_one_run(stack: Stack) -> None:
    programs = [stack.start_python("-c", ENQUEUE_WITH_A_KEY) for _ in range(2)]
    for program in programs:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("now\n")
        program.stdin.flush()

    answers = [program.communicate(timeout=WAIT_S) for program in programs]

    (run_id,) = {output.strip() for output, _ in answers}
    assert Run(run_id).wait(WAIT_S) == "completed"
    assert stack.simulator.summary()["requests"] == 1
    with pytest.raises(RunConflict, match="another input"):
        enqueue(workflow(agent("a", "read {invoice}")), {"invoice": "b"}, key="both")


def test_an_engine_that_executes_with_a_key_again_gets_the_first_result(stack: Stack) -> None:
    async def execute() -> list[Workflow]:
        engine = OrchestrationEngine(OpenAIClient(api_key="any"))
        id_ = await engine.register_workflow(workflow(agent("a")))
        return [await engine.execute_workflow(id_, key="once") for _ in range(2)]

    first, second = asyncio.run(execute())

    assert first.status == second.status == "completed"
    assert first.agents[0].result == second.agents[0].result
    assert stack.simulator.summary()["requests"] == 1


def test_an_engine_controls_runs_from_an_event_loop(stack: Stack) -> None:
    stack.simulator.configure(latency_s=0.4)
    run = enqueue(workflow(agent("a"), agent("b", "go", "a")))
    wait_until(lambda: in_flight(stack) == 1)

    async def control() -> list[bool]:
        engine = OrchestrationEngine(OpenAIClient(api_key="any"))
        did = [await engine.pause(run.id), await engine.resume(run.id)]
        did += [
            await engine.cancel(run.id),
            await engine.run(run.id).wait_async(WAIT_S) == "cancelled",
        ]
        did += [await engine.retry_failed(run.id), await run.wait_async(WAIT_S) == "completed"]
        again = await engine.rerun(run.id, "b")
        return [*did, await again.wait_async(WAIT_S) == "completed"]

    assert asyncio.run(control()) == [True] * 7


def test_a_running_run_keeps_the_version_that_it_started_with(stack: Stack) -> None:
    stack.simulator.configure(latency_s=0.4)
    old = workflow(agent("a", "old first"), agent("b", "old second", "a"), name="versioned")
    new = workflow(agent("a", "new first"), agent("b", "new second", "a"), name="versioned")
    first = enqueue(old)
    wait_until(lambda: in_flight(stack) == 1)
    first.pause()

    second = enqueue(new)
    assert second.wait(WAIT_S) == "completed"
    first.resume()

    assert first.wait(WAIT_S) == "completed"
    assert [first.record.version, second.record.version] == [1, 2]
    prompts = [record["prompt"] for record in stack.simulator.ledger()]
    assert prompts == ["old first", "new first", "new second", "old second"]


def test_the_command_line_pauses_resumes_retries_and_reruns(stack: Stack, tmp_path: Path) -> None:
    stack.simulator.configure(latency_s=6)  # commands are slow on a busy machine
    file = tmp_path / "letters.yaml"
    file.write_text("""\
name: letters
agents:
  - {name: writer, prompt_template: "Write", llm_config: {model: gpt-4o-mini}}
  - name: checker
    prompt_template: "Check {writer} [[sim:status=400,times=1]]"
    llm_config: {model: gpt-4o-mini}
    dependencies: [writer]
""")
    run_id = answer(stack, "run", str(file), "--key", "letter-1")["run_id"]
    wait_until(lambda: in_flight(stack) == 1)
    stack.simulator.configure(latency_s=0.1)

    paused = answer(stack, "pause", run_id)
    same = answer(stack, "run", str(file), "--key", "letter-1")["run_id"]
    shown = cli(stack, "status", run_id).stdout
    listed = answer(stack, "runs", "--status", "paused")
    twice = cli(stack, "pause", run_id).stdout
    resumed = answer(stack, "resume", run_id)
    failed = Run(run_id).wait(WAIT_S)
    retried = answer(stack, "retry", run_id, "--cost-budget", "200")
    completed = Run(run_id).wait(WAIT_S)
    again = answer(stack, "rerun", run_id, "checker")
    Run(again["run_id"]).wait(WAIT_S)
    page = cli(stack, "status", again["run_id"]).stdout

    assert same == run_id
    assert paused == {"run_id": run_id, "paused": True, "status": "paused"}
    assert "status    paused" in shown
    assert "key       letter-1" in shown
    assert [run["run_id"] for run in listed] == [run_id]
    assert twice == f"run {run_id} was not going: it is paused\n"
    assert resumed["resumed"]
    assert failed == "partially_completed"
    assert retried["retried"]
    assert completed == "completed"
    assert again["rerun_of"] == run_id
    assert f"rerun of  {run_id} from checker" in page


def test_the_command_line_prunes_what_is_old_and_status_says_so(stack: Stack) -> None:
    run = enqueue(workflow(agent("a")))
    run.wait(WAIT_S)
    stack.sql("UPDATE runs SET finished_at = now() - interval '100 d' WHERE id = %s", run.id)

    expected = answer(stack, "prune", "--older-than", "90d", "--dry-run")
    outputs = run.outputs
    removed = answer(stack, "prune", "--older-than", "90d")
    nothing = cli(stack, "prune", "--older-than", "90d").stdout
    page = cli(stack, "status", run.id).stdout
    costs = answer(stack, "costs", run.id)
    wrong = cli(stack, "prune", "--older-than", "soon")

    assert expected == removed | {"removed": False}
    assert removed["runs"] == 1
    assert outputs.keys() == {"a"}
    assert nothing.startswith("removed the payload of 0 runs")
    assert "input, outputs and history were removed" in page
    assert costs["total"]["calls"] == 1
    assert (wrong.returncode, "90d" in wrong.stderr) == (2, True)
    with pytest.raises(RunConflict, match=r"outputs of run .* were removed"):
        _ = run.outputs
    assert run.results["a"].output is None
    assert run.to_workflow().status == "completed"

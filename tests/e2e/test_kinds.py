"""Agents without a model on real workers: beside llm agents, retried, timed out, cancelled."""

import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app import Agent, RetryPolicy, RetryStrategy, Run, Workflow, enqueue
from tests.support.agent_server import AgentServer
from tests.support.command_line import QUEUES
from tests.support.pace import at_this_pace, scaled
from tests.support.stack import ALL_QUEUES, Stack
from tests.support.waiting import wait_until

AT_ONCE = RetryPolicy(strategy=RetryStrategy.IMMEDIATE)
NEVER = RetryPolicy(max_retries=0)
WAIT_S = scaled(30.0)
LINES = [{"item": "bolt", "quantity": 100, "price": "0.19"}]


def function(name: str, path: str, *, arguments: Any = None, **fields: Any) -> Agent:
    config = {"function": f"tests.support.agent_functions:{path}"}
    return Agent(
        name=name,
        kind="function",
        config=config | ({"arguments": arguments} if arguments else {}),
        **{"retry_policy": AT_ONCE, **fields},
    )


def start(*agents: Agent, **run_input: Any) -> Run:
    return enqueue(Workflow(name="kinds", agents=agents), input=run_input)


def ended(*agents: Agent, **run_input: Any) -> Run:
    run = start(*agents, **run_input)
    run.wait(timeout=WAIT_S)
    return run


def test_the_workers_of_tests_serve_every_queue() -> None:
    assert {*ALL_QUEUES, "agents"} == QUEUES


def test_functions_and_models_work_on_each_others_outputs(stack: Stack) -> None:
    run = ended(
        Agent(
            name="totals",
            kind="function",
            config={"function": "app.examples.functions:totals"},
        ),
        Agent(
            name="writer",
            prompt_template="Write a reminder about {totals.gross} dollars.",
            llm_config={"model": "gpt-4o-mini", "max_tokens": 50},
            dependencies=["totals"],
        ),
        Agent(
            name="reader",
            kind="function",
            config={"function": "tests.support.agent_functions:everything"},
            dependencies=["writer", "totals"],
        ),
        lines=LINES,
    )

    assert run.status == "completed"
    assert run.outputs["totals"] == {"net": "19.00", "tax": "3.61", "gross": "22.61"}
    assert run.outputs["reader"].keys() == {"lines", "writer", "totals"}
    assert run.outputs["reader"]["writer"] == run.outputs["writer"]
    costs = {name: result.cost for name, result in run.results.items()}
    assert costs["totals"] == costs["reader"] == 0 < costs["writer"]


@pytest.mark.usefixtures("stack")
def test_what_a_function_raises_is_retried_as_the_policy_says() -> None:
    run = ended(function("a", "fail_twice"))

    result = run.results["a"]
    assert (result.status, result.output, result.retry_count) == ("completed", 3, 2)
    types = [event.type for event in run.events()]
    assert types.count("agent_retrying") == 2


@pytest.mark.usefixtures("stack")
def test_all_attempts_of_a_function_have_the_same_key(tmp_path: Path) -> None:
    mark = str(tmp_path / "keys")
    run = ended(function("a", "fail_twice_with_a_key", arguments={"mark": mark}))

    keys = Path(mark).read_text(encoding="utf-8").split()
    assert keys == [run.outputs["a"]] * 3


@pytest.mark.usefixtures("stack")
def test_each_failure_of_a_function_says_what_it_is() -> None:
    run = ended(
        function("refused", "refuse"),
        function("left", "leave", retry_policy=NEVER),
        function("left_async", "leave_async", retry_policy=NEVER),
        function("no_json", "no_json"),
        function("large", "large", arguments={"size": 50_000_000}),
        function("lost", "nowhere"),
        function("asked", "large"),
        function("fine", "where"),
        function("fine_too", "where"),
    )

    results = run.results
    classes = {name: result.metadata.get("error_class") for name, result in results.items()}
    assert classes == {
        "refused": "AgentError",
        "left": "FunctionFailed",
        "left_async": "FunctionFailed",
        "no_json": "OutputRefused",
        "large": "ResultTooLarge",
        "lost": "UnknownFunction",
        "asked": "InputRefused",
        "fine": None,
        "fine_too": None,
    }
    assert {results[name].retry_count for name in classes} == {0}
    key = results["fine"].output["key"]
    assert key == f"{results['fine'].agent_id}-1"


@pytest.mark.usefixtures("stack")
def test_a_thread_that_is_late_is_left_and_its_result_dropped(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    run = ended(
        function(
            "late",
            "block",
            arguments={"seconds": 1.5, "mark": str(mark)},
            timeout=0.3,
            retry_policy=NEVER,
        ),
        function("stubborn", "stubborn", arguments={"seconds": 1.5}, timeout=0.3, max_retries=0),
    )

    results = run.results
    assert {result.metadata["error_class"] for result in results.values()} == {"AgentTimeout"}
    assert all(result.execution_time < 1.4 for result in results.values())
    wait_until(mark.exists, what="the thread has gone on to its end")
    assert run.outputs == {}


@pytest.mark.usefixtures("stack")
def test_cancelling_a_run_cancels_async_functions_and_leaves_threads(tmp_path: Path) -> None:
    waiting, blocking = tmp_path / "waiting", tmp_path / "blocking"
    run = start(
        function("waiting", "wait", arguments={"seconds": 60, "mark": str(waiting)}),
        function("blocking", "block", arguments={"seconds": 1, "mark": str(blocking)}),
    )
    wait_until(waiting.exists, what="the function has begun")

    run.cancel()
    before_s = time.monotonic()

    assert run.wait(timeout=WAIT_S) == "cancelled"
    assert time.monotonic() - before_s < at_this_pace(5)
    wait_until(lambda: waiting.read_text() == "cancelled", what="it was cancelled")
    assert {result.status for result in run.results.values()} == {"cancelled"}
    wait_until(blocking.exists, what="the thread has gone on")


@pytest.mark.usefixtures("stack")
def test_a_remote_agent_is_called_again_after_the_time_that_it_gives() -> None:
    with AgentServer() as remote:
        remote.answers = [
            web.Response(status=503, text="busy", headers={"Retry-After": "1"}),
            web.json_response({"approved": True}),
        ]
        before_s = time.monotonic()
        run = ended(
            Agent(name="remote", kind="http", config={"url": remote.url}, retry_policy=AT_ONCE),
            function("after", "everything", dependencies=["remote"]),
            amount=5,
        )

    result = run.results["remote"]
    assert (result.output, result.retry_count) == ({"approved": True}, 1)
    assert time.monotonic() - before_s > 1
    assert run.outputs["after"] == {"amount": 5, "remote": {"approved": True}}
    keys = [headers["Idempotency-Key"] for headers, _ in remote.requests]
    assert keys == [f"{result.agent_id}-1", f"{result.agent_id}-2"]


@pytest.mark.usefixtures("stack")
def test_cancelling_a_run_closes_the_connection_to_a_remote_agent() -> None:
    with AgentServer(delay_s=60) as remote:
        run = start(Agent(name="remote", kind="http", config={"url": remote.url}))
        wait_until(lambda: bool(remote.requests), what="the request has arrived")

        run.cancel()

        assert run.wait(timeout=WAIT_S) == "cancelled"
        wait_until(lambda: remote.closed == 1, what="the connection is closed")


@pytest.mark.usefixtures("stack")
def test_the_two_agents_that_ship_do_their_work() -> None:
    run = ended(
        Agent(name="reader", kind="text_processor", config={"operations": ["sentiment"]}),
        Agent(name="checker", kind="data_analyzer", config={"required": ["price"]}),
        text="The new scheduler is excellent.",
        data=[{"price": 3}, {"price": 5}, {}],
    )

    assert run.outputs["reader"]["sentiment"] == "positive"
    assert run.outputs["checker"]["stats"]["fields"]["price"]["mean"] == 4


def test_two_hundred_functions_in_two_levels_take_seconds(stack: Stack) -> None:
    agents = [function(f"a{n}", "where") for n in range(100)]
    agents += [function(f"b{n}", "everything", dependencies=[f"a{n}"]) for n in range(100)]

    run = enqueue(Workflow(name="many", agents=agents, max_parallel_agents=100))

    assert run.wait(timeout=WAIT_S) == "completed"
    assert run.cost == 0
    entries = stack.sql("SELECT id FROM cost_entries WHERE run_id = %s", run.id)
    assert entries == []

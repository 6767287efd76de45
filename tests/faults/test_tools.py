"""Conversations with tools, interrupted in every way: paid calls and tools are not repeated.

This file is over 400 lines because all tests share one module of tools and one stack.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from app import Agent, Run, Workflow, WorkflowStatus, enqueue
from tests.support.ledgers import assert_ledgers_agree
from tests.support.pace import scaled
from tests.support.stack import CONFIGURATION, Stack, client_of, run_stack
from tests.support.waiting import wait_until

ENGINE = """\
  lease_s: 2
  heartbeat_s: 0.5
  watchdog_s: 0.5
retry: {base_delay: 0.01}
tools: {max_output_bytes: 5000}
"""
MODULE = """\
import asyncio
import threading
from pathlib import Path

from app import ToolContext, tool

FOLDER = Path(__file__).parent


def note(name):
    with (FOLDER / "used").open("a") as file:
        file.write(name + "\\n")


def wait():
    while not (FOLDER / "go").exists():
        threading.Event().wait(0.02)


@tool
def quick() -> str:
    "Is done at once."
    note("quick")
    return "quick was here"


@tool
def pay() -> str:
    "Must not be repeated."
    note("pay")
    wait()
    return "paid"


@tool(idempotent=True)
def look() -> str:
    "May be repeated."
    note("look")
    wait()
    return "looked"


@tool(idempotent=True)
def transfer(context: ToolContext) -> str:
    "May be repeated, because the bank knows the key."
    note(f"key {context.idempotency_key} {context.agent} {context.tenant} {context.call_id}")
    note(f"attempt {context.attempt}")
    wait()
    return "transferred"


@tool
async def sleep() -> str:
    "Can be cancelled."
    note("sleep")
    try:
        while not (FOLDER / "go").exists():
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        note("sleep was cancelled")
        raise
    return "slept"


@tool
async def large() -> str:
    "Says 50 MB."
    note("large")
    return "x" * 50_000_000


@tool
async def leave() -> str:
    "Raises what ends programs."
    note("leave")
    raise KeyboardInterrupt
"""


@pytest.fixture(scope="module")
def tool_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("tools")
    (folder / "slow_tools.py").write_text(MODULE, encoding="utf-8")
    configuration = CONFIGURATION.replace("imports: [app.examples.tools,", "imports: [slow_tools,")
    configuration = configuration.replace("drain_grace_s: 3", "drain_grace_s: 0.2")
    with (
        pytest.MonkeyPatch.context() as patch,
        run_stack(folder, "scheduler", configuration=configuration + ENGINE) as stack,
        client_of(stack, patch),
    ):
        yield stack


@pytest.fixture
def stack(tool_stack: Stack) -> Iterator[Stack]:
    """The stack with a reset simulator and folder; at the end the ledgers must agree."""
    for name in ("go", "used"):
        (tool_stack.folder / name).unlink(missing_ok=True)
    tool_stack.simulator.reset()
    (before,) = tool_stack.sql("SELECT coalesce(max(id), 0) AS id FROM cost_entries")
    yield tool_stack
    (tool_stack.folder / "go").touch()
    assert tool_stack.sql("SELECT call_id FROM holds") == []
    entries = tool_stack.sql("SELECT * FROM cost_entries WHERE id > %s", before["id"])
    assert_ledgers_agree(entries, tool_stack.simulator.ledger())


class Crew:
    """The one worker for the provider: started when needed, kept for the next test."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._worker = ExitStack()
        self._works = False

    def work(self) -> None:
        if not self._works:
            self._worker.enter_context(self._stack.worker("openai", "anthropic"))
            self._works = True

    def leave(self) -> None:
        self._works = False
        self._worker.close()


@pytest.fixture(scope="module")
def crew(tool_stack: Stack) -> Iterator[Crew]:
    crew = Crew(tool_stack)
    yield crew
    crew.leave()


def start(prompt: str, *tools: str, model: str = "gpt-4o-mini", **fields: Any) -> Run:
    one = Agent(
        name="agent",
        prompt_template=prompt,
        llm_config={"model": model},
        tools=tools,
        **fields,
    )
    return enqueue(Workflow(name="tools", agents=[one]))


def used(stack: Stack) -> Counter[str]:
    file = stack.folder / "used"
    return Counter(file.read_text().splitlines()) if file.exists() else Counter()


def tool_calls(stack: Stack, run: Run) -> dict[str, dict[str, Any]]:
    """The tool calls of a run by tool; each occurs once."""
    rows = stack.sql(
        "SELECT t.* FROM tool_calls t JOIN agent_runs a ON a.id = t.agent_run_id"
        " WHERE a.run_id = %s",
        run.id,
    )
    return {row["tool"]: row for row in rows}


def states(stack: Stack, run: Run) -> dict[str, str]:
    return {tool: row["state"] for tool, row in tool_calls(stack, run).items()}


def reached(stack: Stack, run: Run, **expected: str) -> None:
    """Wait until the tools of the run have these states."""
    wait_until(lambda: states(stack, run) == expected, timeout_s=scaled(20), what=f"{expected}")


def requests(stack: Stack) -> int:
    return len(stack.simulator.ledger())


def kill_owner(stack: Stack) -> None:
    (owner,) = stack.sql("SELECT worker FROM agent_runs WHERE status = 'running'")
    os.kill(int(owner["worker"].split(":")[1]), signal.SIGKILL)


def test_a_worker_killed_in_a_tool_loop_repeats_no_finished_tool_and_pays_no_turn_again(
    stack: Stack, crew: Crew
) -> None:
    crew.work()
    run = start("Use quick, pay and look.", "quick", "pay", "look")
    reached(stack, run, quick="completed", pay="running", look="running")

    kill_owner(stack)
    crew.leave()
    (stack.folder / "go").touch()
    crew.work()
    assert run.wait(timeout=scaled(30)) is WorkflowStatus.COMPLETED

    assert used(stack) == {"quick": 1, "pay": 1, "look": 2}
    assert states(stack, run) == {"quick": "completed", "pay": "unknown", "look": "completed"}
    assert requests(stack) == 2
    assert "quick was here" in run.outputs["agent"]
    assert "outcome is unknown" in run.outputs["agent"]
    assert stack.sql("SELECT 1 FROM cost_entries WHERE kind <> 'actual'") == []
    types = [event.type for event in run.events() if event.type.startswith("tool")]
    assert Counter(types) == {
        "tool_started": 4,
        "tool_finished": 2,
        "tool_unknown": 2,
    }
    told = " ".join(str(event.data) for event in run.events())
    assert "was here" not in told


def test_the_key_of_a_repeated_tool_call_outlives_its_worker(stack: Stack, crew: Crew) -> None:
    crew.work()
    one = Agent(
        name="payer",
        prompt_template="Use transfer.",
        llm_config={"model": "gpt-4o-mini"},
        tools=["transfer"],
    )
    run = enqueue(Workflow(name="payments", agents=[one]), tenant="acme")
    reached(stack, run, transfer="running")

    kill_owner(stack)
    crew.leave()
    crew.work()
    wait_until(
        lambda: used(stack)["attempt 2"] == 1, timeout_s=scaled(20), what="the second attempt"
    )
    (stack.folder / "go").touch()
    assert run.wait(timeout=scaled(30)) is WorkflowStatus.COMPLETED

    noted = used(stack)
    ((line, times),) = [(line, n) for line, n in noted.items() if line.startswith("key")]
    assert times == 2, noted
    (call,) = tool_calls(stack, run).values()
    assert line.split()[2:] == ["payer", "acme", call["call_id"]]
    assert (noted["attempt 1"], noted["attempt 2"]) == (1, 1)


def test_a_retry_keeps_the_key_and_a_rerun_has_another(stack: Stack, crew: Crew) -> None:
    crew.work()
    (stack.folder / "go").touch()
    run = start("[[sim:tool_turns=2]] Use transfer.", "transfer", max_turns=2)
    assert run.wait(timeout=scaled(30)) is WorkflowStatus.FAILED
    run.retry_failed()
    assert run.wait(timeout=scaled(30)) is WorkflowStatus.FAILED
    of_the_run = {line.split()[1] for line in used(stack) if line.startswith("key")}
    again = run.rerun("agent")
    assert again.wait(timeout=scaled(30)) is WorkflowStatus.FAILED

    all_keys = {line.split()[1] for line in used(stack) if line.startswith("key")}
    assert (len(of_the_run), len(all_keys)) == (1, 2)


def test_a_worker_told_to_end_hands_the_conversation_over(stack: Stack, crew: Crew) -> None:
    crew.work()
    run = start("Use quick and sleep.", "quick", "sleep")
    reached(stack, run, quick="completed", sleep="running")

    crew.leave()
    handed_over = run.results["agent"]
    (stack.folder / "go").touch()
    crew.work()
    assert run.wait(timeout=scaled(30)) is WorkflowStatus.COMPLETED

    assert used(stack) == {"quick": 1, "sleep": 1, "sleep was cancelled": 1}
    assert states(stack, run) == {"quick": "completed", "sleep": "unknown"}
    assert requests(stack) == 2
    assert handed_over.metadata["recoveries"] == run.results["agent"].metadata["recoveries"] == 0


def test_a_paused_run_finishes_its_tools_and_goes_on_after_them(stack: Stack, crew: Crew) -> None:
    crew.work()
    run = start("Use quick and pay.", "quick", "pay")
    reached(stack, run, quick="completed", pay="running")

    assert run.pause()
    (stack.folder / "go").touch()
    reached(stack, run, quick="completed", pay="completed")
    wait_until(lambda: run.results["agent"].status == "pending", timeout_s=scaled(10))
    before = requests(stack)
    run.resume()
    assert run.wait(timeout=scaled(30)) is WorkflowStatus.COMPLETED

    assert before == 1
    assert used(stack) == {"quick": 1, "pay": 1}
    assert requests(stack) == 2


def test_a_run_that_is_paused_before_its_tools_start_starts_them_when_it_goes_on(
    stack: Stack, crew: Crew
) -> None:
    crew.work()
    run = start("[[sim:latency=0.5]] Use quick.", "quick")
    wait_until(lambda: stack.simulator.summary()["in_flight"], timeout_s=scaled(10))

    assert run.pause()
    wait_until(lambda: run.results["agent"].status == "pending", timeout_s=scaled(10))
    before = used(stack), requests(stack)
    run.resume()

    assert run.wait(timeout=scaled(30)) is WorkflowStatus.COMPLETED
    assert before == (Counter(), 1)
    assert used(stack) == {"quick": 1}
    assert requests(stack) == 2


def test_a_built_in_tool_reaches_no_private_address_and_says_so(stack: Stack, crew: Crew) -> None:
    crew.work()
    run = start("Use http_request with url: http://127.0.0.1:1/x", "http_request")

    assert run.wait(timeout=scaled(30)) is WorkflowStatus.COMPLETED
    (call,) = tool_calls(stack, run).values()
    assert call["state"] == "failed"
    assert "AddressRefused" in call["result"]


def test_a_built_in_tool_without_its_configuration_says_what_is_missing(
    stack: Stack, crew: Crew
) -> None:
    crew.work()
    run = start("Use sql_query.", "sql_query")

    assert run.wait(timeout=scaled(30)) is WorkflowStatus.FAILED
    error = "tool 'sql_query' is not configured: name a database under tools.sql"
    assert run.results["agent"].error == error
    assert requests(stack) == 0


def test_cancelling_stops_async_tools_and_drops_the_results_of_others(
    stack: Stack, crew: Crew
) -> None:
    crew.work()
    run = start("Use sleep and pay.", "sleep", "pay")
    reached(stack, run, sleep="running", pay="running")

    run.cancel()

    assert run.wait(timeout=scaled(5)) is WorkflowStatus.CANCELLED
    (stack.folder / "go").touch()

    assert used(stack) == {"sleep": 1, "sleep was cancelled": 1, "pay": 1}
    assert states(stack, run) == {"sleep": "unknown", "pay": "unknown"}


@pytest.mark.parametrize("model", ["gpt-4o-mini", "claude-sonnet-5"])
def test_a_retry_goes_on_where_the_failed_call_was(stack: Stack, crew: Crew, model: str) -> None:
    crew.work()
    run = start("Use pay.", "pay", model=model)
    reached(stack, run, pay="running")
    stack.simulator.configure(faults=[{"kind": "status", "status": 500, "first": 1}])
    (stack.folder / "go").touch()
    assert run.wait(timeout=scaled(30)) is WorkflowStatus.COMPLETED

    assert used(stack) == {"pay": 1}
    assert run.results["agent"].retry_count == 1
    assert requests(stack) == 3
    assert "paid" in run.outputs["agent"]


def test_an_agent_that_is_out_of_time_in_a_tool_is_told_so_at_its_retry(
    stack: Stack, crew: Crew
) -> None:
    crew.work()
    run = start("Use pay.", "pay", timeout=0.5)
    assert run.wait(timeout=scaled(30)) is WorkflowStatus.COMPLETED
    (stack.folder / "go").touch()

    assert used(stack) == {"pay": 1}
    assert run.results["agent"].retry_count == 1
    assert "outcome is unknown" in run.outputs["agent"]


def test_tools_that_say_too_much_or_raise_anything_harm_only_themselves(
    stack: Stack, crew: Crew
) -> None:
    crew.work()
    run = start("Use large and leave.", "large", "leave")
    assert run.wait(timeout=scaled(30)) is WorkflowStatus.COMPLETED

    calls = tool_calls(stack, run)
    assert calls["large"]["state"] == "completed"
    assert len(calls["large"]["result"]) < 5200
    assert calls["large"]["result"].endswith("the first 5,000 of 50,000,000 characters]")
    assert calls["leave"]["state"] == "failed"
    assert calls["leave"]["result"] == "leave failed: KeyboardInterrupt"
    assert calls["large"]["seconds"] > 0


def test_retry_failed_begins_a_new_conversation(stack: Stack, crew: Crew) -> None:
    crew.work()
    (stack.folder / "go").touch()
    run = start("[[sim:tool_turns=2]] Use pay.", "pay", max_turns=2)
    assert run.wait(timeout=scaled(30)) is WorkflowStatus.FAILED
    assert "still asks for tools after 2 turns" in str(run.results["agent"].error)
    assert used(stack) == {"pay": 1}

    run.retry_failed()
    assert run.wait(timeout=scaled(30)) is WorkflowStatus.FAILED

    assert used(stack) == {"pay": 2}
    assert requests(stack) == 4

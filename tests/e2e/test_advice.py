"""The commands that `explain` proposes are executed, and the run goes on or ends well."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app import Agent, Run, Workflow, enqueue
from tests.support.commands import execute
from tests.support.stack import CONFIGURATION, ROOT, Stack, client_of, run_stack
from tests.support.waiting import wait_until

WAIT_S = 60.0
#: A command in a remedy, up to the words that explain it.
COMMAND = re.compile(r"agentchord ([a-z]+(?: (?!repairs |starts )[^\s,;]+)*)")
BROKEN = ("failed", "partially_completed")
ONCE = "[[sim:status=400,times=1]]"


def llm(name: str, prompt: str = "go", *needs: str, **fields: Any) -> Agent:
    config = {"model": fields.pop("model", "gpt-4o-mini"), "max_tokens": 400}
    return Agent(name=name, prompt_template=prompt, llm_config=config, dependencies=needs, **fields)


def start(*agents: Agent, **fields: Any) -> Run:
    options = {key: fields.pop(key) for key in ("tenant",) if key in fields}
    workflow = Workflow(name="advised", agents=agents, **fields)
    given = {"things": ["one", ONCE, "three"], "slow": "[[sim:latency=2]]"}
    return enqueue(workflow, given, **options)


def findings(of: str) -> list[dict[str, Any]]:
    code, printed, errors = execute("explain", of, "--json")
    assert code == 0, errors
    found: list[dict[str, Any]] = json.loads(printed)["findings"]
    return found


def commands(of: str, reason: str) -> list[list[str]]:
    """The commands of the remedies of a reason, split into words."""
    told = [each for each in findings(of) if each["reason"] == reason]
    return [shlex.split(found) for each in told for found in COMMAND.findall(each["remedy"])]


def advised(of: Run | str, reason: str, command: str) -> list[str]:
    """Wait until `explain` proposes a command for a reason; return its words."""
    id_ = of if isinstance(of, str) else str(of.id)
    found: list[list[str]] = []

    def proposes() -> bool:
        found[:] = [each for each in commands(id_, reason) if each[0] == command]
        return bool(found)

    try:
        wait_until(proposes, timeout_s=WAIT_S, what=f"{command} for {reason}")
    except AssertionError as error:
        raise AssertionError(f"{error}: {findings(id_)}") from error
    return found[0]


def follow(words: list[str], usd: str = "1") -> None:
    """Execute a proposed command; USD stands for an amount."""
    code, _, errors = execute(*(usd if word == "USD" else word for word in words))
    assert code == 0, errors


def ends(run: Run, *states: str) -> bool:
    return run.wait(timeout=WAIT_S) in (states or ("completed",))


@contextmanager
def cancelled_at_the_end(run: Run) -> Iterator[Run]:
    try:
        yield run
    finally:
        run.cancel()


def sub_workflow(**fields: Any) -> Agent:
    inner = Workflow(
        name="inner",
        agents=[llm("read", "read {item}"), llm("judge", "judge {read}", "read")],
        **fields.pop("rules", {}),
    )
    return Agent(name="checked", kind="workflow", config={"workflow": inner}, **fields)


@pytest.mark.usefixtures("stack")
def test_a_paused_run_goes_on_after_resume() -> None:
    run = start(llm("first", "[[sim:latency=1]]"), llm("then", "go", "first"))
    run.pause()

    follow(advised(run, "paused", "resume"))

    assert ends(run)
    assert not [each for each in findings(str(run.id)) if "agentchord" in each["remedy"]]


def test_the_inner_run_of_a_paused_run_names_the_run_to_resume(stack: Stack) -> None:
    run = start(sub_workflow(input_mapping={"item": "slow"}))
    wait_until(lambda: stack.simulator.summary()["in_flight"] == 1, timeout_s=WAIT_S)
    run.pause()
    (inner,) = inner_of(stack, run)

    resume = advised(inner, "paused", "resume")
    follow(resume)

    assert resume == ["resume", str(run.id)]
    assert ends(run)


def inner_of(stack: Stack, run: Run) -> list[str]:
    rows = stack.sql("SELECT id FROM runs WHERE %s::uuid = ANY(ancestors) ORDER BY id", run.id)
    return [str(row["id"]) for row in rows]


@pytest.mark.usefixtures("stack")
def test_a_cancelled_run_is_finished_by_retry() -> None:
    run = start(llm("first", "[[sim:latency=2]]"), llm("then", "go", "first"))
    run.cancel()
    assert ends(run, "cancelled")

    follow(advised(run, "cancelled", "retry"))

    assert ends(run)


@pytest.mark.usefixtures("stack")
def test_a_failed_run_and_its_cancelled_agents_are_repaired_by_retry() -> None:
    run = start(llm("first", ONCE), llm("then", "go", "first"))
    assert ends(run, *BROKEN)
    of_failed, of_upstream = (advised(run, each, "retry") for each in ("failed", "upstream"))

    follow(of_failed)

    assert of_failed == of_upstream
    assert ends(run)


@pytest.mark.parametrize("inside", [False, True])
def test_elements_and_inner_agents_are_repaired_by_retry(stack: Stack, *, inside: bool) -> None:
    run = start(sub_workflow(for_each="input.things"))
    assert ends(run, "partially_completed")
    # Explain the run, or only the inner run that failed.
    failed = stack.sql(
        "SELECT id FROM runs WHERE %s::uuid = ANY(ancestors) AND status <> 'completed'", run.id
    )
    of = str(failed[0]["id"]) if inside else str(run.id)

    follow(advised(of, "failed", "retry"))

    assert ends(run)


@pytest.mark.usefixtures("stack")
def test_a_run_without_money_is_finished_with_a_larger_budget() -> None:
    run = start(llm("first"), llm("then", "go " * 2000, "first"), cost_budget=0.0001)
    assert ends(run, *BROKEN)

    told = advised(run, "failed", "retry")
    follow(told)

    assert told == ["retry", str(run.id), "--cost-budget", "USD"]
    assert ends(run)


@pytest.mark.parametrize("limit", ["rules", "cost_limit"])
@pytest.mark.usefixtures("stack")
def test_an_inner_run_without_money_is_finished_with_a_larger_budget(limit: str) -> None:
    small = 0.000001
    fields = {"rules": {"cost_budget": small}} if limit == "rules" else {"cost_limit": small}
    run = start(sub_workflow(input_mapping={"item": "things[0]"}, **fields))
    assert ends(run, *BROKEN)
    told = advised(run, "failed", "retry")
    run.retry_failed()
    without = run.wait(timeout=WAIT_S)

    follow(told, usd="100")

    assert without in BROKEN
    assert told == ["retry", str(run.id), "--cost-budget", "USD"]
    assert ends(run)


@pytest.mark.usefixtures("stack")
def test_a_run_that_failed_for_a_standing_budget_is_finished_after_both_commands() -> None:
    code, _, errors = execute("budgets", "set", "tenant", "poor one", "--limit", "0.00001")
    assert code == 0, errors
    try:
        run = start(llm("first"), tenant="poor one")
        assert ends(run, *BROKEN)
        budget, retry = (advised(run, "failed", each) for each in ("budgets", "retry"))

        follow(budget)
        follow(retry)

        assert ends(run)
    finally:
        execute("budgets", "remove", "tenant", "poor one")


@pytest.mark.usefixtures("stack")
def test_a_cost_limit_is_told_to_be_raised_in_a_new_run() -> None:
    run = start(llm("first", cost_limit=0.00001))
    assert ends(run, *BROKEN)

    (failed,) = [each for each in findings(str(run.id)) if each["reason"] == "failed"]

    assert "a larger cost_limit" in failed["remedy"]
    assert "agentchord" not in failed["remedy"]


@pytest.mark.usefixtures("stack")
def test_a_run_that_waits_for_a_standing_budget_goes_on_with_a_larger_one() -> None:
    slow = llm("slow", "[[sim:latency=3]] go", cost_limit=0.5)
    code, _, errors = execute("budgets", "set", "tenant", "poor", "--limit", "0.0003")
    assert code == 0, errors
    try:
        with cancelled_at_the_end(start(slow, llm("other"), tenant="poor")) as run:
            follow(advised(run, "money", "budgets"))
            assert ends(run)
    finally:
        execute("budgets", "remove", "tenant", "poor")


@pytest.mark.usefixtures("stack")
def test_a_run_that_waits_for_a_limit_goes_on_with_a_larger_one() -> None:
    model = "gpt-4.1-mini"
    execute("limits", "set", "openai", "concurrent_requests=1", "--model", model)
    try:
        slow = [llm(f"a{n}", "[[sim:latency=30]]", model=model) for n in range(2)]
        with cancelled_at_the_end(start(*slow)) as run:
            assert advised(run, "limit", "limits") == ["limits", "shows", "it"]
            execute("limits", "set", "openai", "concurrent_requests=5", "--model", model)
            wait_until(
                lambda: [each["reason"] for each in findings(str(run.id))].count("limit") == 0,
                timeout_s=WAIT_S,
            )
    finally:
        execute("limits", "reset", "openai", "--model", model)


@contextmanager
def command(stack: Stack, words: list[str]) -> Iterator[None]:
    """A proposed command that goes on, such as a worker."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", *words],
        env={**os.environ, **stack.environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(WAIT_S)


@pytest.mark.timeout(400)
def test_a_run_whose_workers_are_gone_goes_on_with_the_worker_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = "  lease_s: 3\n  heartbeat_s: 0.5\n  watchdog_s: 0.5\n"
    with (
        run_stack(tmp_path, "scheduler", configuration=CONFIGURATION + engine) as stack,
        client_of(stack, monkeypatch),
    ):
        run = start(llm("first", "[[sim:latency=600,times=1]]"), llm("then", "go", "first"))
        before = advised_for(run, "worker", "openai")
        with stack.worker("openai"):
            wait_until(lambda: stack.simulator.summary()["in_flight"], timeout_s=WAIT_S)
            kill_owner(stack)
        # The worker is dead, and the agent may still be running by its row.
        again = advised_for(run, "worker", "openai")
        with command(stack, again):
            assert run.wait(timeout=2 * WAIT_S) == "completed"

    assert before == again == ["worker", "openai"]


def advised_for(run: Run, *words: str) -> list[str]:
    def proposes() -> bool:
        return list(words) in commands(str(run.id), "no_worker")

    wait_until(proposes, timeout_s=WAIT_S, what=f"{words}")
    return list(words)


def kill_owner(stack: Stack) -> None:
    (owner,) = stack.sql("SELECT worker FROM agent_runs WHERE status = 'running'")
    os.kill(int(owner["worker"].split(":")[1]), signal.SIGKILL)

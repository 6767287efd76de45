"""`logs`, `watch`, `report` and `explain` on runs that wait, fail and continue."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import Agent, Run, Workflow, enqueue
from tests.support.commands import execute
from tests.support.commands import printed as cli
from tests.support.ledgers import assert_ledgers_agree
from tests.support.pace import scaled
from tests.support.stack import CONFIGURATION, ROOT, Stack, client_of, run_stack
from tests.support.waiting import wait_until

FRAGILE = (
    CONFIGURATION
    + "circuit_breaker: {window_s: 10, min_failures: 3, open_s: 60, max_open_s: 60}\n"
    + "retry: {strategy: constant_delay, base_delay: 0.05, jitter: false}\n"
)
SLOW = "[[sim:latency=60]]"


def llm(name: str, prompt: str = "go", *needs: str, **fields: Any) -> Agent:
    defaults = {"model": "gpt-4o-mini", "max_tokens": 20}
    config = {name: fields.pop(name, value) for name, value in defaults.items()}
    return Agent(name=name, prompt_template=prompt, llm_config=config, dependencies=needs, **fields)


def start(*agents: Agent, **rules: Any) -> Run:
    things = {"things": ["one", "two", "three"]}
    return enqueue(Workflow(name="explained", agents=agents, **rules), things)


@contextlib.contextmanager
def going(*agents: Agent, **rules: Any) -> Iterator[Run]:
    """A run that is cancelled in the end."""
    run = start(*agents, **rules)
    try:
        yield run
    finally:
        run.cancel()


def reasons(run: Run, *words: str) -> dict[str, dict[str, str]]:
    """The explanations of each agent: texts by reason."""
    found = json.loads(cli("explain", run.id, *words, "--json"))
    told: dict[str, dict[str, str]] = {}
    for finding in found["findings"]:
        for name in finding["agents"] or ["the run"]:
            told.setdefault(name, {})[finding["reason"]] = finding["text"]
    return told


def explained(
    run: Run, until: Callable[[dict[str, dict[str, str]]], object]
) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}

    def holds() -> bool:
        found.clear()
        found.update(reasons(run))
        return bool(until(found))

    wait_until(holds, timeout_s=scaled(20), what=f"{found}")
    return found


def test_a_call_under_way_what_depends_on_it_and_a_pause(stack: Stack) -> None:
    with going(llm("first", SLOW), llm("then", "go", "first")) as run:
        found = explained(run, lambda told: "calling" in told.get("first", {}))
        run.pause()
        paused = explained(run, lambda told: "paused" in told.get("then", {}))

    assert found["first"]["calling"].startswith("calls openai/gpt-4o-mini, for ")
    assert found["then"]["dependency"] == "waits for its dependencies: first"
    assert "paused" in paused["then"]["paused"]


def test_a_used_up_rate_limit_is_named(stack: Stack) -> None:
    model = "gpt-4.1-mini"
    cli("limits", "set", "openai", "concurrent_requests=1", "--model", model)
    try:
        with going(*(llm(f"a{n}", SLOW, model=model) for n in range(3))) as run:
            found = explained(run, lambda told: sum("limit" in why for why in told.values()) == 2)
    finally:
        cli("limits", "reset", "openai", "--model", model)

    (text,) = {why["limit"] for why in found.values() if "limit" in why}
    assert text.startswith(f"waits for the rate limit openai/{model}: 1 of 1 concurrent request")


def test_what_the_agents_of_a_sub_workflow_do_and_wait_for_is_told(stack: Stack) -> None:
    inner = Workflow(name="inner", agents=[llm("read", SLOW), llm("judge", "go", "read")])
    check = Agent(
        name="check", kind="workflow", config={"workflow": inner}, for_each="input.things"
    )

    with going(check) as run:
        found = explained(run, lambda told: "calling" in told.get("check[2]/read", {}))
        text = cli("explain", run.id)
        one = cli("explain", run.id, "check[1]/judge")
        element = reasons(run, "check[1]")

    assert found["check[0]/judge"] == {"dependency": "waits for its dependencies: read"}
    assert found["check"]["items"] == "works on its items: 0 of 3 have ended"
    assert "- check[0-2]/judge wait for their dependencies: read" in text
    assert f"agent check[1]/judge of run {run.id} is pending" in one
    assert "- check[1]/judge waits for its dependencies: read" in one
    assert element.keys() == {"check[1]", "check[1]/read", "check[1]/judge"}


def test_a_hold_that_waits_for_money_names_the_budget(stack: Stack) -> None:
    agents = [llm(f"a{n}", SLOW, max_tokens=1000) for n in range(3)]

    # One call may cost 0.0006 dollars.
    with going(*agents, cost_budget=0.001) as run:
        found = explained(run, lambda told: any("money" in why for why in told.values()))

    text = next(why["money"] for why in found.values() if "money" in why)
    assert text.startswith("waits for money, for ")
    assert "budget of run" in text


@pytest.fixture(scope="module")
def ended(running_stack: Stack) -> dict[str, str]:
    """The file with the id of the ended run, for the tests that read it."""
    return {}


@pytest.fixture
def finished(stack: Stack, ended: dict[str, str]) -> Run:
    """A run with a retry, a list, a failure, and an agent that was cancelled by it."""
    if "run" not in ended:
        run = start(
            llm("shaky", "[[sim:status=500,times=1]]"),
            llm("many", "{item} [[sim:latency=0.2]]", for_each="things"),
            llm("broken", "[[sim:status=400]]", max_retries=0),
            llm("after", "go", "broken"),
        )
        run.wait(timeout=scaled(30))
        ended["run"] = run.id
    return Run(ended["run"])


def test_what_has_ended_is_explained(stack: Stack, finished: Run) -> None:
    told = reasons(finished)

    assert told["shaky"]["retried"].startswith("was retried once: 1 x ServerFailure")
    assert told["broken"]["failed"].startswith("ended failed: ")
    assert told["after"]["upstream"] == "was cancelled: upstream failed: broken"
    assert "critical path" in told["the run"]["slow"]
    assert reasons(finished, "shaky").keys() == {"shaky"}
    assert f"run {finished.id} (explained) is " in cli("explain", finished.id)
    assert reasons(finished, "many[1]").keys() == {"many[1]"}
    assert reasons(finished, "many[1]")["many[1]"]["expensive"].endswith(" in 1 call")


def test_the_history_is_searched_by_level_agent_and_text(stack: Stack, finished: Run) -> None:
    all_lines = cli("logs", finished.id).splitlines()
    errors = cli("logs", finished.id, "--level", "error").splitlines()
    shaky = cli("logs", finished.id, "--agent", "shaky").splitlines()
    found = cli("logs", finished.id, "--search", "SERVERFAILURE").splitlines()
    followed = cli("logs", finished.id, "--follow", "--json").splitlines()

    assert "run: created, " in all_lines[0]
    assert all("  error    " in line for line in errors)
    assert any("broken: failed" in line for line in errors)
    assert [line.partition("shaky: ")[2].partition(",")[0] for line in shaky] == [
        "started",
        "retrying",
        "started (attempt 2)",
        "completed (attempt 2)",
    ]
    assert len(found) == 1
    facts = [json.loads(line) for line in followed]
    assert len(facts) == len(all_lines)
    assert {"id", "type", "at", "level", "text"} <= facts[0].keys()


def test_an_agent_that_is_not_there_is_named(stack: Stack, finished: Run) -> None:
    for words in (("logs", finished.id, "--agent", "shakey"), ("explain", finished.id, "shakey")):
        code, _, errors = execute(*words)

        assert code == 1
        assert "has no agent 'shakey'" in errors
        assert "shaky" in errors.partition("'shakey'")[2]
    for path, hint in (("many[3]", "the list 'many' has 3 elements"), ("shaky/x", "")):
        code, _, errors = execute("explain", finished.id, path)

        assert code == 1
        assert f"has no agent '{path}'" in errors
        assert hint in errors


def test_the_report_of_a_run_is_one_file(stack: Stack, finished: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.html"

    printed = cli("report", finished.id, "--output", str(file))

    page = file.read_text(encoding="utf-8")
    assert printed.strip() == str(file)
    for part in ("<h2>Timeline</h2>", "<h2>Costs</h2>", "<h2>Failures</h2>", "<h2>Retries</h2>"):
        assert part in page
    assert "<h2>Outputs</h2>" not in page
    # A list is one row, with the calls of its items.
    assert re.search(r'title="many 3/3: completed".*?class="calling"', page)
    assert re.search(r"<td>many</td>.*?<td class=\"num\">3</td>", page)


def test_watching_draws_on_a_terminal_and_ends_with_the_run(stack: Stack) -> None:
    run = start(llm("slow", "[[sim:hang]]"), llm("then", "go", "slow"))
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "app.cli", "watch", run.id],
        cwd=stack.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), **stack.environment, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        try:
            read(ours, r"then +waits for its dependencies")
            run.cancel()
            drawn = read(ours, rf"run {run.id} \(explained\): cancelled")
        except BaseException:
            process.kill()  # the run has no end
            raise

    os.close(ours)
    assert "cancelled" in drawn
    assert process.returncode == 1


def read(descriptor: int, pattern: str) -> str:
    """Read a terminal until it has shown a text; fail if the program ends before that."""
    found = b""
    while not re.search(pattern.encode(), found):
        found += os.read(descriptor, 65536)  # an OSError if the program has ended
    return found.decode(errors="replace")


def test_watching_into_a_pipe_prints_lines(stack: Stack, finished: Run) -> None:
    code, out, _ = execute("watch", finished.id)

    assert code in (1, 3)
    assert f"run {finished.id} (explained): " in out
    assert "\x1b" not in out


def test_a_queue_without_a_worker_and_an_open_circuit_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = [{"kind": "status", "status": 500, "provider": "anthropic"}]
    claude = (llm(f"c{n}", model="claude-haiku-4-5") for n in range(4))
    with (
        run_stack(tmp_path, "anthropic", "scheduler", configuration=FRAGILE) as alone,
        client_of(alone, monkeypatch),
    ):
        alone.simulator.configure(faults=down)
        with going(llm("a"), *claude) as run:
            found = explained(
                run,
                lambda told: (
                    "no_worker" in told.get("a", {})
                    and any("circuit" in why for why in told.values())
                ),
            )
        assert_ledgers_agree(alone.sql("SELECT * FROM cost_entries"), alone.simulator.ledger())

    assert found["a"]["no_worker"] == "waits for a worker, because no worker serves queue 'openai'"
    circuit = next(why["circuit"] for why in found.values() if "circuit" in why)
    assert "anthropic/claude-haiku-4-5" in circuit

"""The command as users call it: a process with arguments, output and an exit code."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app import Run, enqueue
from app.workflow_files.loader import load
from tests.support.commands import answer, cli
from tests.support.stack import ROOT, Stack
from tests.support.waiting import wait_until

UNKNOWN = "01900000-0000-7000-8000-000000000000"
WORKFLOW = """\
name: letters
agents:
  - name: writer
    module: Sales
    prompt_template: "Write to {customer} [[sim:reply=Dear Ada]]"
    llm_config: {model: gpt-4o-mini, max_tokens: 50}
  - name: checker
    module: Legal
    prompt_template: "Check {writer} MARKER"
    llm_config: {model: claude-haiku-4-5, max_tokens: 50}
    dependencies: [writer]
input: {customer: Ada}
"""


def alone(**variables: str) -> dict[str, str]:
    """An environment that leads to no stack."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def finished(file: Path) -> str:
    """Run a workflow file to its end; this process is a client of the stack, too."""
    loaded = load(file)
    run = enqueue(loaded.workflow, loaded.input)
    assert run.wait(timeout=30) == "completed"
    return run.id


@pytest.fixture
def workflow_file(tmp_path: Path) -> Path:
    file = tmp_path / "letters.yaml"
    file.write_text(WORKFLOW.replace(" MARKER", ""))
    return file


def marked(tmp_path: Path, marker: str, **agent: Any) -> str:
    """The workflow with a marker in its last prompt and more fields of its last agent."""
    more = "".join(f"\n    {key}: {json.dumps(value)}" for key, value in agent.items())
    file = tmp_path / "marked.yaml"
    text = WORKFLOW.replace("MARKER", marker)
    file.write_text(text.replace("    dependencies: [writer]", "    dependencies: [writer]" + more))
    return str(file)


def test_run_prints_the_id_and_returns_at_once(stack: Stack, workflow_file: Path) -> None:
    done = cli(stack, "run", str(workflow_file))

    run_id = done.stdout.strip()
    assert (done.returncode, done.stderr) == (0, "")
    followed = cli(stack, "status", run_id, "--follow")
    assert (followed.returncode, followed.stderr) == (0, "")
    assert "completed, 2 agents: 2 completed" in followed.stdout


def test_following_shows_levels_agents_and_outputs_in_plain_lines(
    stack: Stack, workflow_file: Path
) -> None:
    done = cli(stack, "run", str(workflow_file), "--follow", "--input", "customer=Grace")

    assert done.returncode == 0, done.stderr
    assert "level 1 of 2: 1 agent" in done.stdout
    assert "  writer (Sales, gpt-4o-mini): completed" in done.stdout
    assert "\nwriter:\n  Dear Ada\n" in done.stdout
    assert "\x1b" not in done.stdout
    assert stack.simulator.ledger()[0]["prompt"].startswith("Write to Grace")


def test_following_with_json_leaves_standard_output_to_the_outcome(
    stack: Stack, workflow_file: Path
) -> None:
    done = cli(stack, "run", str(workflow_file), "--follow", "--json")

    outcome = json.loads(done.stdout)
    assert outcome["status"] == "completed"
    assert outcome["outputs"]["writer"] == "Dear Ada"
    assert [agent["name"] for agent in outcome["agents"]] == ["writer", "checker"]
    assert "level 2 of 2" in done.stderr


@pytest.mark.parametrize(
    ("marker", "fields", "code", "status"),
    [
        ("[[sim:status=400]]", {"priority": 5}, 3, "partially_completed"),
        ("[[sim:status=400]]", {"priority": 8}, 1, "failed"),
    ],
)
def test_the_exit_code_tells_how_the_run_ended(
    marker: str, fields: dict[str, Any], code: int, status: str, stack: Stack, tmp_path: Path
) -> None:
    done = cli(stack, "run", marked(tmp_path, marker, **fields), "--follow")

    assert done.returncode == code, done.stderr
    assert f"(letters): {status}, 2 agents: " in done.stdout
    assert "checker (Legal, claude-haiku-4-5): failed" in done.stdout


def test_a_run_that_outlasts_the_timeout_goes_on_and_can_be_cancelled(
    stack: Stack, tmp_path: Path
) -> None:
    file = marked(tmp_path, "[[sim:hang]]")
    watched = cli(stack, "run", file, "--follow", "--timeout", "1.5", "--json")
    (running,) = stack.sql("SELECT id FROM runs WHERE status = 'running'")
    run_id = str(running["id"])

    cancelled = answer(stack, "cancel", run_id)
    ended = cli(stack, "status", run_id, "--follow", "--timeout", "20")

    assert watched.returncode == 4
    assert watched.stdout == ""
    assert f"run {run_id} has not ended after 1.5 s; the run goes on" in watched.stderr
    assert cancelled == {"run_id": run_id, "cancelled": True}
    assert ended.returncode == 1
    assert "(letters): cancelled" in ended.stdout


def test_interrupting_the_watcher_leaves_the_run_alone(stack: Stack, tmp_path: Path) -> None:
    file = marked(tmp_path, "[[sim:latency=3]]")
    command = [sys.executable, "-m", "app.cli", "run", file, "--follow"]
    with subprocess.Popen(
        command,
        env=alone(**stack.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watcher:
        wait_until(lambda: stack.simulator.summary()["requests"] == 2, timeout_s=20)

        watcher.send_signal(signal.SIGINT)

        _, err = watcher.communicate(timeout=20)
    assert watcher.returncode == 130
    assert "agentchord: the run goes on: agentchord status" in err
    assert "Traceback" not in err
    (running,) = stack.sql("SELECT id FROM runs WHERE status = 'running'")
    assert Run(running["id"]).wait(timeout=20) == "completed"


def test_runs_status_and_costs_say_the_same_of_a_run(stack: Stack, workflow_file: Path) -> None:
    run_id = finished(workflow_file)

    (listed,) = answer(stack, "runs", "--limit", "1", "--status", "completed")
    shown = answer(stack, "status", run_id[:25])
    by_agent = answer(stack, "costs", run_id, "--by", "agent")
    by_module = answer(stack, "costs", run_id[:25], "--by", "module", "--since", "1h")

    assert listed["run_id"] == shown["id"] == run_id
    assert listed["spent_usd"] == shown["spent_usd"] == by_agent["total"]["cost_usd"]
    assert {line["key"]: line["calls"] for line in by_agent["lines"]} == {"writer": 1, "checker": 1}
    assert {line["key"] for line in by_module["lines"]} == {"Sales", "Legal"}
    assert by_module["total"] == by_agent["total"]


def test_tables_are_plain_in_a_pipe_and_cut_nothing(stack: Stack, workflow_file: Path) -> None:
    run_id = finished(workflow_file)

    listed = cli(stack, "runs")
    shown = cli(stack, "status", run_id)
    cells = cli(stack, "costs", run_id, "--by", "model", "--csv")

    header, first, *_ = listed.stdout.splitlines()
    assert header.split() == "run workflow status level created (UTC) took cost error".split()
    assert first.startswith(f"{run_id}  letters v")
    assert f"run       {run_id}\n" in shown.stdout
    assert "status    completed\n" in shown.stdout
    assert "\x1b" not in listed.stdout + shown.stdout
    heading, *rows = csv.reader(cells.stdout.splitlines())
    assert heading[:6] == "model calls input_tokens cached_tokens output_tokens cost_usd".split()
    assert {row[0] for row in rows} == {
        "openai/gpt-4o-mini",
        "anthropic/claude-haiku-4-5",
    }


def test_the_doctor_finds_a_healthy_stack_healthy(stack: Stack) -> None:
    done = cli(stack, "doctor", "--json")

    levels = {check["name"]: check["level"] for check in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert set(levels.values()) == {"ok"}
    assert {"postgres", "schema", "redis", "redis eviction", "workers", "openai key"} <= set(levels)
    assert "simulated" not in done.stdout


def test_the_doctor_names_the_remedy_for_what_is_missing(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    variables = {"DATABASE_URL": database_url, "REDIS_URL": "redis://:secret@127.0.0.1:1/0"}
    program = [sys.executable, "-P", "-m", "app.cli", "doctor"]

    done = subprocess.run(
        program, env=alone(**variables), cwd=tmp_path, capture_output=True, text=True, check=False
    )

    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stderr
    assert any(line.startswith("fail  package name") for line in lines)
    assert any(line.startswith("warn  openai key") for line in lines)
    assert any(line.startswith("fail  redis           Redis at 127.0.0.1:1") for line in lines)
    assert "secret" not in done.stdout


def test_a_queue_without_a_worker_is_named(
    database_url: str, redis_url: str, workflow_file: Path
) -> None:
    environment = alone(DATABASE_URL=database_url, REDIS_URL=redis_url)
    program = [sys.executable, "-m", "app.cli", "run", str(workflow_file)]

    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0
    for queue in ("openai", "anthropic", "scheduler"):
        assert f"agentchord: no worker serves queue '{queue}': start a worker with" in done.stderr


def test_migrating_says_what_it_did(database_url: str, redis_url: str) -> None:
    environment = alone(DATABASE_URL=database_url, REDIS_URL=redis_url)
    program = [sys.executable, "-m", "app.cli", "migrate", "--json"]

    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)

    result = json.loads(done.stdout)
    assert result == {"before": result["after"], "after": result["after"], "changed": False}


@pytest.mark.parametrize("words", [["runs"], ["migrate"]])
def test_an_unreachable_postgres_is_one_line_without_the_password(words: list[str]) -> None:
    variables = {"DATABASE_URL": "postgresql://me:secret@127.0.0.1:9/d", "REDIS_URL": "redis://h"}
    program = [sys.executable, "-m", "app.cli", *words]

    done = subprocess.run(
        program, env=alone(**variables), capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("agentchord: Postgres at 127.0.0.1:9 (database 'd') cannot be")
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


def test_an_unknown_run_is_one_line(stack: Stack) -> None:
    done = cli(stack, "status", UNKNOWN)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"agentchord: no run has the id '{UNKNOWN}': see `agentchord runs`\n")


def test_a_first_part_of_an_id_that_no_run_has_is_told_as_such(stack: Stack) -> None:
    done = cli(stack, "status", UNKNOWN[:9])

    assert done.stderr.startswith(f"agentchord: no run has an id that begins with '{UNKNOWN[:9]}'")


def test_help_takes_less_than_0_3_seconds_of_cpu() -> None:
    program = [sys.executable, "-m", "app.cli", "--help"]
    times_s = []

    for _ in range(5):
        before = os.times()
        subprocess.run(program, env=alone(), stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        times_s.append(
            after.children_user
            - before.children_user
            + after.children_system
            - before.children_system
        )

    assert min(times_s) < 0.3

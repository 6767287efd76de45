"""`agentchord output` and `agentchord psql`: what a run has answered, and SQL on its tables."""

import json
from typing import Any

from app import Agent, Run, Workflow, enqueue
from tests.support.commands import cli
from tests.support.pace import scaled
from tests.support.stack import Stack

CALL: dict[str, Any] = {"llm_config": {"model": "gpt-4o-mini"}, "max_retries": 0}
LONG = "word " * 2_000


def ended() -> Run:
    agents = [
        Agent(name="writer", prompt_template="Write [[sim:reply={text}]]", **CALL),
        Agent(
            name="triage",
            prompt_template='Sort [[sim:reply={{"a": 1}}]]',
            output_schema={"type": "object"},
            **CALL,
        ),
        Agent(name="refused", prompt_template="[[sim:status=400]]", **CALL),
        Agent(name="each", prompt_template="[[sim:reply={item}]]", for_each="input.items", **CALL),
    ]
    workflow = Workflow(name="outputs", agents=agents)
    run = enqueue(workflow, {"text": LONG.strip(), "items": ["x", "y\x1b[2J"]})
    run.wait(timeout=scaled(30))
    return run


def test_outputs_are_printed_whole(stack: Stack) -> None:
    run = ended()

    everything = cli(stack, "output", run.id)
    one = cli(stack, "output", run.id[:30], "writer")
    document = cli(stack, "output", run.id, "triage")
    item = cli(stack, "output", run.id, "each[1]")
    exact = cli(stack, "output", run.id, "--json")

    assert f"── writer ──\n{LONG.strip()}\n" in everything.stdout
    assert everything.stderr == (
        f"agentchord: no output of 'refused': see `agentchord status {run.id}`\n"
    )
    assert one.stdout == LONG.strip() + "\n"
    assert json.loads(document.stdout) == {"a": 1}
    assert item.stdout == "y\\x1b[2J\n"
    assert json.loads(exact.stdout) == run.outputs


def test_an_agent_without_an_output_is_an_error_with_the_reason(stack: Stack) -> None:
    run = ended()

    refused = cli(stack, "output", run.id, "refused")
    unknown = cli(stack, "output", run.id, "writter")

    assert (refused.returncode, refused.stdout) == (1, "")
    assert "agent 'refused' has no output, because it is failed: " in refused.stderr
    assert "did you mean 'writer'?" in unknown.stderr


def test_psql_reads_the_ledger_and_changes_nothing_unless_asked(stack: Stack) -> None:
    run = ended()
    query = f"SELECT count(*) FROM cost_entries WHERE run_id = '{run.id}'"

    count = cli(stack, "psql", "-At", "-c", query)
    refused = cli(stack, "psql", "-c", "CREATE TABLE notes (id int)")
    allowed = cli(stack, "psql", "--write", "-c", "CREATE TABLE notes (id int); DROP TABLE notes")

    entries = stack.sql("SELECT count(*) AS n FROM cost_entries WHERE run_id = %s", run.id)
    assert (count.returncode, count.stdout.strip()) == (0, str(entries[0]["n"])), count.stderr
    assert refused.returncode == 1
    assert "read-only transaction" in refused.stderr
    assert allowed.returncode == 0, allowed.stderr

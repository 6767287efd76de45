"""Logs and records of agents: they name the agent, and have none of its secrets."""

import json

from app import Agent, Workflow, enqueue
from app.telemetry.redaction import HIDDEN
from tests.support.pace import scaled
from tests.support.stack import Stack

KEY = "sk-planted-0123456789abcdefghij"


def test_a_planted_key_is_in_no_log_no_event_and_no_stored_error(stack: Stack) -> None:
    agent = Agent(
        name="careless",
        kind="function",
        config={"function": "tests.support.agent_functions:leak"},
        input_mapping={"key": "key"},
        max_retries=0,
    )
    run = enqueue(Workflow(name="leaking", agents=[agent]), {"key": KEY})
    assert run.wait(timeout=scaled(30)) == "failed"

    told = [
        run.error or "",
        *(
            row["error"]
            for row in stack.sql("SELECT error FROM agent_runs WHERE run_id = %s", run.id)
        ),
        *(
            row["error"]
            for row in stack.sql(
                "SELECT t.error FROM attempts t JOIN agent_runs a ON a.id = t.agent_run_id"
                " WHERE a.run_id = %s",
                run.id,
            )
        ),
        *(json.dumps(dict(event.data)) for event in run.events()),
    ]
    log = stack.workers[0].log.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in log.splitlines() if "the key is" in line]

    assert not any(KEY in text for text in (*told, log))
    assert any(f"401 for the key {HIDDEN}" in text for text in told)
    (line,) = lines
    assert line["event"] == f"the key is {HIDDEN}"
    assert (line["run_id"], line["agent"], line["attempt"]) == (run.id, "careless", 1)

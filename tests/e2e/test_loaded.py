"""Code that no live worker loads: refused by plan and run, stored by enqueue, told by explain."""

import json
from pathlib import Path

import pytest

from app import Agent, Workflow, enqueue
from app.domain.loaded import Loaded
from tests.support.commands import answer, cli
from tests.support.pace import scaled
from tests.support.stack import Stack, client_of, run_stack
from tests.support.waiting import wait_until

WAIT_S = scaled(60.0)
WRONG = """\
name: wrong
agents:
  - name: reader
    prompt_template: Read.
    llm_config: {model: gpt-4o-mini, max_tokens: 20}
    tools: [chek_total]
  - name: totals
    kind: function
    dependencies: [reader]
    config: {function: "app.examples.functions:totls"}
  - name: later
    prompt_template: Read.
    llm_config: {model: claude-haiku-4-5, max_tokens: 20}
    tools: [chek_total]
"""


def live(stack: Stack) -> list[Loaded]:
    rows = stack.sql("SELECT loaded FROM worker_loads WHERE seen_at > now() - interval '30 s'")
    return [Loaded.from_json(row["loaded"]) for row in rows]


def test_plan_and_run_refuse_what_no_live_worker_loads_and_enqueue_and_explain_tell_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(WRONG)
    # No worker serves the queue of Anthropic, so the tools of the agent `later` are not judged.
    with run_stack(tmp_path, "openai", "function", "scheduler") as stack:
        wait_until(lambda: live(stack), timeout_s=WAIT_S)
        refused = [cli(stack, command, str(file)) for command in ("plan", "run")]
        with client_of(stack, monkeypatch):
            reader = Agent(
                name="reader",
                prompt_template="[[sim:latency=600]]",
                llm_config={"model": "gpt-4o-mini", "max_tokens": 20},
            )
            totals = Agent(
                name="totals",
                kind="function",
                dependencies=["reader"],
                config={"function": "mails:total"},
            )
            run = enqueue(Workflow(name="later", agents=[reader, totals]), {})
            explained = answer(stack, "explain", str(run.id))
            run.cancel()

    for done in refused:
        assert done.returncode == 1
        assert not done.stdout
        assert [line.split(": ")[0] for line in done.stderr.splitlines()] == [
            "agentchord",
            f"- {file}:6",
            f"- {file}:10",
        ], done.stderr
        assert "did you mean 'check_total'?" in done.stderr
        assert "did you mean 'app.examples.functions:totals'?" in done.stderr
    (finding,) = [each for each in explained["findings"] if each["reason"] == "not_loaded"]
    assert finding["agents"] == ["totals"]
    assert "list 'mails' under imports" in finding["text"]


def test_workers_publish_what_agents_can_use_and_take_it_back_at_the_end(stack: Stack) -> None:
    before = {json.dumps(each.as_json()) for each in live(stack)}

    with stack.worker("anthropic"):
        wait_until(
            lambda: any(tuple(each.queues) == ("anthropic",) for each in live(stack)),
            timeout_s=WAIT_S,
        )
        (new,) = [each for each in live(stack) if tuple(each.queues) == ("anthropic",)]
    after = {json.dumps(each.as_json()) for each in live(stack)}

    assert "check_total" in new.tools
    assert "app.examples.tools:check_total" in new.tools
    assert "app.examples.functions:totals" in new.functions
    assert {"function", "http", "text_processor", "data_analyzer"} <= set(new.kinds)
    assert after == before

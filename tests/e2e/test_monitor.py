"""Monitor: the same numbers in every process and after restarts, and events of programs."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from app import (
    Agent,
    MetricEvent,
    Monitor,
    MonitorConfig,
    OpenAIClient,
    OrchestrationEngine,
    Workflow,
    enqueue,
)
from tests.support.pace import scaled
from tests.support.stack import Stack
from tests.support.waiting import wait_until

FACTS = {"by": "Kim", "amount": 12.5}
SILENT = MonitorConfig(enable_logging=False)


def agent(name: str, prompt: str = "go", **fields: object) -> Agent:
    return Agent(
        name=name,
        prompt_template=prompt,
        llm_config={"model": "gpt-4o-mini", "max_tokens": 50},
        **fields,  # type: ignore[arg-type]
    )


@pytest.fixture
def unconfigured() -> Iterator[None]:
    """A program that has not configured structlog; other tests of this process may have."""
    configured, config = structlog.is_configured(), structlog.get_config()
    structlog.reset_defaults()
    yield
    if configured:
        structlog.configure(**config)


def test_metrics_count_what_all_workers_did(stack: Stack) -> None:
    monitor = Monitor(SILENT)
    before = monitor.get_metrics()
    refused = {"kind": "status", "status": 400, "prompt_contains": "refuse me"}
    stack.simulator.configure(faults=[refused])

    done = enqueue(Workflow(name="good", agents=[agent("a"), agent("b", dependencies=["a"])]))
    bad = enqueue(Workflow(name="bad", agents=[agent("c", "refuse me")]))

    assert done.wait(timeout=scaled(30)) == "completed"
    assert bad.wait(timeout=scaled(30)) == "failed"
    after = monitor.get_metrics()
    grown = {name: after[name] - before[name] for name in after}
    assert grown["uptime_seconds"] > 0
    assert after["avg_agent_execution_time"] > 0
    assert grown["total_cost"] == pytest.approx(float(done.cost))
    tokens = sum(r["input_tokens"] + r["output_tokens"] for r in stack.simulator.ledger())
    assert {name: grown[name] for name in COUNTS} == COUNTS | {"total_tokens": tokens}


COUNTS = {
    "workflows_started": 2,
    "workflows_completed": 1,
    "workflows_partially_completed": 0,
    "workflows_failed": 1,
    "workflows_cancelled": 0,
    "workflows_active": 0,
    "agents_executed": 3,
    "agents_failed": 1,
    "agents_active": 0,
    "total_api_calls": 3,
    "rate_limit_hits": 0,
    "total_tokens": 0,
}


def test_the_summary_the_engine_and_another_process_say_the_same(stack: Stack) -> None:
    run = enqueue(Workflow(name="one", agents=[agent("a")]))
    assert run.wait(timeout=scaled(30)) == "completed"

    metrics = Monitor(SILENT).get_metrics()
    summary = Monitor(SILENT).get_summary()
    status = OrchestrationEngine(OpenAIClient(api_key="any")).get_system_status()
    program = "import json; from app import Monitor; print(json.dumps(Monitor().get_metrics()))"
    elsewhere = json.loads(stack.python("-c", program).stdout)

    del metrics["uptime_seconds"]
    assert {name: elsewhere[name] for name in metrics} == metrics
    ended = summary["workflows"]["started"] - summary["workflows"]["active"]
    good = metrics["workflows_completed"] + metrics["workflows_partially_completed"]
    assert summary["workflows"]["success_rate"] == pytest.approx(100 * good / ended)
    assert summary["agents"]["avg_execution_time"] == metrics["avg_agent_execution_time"]
    assert summary["costs"]["total_cost"] == metrics["total_cost"]
    assert status["monitoring"]["workflows"] == summary["workflows"]
    assert status["rate_limiting"]["total_requests"] == metrics["total_api_calls"]
    assert status["cost_tracking"]["total_cost"] == metrics["total_cost"]


def test_recent_events_are_the_histories_the_calls_and_what_programs_recorded(
    stack: Stack,
) -> None:
    monitor = Monitor(SILENT)
    run = enqueue(Workflow(name="one", agents=[agent("a")]))
    assert run.wait(timeout=scaled(30)) == "completed"
    (result,) = run.results.values()

    monitor.record_event(
        "approved", workflow_id=run.id, data=FACTS | {"key": "sk-planted-0123456789abcdef0123"}
    )

    events = monitor.get_recent_events(20)
    ours = [event for event in events if event.workflow_id == run.id]
    types = [event.event_type for event in ours]
    assert types[0] == "run_created"
    assert types[-1] == "approved"
    assert {"run_started", "agent_started", "api_call", "agent_completed", "run_completed"} <= {
        *types
    }
    assert events == sorted(events, key=lambda event: event.timestamp)
    (call,) = [event for event in ours if event.event_type == "api_call"]
    assert call.agent_id == result.agent_id
    assert (call.data["agent"], call.data["model"]) == ("a", "gpt-4o-mini")
    assert call.data["cost_usd"] == pytest.approx(result.cost)
    (last,) = monitor.get_recent_events(1, "approved")
    assert last == MetricEvent(
        timestamp=last.timestamp,
        event_type="approved",
        agent_id=None,
        workflow_id=run.id,
        data=FACTS | {"key": "[redacted]"},
    )
    assert [event.event_type for event in monitor.get_recent_events(2, "run_completed")][-1] == (
        "run_completed"
    )
    assert monitor.get_recent_events(5, "no_such_type") == []


def test_what_cannot_be_an_event_is_refused_in_words(stack: Stack) -> None:
    monitor = Monitor(SILENT)

    with pytest.raises(ValueError, match="event_type is ''"):
        monitor.record_event("")
    with pytest.raises(ValueError, match=r"event 'x': data.a is .* which is not a JSON value"):
        monitor.record_event("x", data={"a": object()})
    with pytest.raises(ValueError, match="NUL"):
        monitor.record_event("x", data={"a": "\0"})
    misplaced: Any = {"version": 7}
    with pytest.raises(ValueError, match=r"agent_id is .*facts are data="):
        monitor.record_event("deployed", misplaced)
    with pytest.raises(ValueError, match="workflow_id is"):
        monitor.record_event("deployed", workflow_id="a\0")
    with pytest.raises(ValueError, match="count is 0"):
        monitor.get_recent_events(0)
    misplaced = 5
    with pytest.raises(ValueError, match="event_type is 5"):
        monitor.get_recent_events(5, misplaced)
    with pytest.raises(ValueError, match="has 100,012 bytes, but at most 100,000"):
        monitor.record_event("x", data={"text": "a" * 100_001})
    with pytest.raises(ValueError, match="give facts by name"):
        monitor.record_event("x", data=misplaced)


def test_what_is_switched_off_is_neither_stored_nor_logged(
    stack: Stack, unconfigured: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="app.client.monitor")

    Monitor(MonitorConfig(enable_metrics=False)).record_event("only logged", "me", data={"n": 1})
    Monitor(SILENT).record_event("only stored")

    assert [record.__dict__["event_type"] for record in caplog.records] == ["only logged"]
    assert Monitor(SILENT).get_recent_events(5, "only logged") == []
    assert len(Monitor(SILENT).get_recent_events(5, "only stored")) == 1


def test_as_a_context_manager_it_logs_the_metrics_again_and_again(
    stack: Stack, unconfigured: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="app.client.monitor")

    with Monitor(MonitorConfig(metrics_interval=0.05)):
        wait_until(lambda: len(caplog.records) > 1, what="two lines")

    assert caplog.records[0].__dict__["total_api_calls"] >= 0

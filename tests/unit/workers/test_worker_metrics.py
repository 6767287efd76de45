"""The metrics of a worker, and the port that serves them."""

import socket
from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from app.domain.policies import MonitorConfig
from app.domain.status import AgentStatus
from app.domain.usage import Usage
from app.storage.records import Ending
from tests.support.calls import call_of
from tests.support.jobs import ID, agent_of, job_of
from tests.support.promql import Page, page_at, page_of, summed
from workers.worker_metrics import WorkerMetrics

pytestmark = pytest.mark.anyio

COMPLETED = Ending(
    run_id=ID, name="a", status=AgentStatus.COMPLETED, outcome="completed", event="ended"
)
FAILED = replace(COMPLETED, status=AgentStatus.FAILED, outcome="failed")


def shown(metrics: WorkerMetrics) -> Page:
    return page_of(generate_latest(metrics.registry).decode())


async def test_an_attempt_is_counted_by_how_it_ended_with_what_it_waited_for() -> None:
    metrics = WorkerMetrics(MonitorConfig())
    job = job_of(agent_of("gpt-4o-mini"))

    with metrics.running(job):
        under_way = summed(shown(metrics), "agentchord_attempts_in_flight", "provider")
        with job.waits.waiting("limit", lambda: "openai/default"):
            pass
        with (
            job.waits.waiting("limit", lambda: "openai/default"),
            job.waits.waiting("money", lambda: "money"),
        ):
            pass
    job.clock.first_token(0.3)
    for ending in (
        COMPLETED,
        FAILED,
        replace(FAILED, retry=True, status=AgentStatus.PENDING),
        replace(FAILED, status=AgentStatus.BUDGET_EXCEEDED),
        replace(COMPLETED, status=AgentStatus.PENDING, outcome="handed_back"),
    ):
        metrics.ended(job, ending)

    page = shown(metrics)
    assert under_way == {("openai",): 1}
    assert summed(page, "agentchord_attempts_in_flight") == {(): 0}
    assert summed(page, "agentchord_attempts_total", "provider", "module", "outcome") == {
        ("openai", "General", outcome): 1
        for outcome in ("completed", "failed", "retried", "budget_exceeded", "handed_back")
    }
    assert summed(page, "agentchord_attempt_seconds_count") == {(): 5}
    waited = summed(page, "agentchord_wait_seconds_count", "reason")
    assert waited == {("limit",): 5, ("money",): 5}
    first = summed(page, "agentchord_first_token_seconds_sum", "model")
    assert first == {("gpt-4o-mini",): pytest.approx(1.5)}


async def test_calls_that_reached_a_provider_are_counted_and_no_others() -> None:
    metrics = WorkerMetrics(MonitorConfig())
    usage = Usage(input_tokens=10, cached_tokens=5, output_tokens=7)

    metrics.booked(
        [
            call_of("gpt-4o", usage=usage),
            call_of("gpt-4o", outcome="RateLimited", seconds=None),
            call_of("gpt-4o", kind="cached"),
            call_of("gpt-4o", kind="void"),
        ]
    )

    page = shown(metrics)
    assert summed(page, "agentchord_calls_total", "model", "outcome") == {
        ("gpt-4o", "ok"): 1,
        ("gpt-4o", "RateLimited"): 1,
    }
    assert summed(page, "agentchord_call_seconds_count") == {(): 1}
    assert summed(page, "agentchord_tokens_total", "direction") == {("input",): 15, ("output",): 7}
    assert summed(page, "agentchord_cost_usd_total", "kind") == {("actual",): pytest.approx(0.02)}


async def test_nothing_is_counted_where_metrics_are_switched_off() -> None:
    metrics = WorkerMetrics(MonitorConfig(enable_metrics=False))

    metrics.booked([call_of("gpt-4o")])
    metrics.ended(job_of(agent_of("gpt-4o")), COMPLETED)

    assert summed(shown(metrics), "agentchord_attempts_total") == {}
    assert summed(shown(metrics), "agentchord_calls_total") == {}


def test_each_worker_of_a_machine_takes_the_next_free_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        metrics = WorkerMetrics(MonitorConfig(metrics_port=port))
        metrics.watch_dropped(lambda: 3)

        metrics.start()

        try:
            page = page_at(f"http://127.0.0.1:{metrics.port}/metrics")
        finally:
            metrics.stop()
    assert metrics.port is not None
    assert metrics.port > port
    assert summed(page, "agentchord_task_events_dropped") == {(): 3}

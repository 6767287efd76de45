"""The exporter's numbers, against the ledger, the run tables and the simulator."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.domain.plain_text import shown_line
from app.domain.status import WorkflowStatus
from tests.support.promql import page_at, summed
from tests.support.stack import Stack
from tests.support.waiting import wait_until


@contextmanager
def exporter(stack: Stack, **environment: str) -> Iterator[str]:
    """`agentchord exporter` of a stack; gives its address."""
    command = ("-m", "app.cli", "exporter", "--port", "0")
    with stack.start_python(*command, **environment) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def test_the_exporter_agrees_with_the_ledger_the_run_tables_and_the_provider(stack: Stack) -> None:
    finished = stack.python("-m", "app.examples.parallel")
    assert finished.returncode == 0, finished.stderr

    with exporter(stack) as address:
        silent = "agentchord_watchdog_silent_seconds"
        wait_until(lambda: summed(page_at(address), silent)[()] < 30, what="a watchdog has looked")
        samples = page_at(address)

    by_state = stack.sql(
        "SELECT status, count(*) AS runs FROM runs WHERE parent_agent_run_id IS NULL"
        " GROUP BY status"
    )
    assert summed(samples, "agentchord_runs", "status") == {
        **{(status.value,): 0 for status in WorkflowStatus},
        **{(row["status"],): row["runs"] for row in by_state},
    }
    booked = stack.sql(
        "SELECT provider, model, module, kind, sum(cost_usd) AS usd FROM cost_entries "
        "GROUP BY provider, model, module, kind"
    )
    exported = summed(
        samples, "agentchord_ledger_cost_usd_total", "provider", "model", "module", "kind"
    )
    expected = {
        (row["provider"], row["model"], shown_line(row["module"]), row["kind"]): float(row["usd"])
        for row in booked
    }
    assert exported == pytest.approx(expected)  # sums of floats depend on their order
    (calls,) = stack.sql("SELECT count(*) AS n FROM cost_entries WHERE kind <> 'correction'")
    assert sum(summed(samples, "agentchord_ledger_calls_total", "kind").values()) == calls["n"]
    (tokens,) = stack.sql(
        "SELECT sum(input_tokens + cached_tokens + cache_write_tokens + cache_write_1h_tokens)"
        " AS input, sum(output_tokens) AS output FROM cost_entries"
    )
    exported = summed(samples, "agentchord_ledger_tokens_total", "direction")
    assert exported == {("input",): tokens["input"], ("output",): tokens["output"]}
    (spent,) = stack.sql(
        "SELECT sum(cost_usd) AS usd FROM cost_entries WHERE created_at > now() - interval '1 hour'"
    )
    assert summed(samples, "agentchord_spent_last_hour_usd")[()] == float(spent["usd"])
    (ended,) = stack.sql(
        "SELECT count(*) AS runs FROM runs"
        " WHERE finished_at > now() - interval '1 hour' AND pruned_at IS NULL"
        " AND parent_agent_run_id IS NULL"
    )
    assert summed(samples, "agentchord_runs_ended_last_hour") == {(): ended["runs"]}
    # Nothing runs any more.
    assert summed(samples, "agentchord_agents") == {}
    ready = summed(samples, "agentchord_agents_admissible", "provider")
    assert ready == dict.fromkeys((("openai",), ("anthropic",), ("function",), ("http",)), 0)
    for name in ("agentchord_run_stalled_seconds", "agentchord_workers_busy"):
        assert summed(samples, name) == {(): 0}
    assert summed(samples, "agentchord_queue_messages", "queue")[("scheduler",)] == 0
    assert summed(samples, "agentchord_service_up", "service") == {("postgres",): 1, ("redis",): 1}


NOWHERE = {"DATABASE_URL": "postgresql://a:b@127.0.0.1:9/c", "REDIS_URL": "redis://127.0.0.1:9/0"}


@pytest.mark.parametrize(
    ("variable", "away", "gone", "there"),
    [
        ("REDIS_URL", "redis", "agentchord_watchdog_silent_seconds", "agentchord_runs"),
        ("DATABASE_URL", "postgres", "agentchord_runs", "agentchord_watchdog_silent_seconds"),
    ],
)
def test_a_service_that_is_away_is_told_and_the_other_ones_numbers_are_served(
    stack: Stack, variable: str, away: str, gone: str, there: str
) -> None:
    (other,) = {"postgres", "redis"} - {away}

    with exporter(stack, **{variable: NOWHERE[variable]}) as address:
        page = page_at(address)

    assert summed(page, "agentchord_service_up", "service") == {(away,): 0, (other,): 1}
    assert summed(page, gone) == {}
    assert summed(page, there)

"""The exporter's numbers, against the ledger, the run tables and the simulator."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families

from tests.stack import Stack
from tests.waiting import wait_until

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_of(text: str) -> Samples:
    """Name and labels -> value, of a page of metrics."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def summed(samples: Samples, name: str, *by: str) -> dict[tuple[str, ...], float]:
    """Sums of a metric by some of its labels."""
    sums: dict[tuple[str, ...], float] = {}
    for (found, labels), value in samples.items():
        if found == name:
            key = tuple(dict(labels)[label] for label in by)
            sums[key] = sums.get(key, 0.0) + value
    return sums


@contextmanager
def exporter(stack: Stack) -> Iterator[str]:
    """`agentchord exporter` of a stack; gives its address."""
    with stack.start_python("-m", "app.cli", "exporter", "--port", "0") as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def read(address: str) -> Samples:
    """What a page of metrics says now."""
    with urllib.request.urlopen(address, timeout=20) as page:
        return samples_of(page.read().decode())


def test_the_exporter_agrees_with_the_ledger_the_run_tables_and_the_provider(stack: Stack) -> None:
    finished = stack.python("-m", "app.examples.parallel")
    assert finished.returncode == 0, finished.stderr

    with exporter(stack) as address:
        silent = "agentchord_watchdog_silent_seconds"
        wait_until(lambda: summed(read(address), silent)[()] < 30, what="a watchdog has looked")
        samples = read(address)

    by_state = stack.sql("SELECT status, count(*) AS runs FROM runs GROUP BY status")
    assert summed(samples, "agentchord_runs", "status") == {
        (row["status"],): row["runs"] for row in by_state
    }
    booked = stack.sql(
        "SELECT provider, model, module, kind, sum(cost_usd) AS usd FROM cost_entries "
        "GROUP BY provider, model, module, kind"
    )
    exported = summed(
        samples, "agentchord_ledger_cost_usd_total", "provider", "model", "module", "kind"
    )
    assert exported == {
        (row["provider"], row["model"], row["module"], row["kind"]): float(row["usd"])
        for row in booked
    }
    (calls,) = stack.sql("SELECT count(*) AS n FROM cost_entries WHERE kind <> 'correction'")
    assert sum(summed(samples, "agentchord_ledger_calls_total", "kind").values()) == calls["n"]
    assert summed(samples, "agentchord_queue_messages", "queue")[("scheduler",)] == 0
    assert summed(samples, "agentchord_service_up", "service") == {("postgres",): 1, ("redis",): 1}

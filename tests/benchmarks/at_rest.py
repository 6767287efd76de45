"""`python -m tests.benchmarks.at_rest`: where the time of one run goes while the stack is idle.

The client, the simulator and Postgres run on one machine, so their clocks agree.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmarks.bench import Bench, open_bench
from tests.benchmarks.contenders import BenchmarkFailed
from tests.benchmarks.entrants import AGENTCHORD, entrant_named
from tests.benchmarks.program import run
from tests.benchmarks.protocol import Times
from tests.benchmarks.results import Moments
from tests.benchmarks.tables import at_rest_table
from tests.benchmarks.workloads import AT_REST, Workload

#: The times that Postgres has of a run, in seconds since the epoch.
STAGES = """
    SELECT r.id::text AS id, extract(epoch FROM r.started_at)::float8 AS admitted,
        extract(epoch FROM t.started_at)::float8 AS claimed,
        extract(epoch FROM a.finished_at)::float8 AS recorded,
        extract(epoch FROM r.finished_at)::float8 AS ended
    FROM runs r JOIN agent_runs a ON a.run_id = r.id JOIN attempts t ON t.agent_run_id = a.id
    WHERE r.id = ANY(%s::uuid[])
"""


def measure_at_rest(bench: Bench, workload: Workload = AT_REST) -> list[Moments]:
    """Run one agent at a time; return the moments of each run, in seconds on one clock.

    Raises:
        BenchmarkFailed: If not all of the work was done, or if a run's step is missing.
    """
    bench.run(AGENTCHORD, replace(workload, runs=3))  # warms up
    offset_s = time.time() - time.monotonic()
    sample = bench.measure(AGENTCHORD, workload)
    served = bench.stack.simulator.ledger()
    stored = {row["id"]: row for row in bench.stack.sql(STAGES, sample.run_ids)}
    if len(stored) != len(sample.run_ids):
        raise BenchmarkFailed("Postgres has not every run that came alone")
    return [
        _moments(times_s, record, stored[run_id], offset_s)
        for run_id, times_s, record in zip(sample.run_ids, sample.times_s, served, strict=True)
    ]


def _moments(
    times_s: Times, record: Mapping[str, Any], stored: Mapping[str, Any], offset_s: float
) -> Moments:
    called_s, accepted_s, known_s = times_s
    return {
        "called": called_s,
        "accepted": accepted_s,
        "known": known_s,
        "arrived": record["arrived_s"],
        "answered": record["arrived_s"] + record["seconds"],
        **{name: value - offset_s for name, value in stored.items() if name != "id"},
    }


def main(options: argparse.Namespace) -> None:
    """Measure, and print the table."""
    with (
        tempfile.TemporaryDirectory(prefix="agentchord-rest-") as folder,
        open_bench(Path(folder), [entrant_named(AGENTCHORD)], workers=options.workers) as bench,
    ):
        found = measure_at_rest(bench, replace(AT_REST, runs=options.runs))
    sys.stdout.write(at_rest_table(found) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.at_rest")
    parser.add_argument("--runs", type=int, default=AT_REST.runs, help="runs, one by one (40)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (2)")
    run(main, parser.parse_args())

"""`python -m tests.benchmarks.watching`: cost of monitoring, in CPU per agent of W1.

Two stacks alternate, one with metrics and the stream of events, one without. The history and the
events for Flower are always on.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from tests.benchmarks.bench import Sample, open_bench
from tests.benchmarks.entrants import AGENTCHORD, entrant_named
from tests.benchmarks.machine import describe
from tests.benchmarks.program import run
from tests.benchmarks.results import application_cpu_s
from tests.benchmarks.tables import table
from tests.benchmarks.workloads import WORKLOADS, Workload
from tests.support.markdown import write_into

MARK = "watching: written by `make watching`"
UNWATCHED = {
    "AGENTCHORD_MONITORING__ENABLE_METRICS": "false",
    "AGENTCHORD_MONITORING__STREAM_EVENTS": "false",
}
MS = 1000.0


def main(options: argparse.Namespace) -> None:
    """Measure alternately, print, and write the results if the options ask for it."""
    workload = WORKLOADS["W1"]
    on: list[Sample] = []
    off: list[Sample] = []
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="agentchord-watch-")))
        entrants = [entrant_named(AGENTCHORD)]
        watched, unwatched = (
            parts.enter_context(open_bench(folder / name, entrants, workers=2, **variables))
            for name, variables in (("on", {}), ("off", UNWATCHED))
        )
        for number in range(-1, options.rounds):
            turns = [(watched, on), (unwatched, off)]
            for bench, samples in turns if number % 2 else reversed(turns):
                sample = bench.measure(AGENTCHORD, workload)
                if number >= 0:  # the first one warms up
                    samples.append(sample)
            sys.stderr.write(f"round {number + 1} of {options.rounds}\n")
        facts = describe(folder, watched.stack.urls)
    text = "\n\n".join(
        [_introduction(facts, [*on, *off], options.rounds), _table(workload, on, off)]
    )
    sys.stdout.write(text + "\n")
    if options.markdown:
        write_into(options.markdown, text, mark=MARK)


def _introduction(facts: dict[str, str], samples: Sequence[Sample], rounds: int) -> str:
    others = median(sample.others_share for sample in samples)
    return (
        f"{facts['date']}, {facts['cores']} cores; medians (least-most) of {rounds} rounds in "
        f"turns. Something else used {others:.0%} of the machine meanwhile."
    )


def _table(workload: Workload, on: Sequence[Sample], off: Sequence[Sample]) -> str:
    figures: dict[str, Callable[[Sample], float]] = {
        "application": application_cpu_s,
        "Postgres and Redis": lambda s: s.cpu_s["Postgres"] + s.cpu_s["Redis"],
        "all": lambda s: application_cpu_s(s) + s.cpu_s["Postgres"] + s.cpu_s["Redis"],
    }
    rows = []
    for name, figure in figures.items():
        columns = [[MS * figure(s) / workload.agents for s in samples] for samples in (on, off)]
        shown = [f"{median(v):.2f} ({min(v):.2f}-{max(v):.2f})" for v in columns]
        rows.append((name, *shown, f"{median(columns[0]) / median(columns[1]):.2f}"))
    return table(("CPU in ms per agent of W1", "watched", "not watched", "ratio"), rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.watching")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds (7)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the table there")
    run(main, parser.parse_args())

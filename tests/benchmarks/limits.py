"""`python -m tests.benchmarks.limits`: whether limits are kept and used; takes 40 minutes."""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.limit_scenarios import (
    FAIRNESS,
    SCENARIOS,
    Outcome,
    Scenario,
    limited_stack,
    measure,
    measure_fairness,
    workers,
)
from tests.benchmarks.limit_speed import measure_memory, measure_speed
from tests.benchmarks.machine import describe
from tests.benchmarks.program import run
from tests.benchmarks.tables import table
from tests.support.markdown import write_into
from tests.support.terminal import say

KEPT = ("limit", "processes", "requests", "429s", "seconds", "used")
AT_ONCE = ((1, 3000), (100, 20_000), (1000, 40_000))
WAITING = (10, 10_000)


def main(options: argparse.Namespace) -> None:
    """Measure, print the tables, and write them if the options ask for it."""
    chosen = [scenario for scenario in SCENARIOS if scenario.name in options.only]
    counts = sorted(options.processes)
    rows: list[tuple[str, ...]] = []
    fairness: list[tuple[str, ...]] = []
    with (
        tempfile.TemporaryDirectory(prefix="agentchord-limits-") as folder,
        limited_stack(Path(folder), [*chosen, FAIRNESS], counts) as stack,
        ExitStack() as started,
    ):
        os.environ.update(stack.environment)
        facts = describe(Path(folder), stack.urls)
        speed = _speed(stack.urls.redis_url)
        there = 0
        for count in counts:
            started.enter_context(workers(stack, count - there))
            there = count
            for scenario in chosen:
                rows.append(_row(scenario, count, measure(stack, scenario, count)))
                say(" | ".join(rows[-1]))
            alone_s, behind_s = measure_fairness(stack, count)
            fairness.append(
                (str(count), f"{alone_s:.2f}", f"{behind_s:.2f}", f"{behind_s / alone_s:.1f}")
            )
            say(f"3 agents behind 3,000: {' | '.join(fairness[-1])}")
    machine = (
        f"{facts['date']}, {facts['cores']} cores, Python {facts['python']}, Redis "
        f"{facts['redis']}, Postgres {facts['postgres']}; the simulator answers after 50 ms."
    )
    text = "\n\n".join(
        [
            machine,
            table(KEPT, rows),
            "A run of 3 agents on a limit of 600 a minute, in seconds (medians of 3):",
            table(("processes", "alone, bucket empty", "behind 3,000 agents", "ratio"), fairness),
            "One process, acquire and settle, all tiers configured:",
            speed,
        ]
    )
    sys.stdout.write(text + "\n")
    if options.markdown:
        write_into(options.markdown, text, mark="limits: written by `make limits`")


def _row(scenario: Scenario, processes: int, found: Outcome) -> tuple[str, ...]:
    return (
        scenario.title,
        str(processes),
        str(found.answered),
        str(len(found.throttled_s)),
        f"{found.seconds:.1f}",
        f"{found.used:.1%}",
    )


def _speed(redis_url: str) -> str:
    found = [measure_speed(redis_url, at_once=many, permits=count) for many, count in AT_ONCE]
    rows = [
        (str(s.at_once), f"{s.per_s:,.0f}", f"{s.round_trips:.2f}", f"{s.cpu_us:.0f}")
        for s in found
    ]
    shown = table(("at once", "per second", "round trips each", "CPU us each"), rows)
    few, many = (measure_memory(redis_url, waiting=waiting) for waiting in WAITING)
    return (
        f"{shown}\n\nA bucket takes {few:,} bytes in Redis while {WAITING[0]:,} requests of a "
        f"process wait for it, and {many:,} while {WAITING[1]:,} do."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.limits",
        description="The whole stack against a simulator that enforces limits. The tables go to "
        "standard output, progress to standard error.",
    )
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--processes", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="put the tables into this file, in place of those that are there",
    )
    return parser.parse_args()


if __name__ == "__main__":
    run(main, _arguments())

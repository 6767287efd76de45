"""`python -m tests.benchmarks.scale`: cost of an agent in runs of any size, and among old runs.

One run of 500 to 10,000 agents, a wide level, many runs at once; then the same beside 200,000
finished runs in the tables. The provider answers at once, so only AgentChord's time is measured.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.bench import Bench, Sample, open_bench
from tests.benchmarks.entrants import AGENTCHORD, entrant_named
from tests.benchmarks.finished_runs import fill
from tests.benchmarks.machine import describe
from tests.benchmarks.program import run
from tests.benchmarks.results import application_cpu_s
from tests.benchmarks.scale_picture import draw
from tests.benchmarks.tables import table
from tests.benchmarks.workloads import Workload
from tests.support.markdown import write_into
from tests.support.terminal import say

MARK = "scale: written by `make scale`"
WIDTH = 100
FINISHED = 200_000
HEADERS = (
    *("", "agents", "s", "ms per agent", "CPU ms per agent", "Postgres", "Redis"),
    *("statements per agent", "accepted after s", "peak memory MB"),
)


def _workload(name: str, *, runs: int = 1, levels: int = 1, width: int = WIDTH) -> Workload:
    return Workload(name=name, title=name, runs=runs, levels=levels, width=width, latency_s=0.0)


#: The run that finished runs are copies of.
ONE = _workload("1 run of 1", width=1)
#: The curve: levels of 100, more and more of them.
GROWING = [
    _workload(f"1 run of {agents:,}", levels=agents // WIDTH)
    for agents in (500, 2_000, 5_000, 10_000)
]
OTHERS = [
    _workload("a level of 5,000", width=5_000),
    _workload("100 runs of 100", runs=100, levels=5, width=20),
    _workload("1,000 runs of 1", runs=1_000, width=1),
]
CAPTION = (
    "The application's CPU per agent, for runs of different numbers of agents. "
    "Both axes start at zero."
)
BESIDE_FINISHED = [GROWING[0], GROWING[-1], OTHERS[-1]]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measured size.

    Attributes:
        workload: The workload.
        finished: Finished runs that were in the tables.
        sample: The measurement.
        statements: Statements of Postgres, counted in an execution of their own.
    """

    workload: Workload
    finished: int
    sample: Sample
    statements: int

    def per_agent_ms(self, seconds: float) -> float:
        """Milliseconds per agent."""
        return seconds * 1000 / self.workload.agents


def main(options: argparse.Namespace) -> None:
    """Measure, print the table, and write table and picture if the options ask for it."""
    with (
        tempfile.TemporaryDirectory(prefix="agentchord-scale-") as folder,
        open_bench(Path(folder), [entrant_named(AGENTCHORD)], workers=options.workers) as bench,
    ):
        machine = describe(Path(folder), bench.stack.urls)
        say("warm-up")
        for workload in (ONE, GROWING[0]):
            bench.measure(AGENTCHORD, workload)
        chosen = [w for w in (*GROWING, *OTHERS) if w.agents <= options.most]
        points = [_measure(bench, workload, 0) for workload in chosen]
        if options.finished:
            say(f"filling the tables with {options.finished:,} finished runs")
            fill(bench.stack, options.finished)
            points += [
                _measure(bench, workload, options.finished)
                for workload in BESIDE_FINISHED
                if workload in chosen
            ]
    parts = [_facts(machine, options.workers), _table(points), _verdict(points)]
    sys.stdout.write("\n\n".join(parts) + "\n")
    if options.json:
        options.json.write_text(json.dumps([asdict(p) for p in points], indent=1), "utf-8")
    if options.picture:
        curve = [p for p in points if p.workload in GROWING and not p.finished]
        draw(
            options.picture,
            [(p.workload.agents, p.per_agent_ms(application_cpu_s(p.sample))) for p in curve],
        )
    if options.markdown:
        if options.picture:
            place = os.path.relpath(options.picture, options.markdown.parent)
            parts.append(f"![{CAPTION}]({place})\n\n{CAPTION}")
        write_into(options.markdown, "\n\n".join(parts), mark=MARK)


def _measure(bench: Bench, workload: Workload, finished: int) -> Point:
    sample = bench.measure(AGENTCHORD, workload)
    with bench.counters.statements() as counted:
        bench.measure(AGENTCHORD, workload)
    say(f"  {workload.name:<18} {sample.wall_s:7.2f} s")
    return Point(workload=workload, finished=finished, sample=sample, statements=counted.total)


def _facts(machine: dict[str, str], workers: int) -> str:
    return (
        f"{machine['date']}, {machine['cores']} cores, Python {machine['python']}, Postgres "
        f"{machine['postgres']}, Redis {machine['redis']}; {workers} worker processes; the "
        f"provider answers at once. CPU of the application, of Postgres and of Redis in "
        f"milliseconds per agent."
    )


def _table(points: Sequence[Point]) -> str:
    return table(HEADERS, [_row(point) for point in points])


def _row(point: Point) -> list[str]:
    sample, agents = point.sample, point.workload.agents
    among = f", {point.finished:,} finished runs in the tables" if point.finished else ""
    return [
        f"{point.workload.name}{among}",
        f"{agents:,}",
        f"{sample.wall_s:.2f}",
        f"{point.per_agent_ms(sample.wall_s):.2f}",
        f"{point.per_agent_ms(application_cpu_s(sample)):.2f}",
        f"{point.per_agent_ms(sample.cpu_s['Postgres']):.2f}",
        f"{point.per_agent_ms(sample.cpu_s['Redis']):.2f}",
        f"{point.statements / agents:.2f}",
        f"{sample.accepted_s:.2f}",
        f"{sample.peak_mb:.0f}",
    ]


def _verdict(points: Sequence[Point]) -> str:
    """Cost of an agent of the largest run divided by one of the smallest."""
    curve = [point for point in points if point.workload in GROWING and not point.finished]
    costs = [point.per_agent_ms(application_cpu_s(point.sample)) for point in curve]
    return (
        f"An agent of the largest run takes {costs[-1] / costs[0]:.2f} times the application's CPU "
        f"of one of the smallest."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.scale",
        description="AgentChord with many agents and many runs. The table goes to standard "
        "output, progress to standard error.",
    )
    parser.add_argument("--workers", type=int, default=2, help="worker processes (2)")
    parser.add_argument("--most", type=int, default=10_000, help="leave out larger workloads")
    parser.add_argument(
        "--finished", type=int, default=FINISHED, help=f"finished runs in the tables ({FINISHED})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the table there")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the curve there (SVG)")
    return parser.parse_args()


if __name__ == "__main__":
    run(main, _arguments())

"""`python -m tests.benchmarks`: run the benchmark and print its tables."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.at_rest import measure_at_rest
from tests.benchmarks.bench import Bench, Sample, open_bench
from tests.benchmarks.contenders import BenchmarkFailed
from tests.benchmarks.entrants import AGENTCHORD, OWN, PEERS, Entrant
from tests.benchmarks.machine import describe
from tests.benchmarks.profiling import find_profiler, record, summary
from tests.benchmarks.program import run
from tests.benchmarks.results import Results
from tests.benchmarks.tables import MARK, PEERS_MARK, block, peers_block
from tests.benchmarks.workloads import WORKLOADS, Workload
from tests.support.markdown import write_into
from tests.support.terminal import say

PROFILED_RUNS = 5


def main(options: argparse.Namespace) -> None:
    """Measure, and write the results to the files that the options name."""
    profiler = find_profiler() if options.profile else None
    entrants = _entrants(options)
    with (
        tempfile.TemporaryDirectory(prefix="agentchord-bench-") as folder,
        open_bench(Path(folder), entrants, workers=options.workers) as bench,
    ):
        results = Results(
            machine=describe(Path(folder), bench.stack.urls),
            workloads=options.only,
            rounds=options.rounds,
            workers=options.workers,
            idle_mb={name: found.idle_mb for name, found in bench.applications.items()},
        )
        _measure(bench, results)
        if not options.peers:
            _count_statements(bench, results)
            say("one agent at a time")
            results.at_rest = measure_at_rest(bench)
        if profiler:
            _profile(bench, options.only, profiler, options.profile)
    text = peers_block(results) if options.peers else block(results)
    sys.stdout.write(text + "\n")
    if options.json:
        options.json.write_text(json.dumps(results.as_json(), indent=1), encoding="utf-8")
    if options.markdown:
        write_into(options.markdown, text, mark=PEERS_MARK if options.peers else MARK)


def _entrants(options: argparse.Namespace) -> list[Entrant]:
    """The requested and installed entrants; always with AgentChord, the base of comparison."""
    found = list(OWN)
    for peer in PEERS if options.peers else ():
        if peer.installed:
            found.append(peer)
        else:
            say(f"{peer.name} is not installed, and left out")
    left_out = {name.casefold() for name in options.without} - {AGENTCHORD.casefold()}
    return [entrant for entrant in found if entrant.name.casefold() not in left_out]


def _measure(bench: Bench, results: Results) -> None:
    """The rounds, after a warm-up."""
    _warm_up(bench, results)
    names = results.contenders
    for number in range(1, results.rounds + 1):
        say(f"round {number} of {results.rounds}")
        # Who comes first changes, so that nobody always finds the machine as the same one left it.
        first = number % len(names)
        samples = [
            _shown(bench.measure(name, workload))
            for workload in results.workloads
            for name in (*names[first:], *names[:first])
        ]
        _check_equal_work(samples)
        results.samples += samples


def _warm_up(bench: Bench, results: Results) -> None:
    """Every workload once; a peer that does not get through it is left out, with a word."""
    say("warm-up")
    for name in results.contenders:
        try:
            for workload in results.workloads:
                _shown(bench.measure(name, workload))
        except (BenchmarkFailed, AssertionError) as failure:
            if name not in {peer.name for peer in PEERS}:
                raise
            say(f"{name} is left out: {failure}")
            del results.idle_mb[name]


def _count_statements(bench: Bench, results: Results) -> None:
    """One more round of AgentChord, in which Postgres writes down what it does."""
    say("counting statements")
    for workload in results.workloads:
        with bench.counters.statements() as counted:
            bench.measure(AGENTCHORD, workload)
        results.statements[workload.name] = counted


def _check_equal_work(samples: Sequence[Sample]) -> None:
    tokens = {(sample.workload, sample.tokens) for sample in samples}
    if len(tokens) > len({sample.workload for sample in samples}):
        raise BenchmarkFailed(f"the contenders did not use the same tokens: {sorted(tokens)}")


def _profile(bench: Bench, workloads: Sequence[Workload], profiler: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for workload in workloads:

        def work(workload: Workload = workload) -> None:
            for _ in range(PROFILED_RUNS):
                bench.run(AGENTCHORD, workload)

        for role, processes in bench.applications[AGENTCHORD].roles.items():
            file = folder / f"{workload.name}-{role}.txt"
            say(f"profile of {file.stem}")
            record(profiler, processes[0].pid, file, work)
            say(summary(file))


def _shown(sample: Sample) -> Sample:
    say(f"  {sample.workload} {sample.contender:<14} {sample.wall_s:6.2f} s")
    return sample


def _workloads(text: str) -> list[Workload]:
    try:
        return [WORKLOADS[name.strip().upper()] for name in text.split(",")]
    except KeyError as error:
        raise argparse.ArgumentTypeError(
            f"there is no workload {error}; there are {', '.join(WORKLOADS)}"
        ) from error


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="AgentChord's whole stack beside plain asyncio and raw Celery, on the "
        "simulator. The tables go to standard output, progress to standard error.",
    )
    parser.add_argument("--rounds", type=_positive, default=3, help="measured rounds (3)")
    parser.add_argument(
        "--only",
        type=_workloads,
        default=list(WORKLOADS.values()),
        metavar="W1,W3",
        help="only these workloads",
    )
    parser.add_argument("--workers", type=_positive, default=2, help="worker processes (2)")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="also those that scripts/peers has installed: LangGraph, DBOS, Prefect",
    )
    parser.add_argument(
        "--without",
        type=lambda text: [name.strip() for name in text.split(",")],
        default=[],
        metavar="NAME,NAME",
        help="leave these out",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="put the tables into this file, in place of those that are there",
    )
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="FOLDER",
        help="afterwards, record client, one worker and scheduler with py-spy into this folder",
    )
    return parser.parse_args()


if __name__ == "__main__":
    run(main, _arguments())

"""`python -m tests.benchmarks.footprint`: start times and memory."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import psutil

from app.domain.agent import PROVIDERS
from app.domain.protocols import PROTOCOLS
from tests.benchmarks.bench import Bench, open_bench
from tests.benchmarks.contenders import BenchmarkFailed
from tests.benchmarks.entrants import AGENTCHORD, WORKER_THREADS, entrant_named
from tests.benchmarks.machine import describe
from tests.benchmarks.processes import MB, Observation, resident_mb, shares_mb, wait_for_rest
from tests.benchmarks.program import run
from tests.benchmarks.tables import table
from tests.benchmarks.workloads import WORKLOADS
from tests.support.markdown import write_into
from tests.support.memory import memory_by_kind
from tests.support.stack import Stack, search_path

MARK = "footprint: written by `make footprint`"
#: Agents in flight at once, and the duration of their calls.
IN_FLIGHT = replace(WORKLOADS["W4"], latency_s=3.0)


def main(options: argparse.Namespace) -> None:
    """Measure, print, and write the results if the options ask for it."""
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="agentchord-foot-")))
        # Another stack would have a share in the memory of the libraries.
        up = _up(folder, options.rounds)
        entrants = [entrant_named(AGENTCHORD)]
        bench = parts.enter_context(open_bench(folder / "bench", entrants, workers=2))
        stack = bench.stack
        rows = [
            _seconds("`agentchord --help`", lambda: _help(stack), options.rounds),
            _seconds("`import app`", lambda: _import(stack), options.rounds),
            _seconds(
                "`import` of a worker",
                lambda: _import_worker(stack),
                options.rounds,
            ),
            _seconds("a forked worker is ready", lambda: _ready_s(stack), options.rounds),
            *up,
            *_memory(bench),
        ]
        facts = describe(folder, stack.urls)
    head = f"{facts['date']}, {facts['cores']} cores; times are medians of {options.rounds}."
    text = "\n\n".join([head, table(("what", "median", "least", "most"), rows)])
    sys.stdout.write(text + "\n")
    if options.markdown:
        write_into(options.markdown, text, mark=MARK)


def _seconds(title: str, act: Callable[[], float], rounds: int) -> Sequence[str]:
    act()  # the first start reads the files from the disk
    times_s = [act() for _ in range(rounds)]
    return (title, *(f"{value:.2f} s" for value in (median(times_s), min(times_s), max(times_s))))


def _help(stack: Stack) -> float:
    return _run_s(stack, "-m", "app.cli", "--help")


def _import(stack: Stack) -> float:
    return _run_s(stack, "-c", "import app")


def _import_worker(stack: Stack) -> float:
    program = f"from app.local_stack.forking import load; load({sorted(PROTOCOLS)})"
    return _run_s(stack, "-c", program)


def _up(folder: Path, rounds: int) -> list[Sequence[str]]:
    """`agentchord up --workers 2` in a new and in a used home, and the memory of all it starts."""
    homes = [folder / f"home{number}" for number in range(rounds + 1)]
    new, used = [], []
    memory: list[dict[str, float]] = []
    for home in homes:
        with _ready_up(home) as (seconds, _, _):
            new.append(seconds)
        with _ready_up(home) as (seconds, process, pids):
            used.append(seconds)
            wait_for_rest({"stack": [process]})
            memory.append(memory_by_kind(process, pids))
    kinds = [
        _range(f"of this: {kind}", [found[kind] for found in memory[1:]], "MB")
        for kind in sorted(memory[-1], key=memory[-1].__getitem__, reverse=True)
    ]
    return [
        _range("`agentchord up --workers 2` is ready in a new home", new[1:], "s"),
        _range("the same in a used home", used[1:], "s"),
        _range(
            "memory of its processes at rest", [sum(each.values()) for each in memory[1:]], "MB"
        ),
        *kinds,
    ]


@contextmanager
def _ready_up(home: Path) -> Iterator[tuple[float, psutil.Process, dict[str, int]]]:
    """Run a stack that is ready; yield the seconds until then, its process, and its workers."""
    keys = {"OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none", "PYTHONPATH": search_path()}
    began_s = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "app.cli", "up", "--workers", "2", "--json"],
        env=os.environ | keys | {"AGENTCHORD_HOME": str(home)},
        stdout=subprocess.PIPE,
    ) as up:
        assert up.stdout is not None
        line = up.stdout.readline()
        seconds = time.perf_counter() - began_s
        if not line:
            raise BenchmarkFailed("`agentchord up` did not start")
        yield seconds, psutil.Process(up.pid), json.loads(line)["pids"]
        up.terminate()


def _run_s(stack: Stack, *arguments: str) -> float:
    began_s = time.perf_counter()
    done = stack.python(*arguments)
    if done.returncode != 0:
        raise BenchmarkFailed(done.stderr)
    return time.perf_counter() - began_s


def _ready_s(stack: Stack) -> float:
    began_s = time.perf_counter()
    worker = stack.start_worker(*PROVIDERS, name="footprint", threads=WORKER_THREADS)
    ready_s = time.perf_counter() - began_s
    try:
        worker.stop()
    except TimeoutError as error:
        raise BenchmarkFailed("a worker did not end") from error
    return ready_s


def _memory(bench: Bench) -> list[Sequence[str]]:
    """Memory of an idle worker, and of each agent in flight."""
    workers = bench.applications[AGENTCHORD].roles["workers"]
    own = [_unshared_mb(process) for process in workers]
    bench.measure(AGENTCHORD, WORKLOADS["W2"])
    at_rest = shares_mb(workers)
    with Observation({"workers": workers}, workers) as seen:
        bench.run(AGENTCHORD, IN_FLIGHT)
    added_kb = 1000 * (seen.peak_mb - at_rest) / IN_FLIGHT.agents
    resident = [resident_mb([process]) for process in workers]
    return [
        _range("memory of a worker at rest, its own", own, "MB"),
        _range("the same, with what it shares with others, after a run", resident, "MB"),
        ("memory of an agent in flight, in its worker", f"{added_kb:.0f} kB", "", ""),
    ]


def _unshared_mb(process: psutil.Process) -> float:
    return float(process.memory_full_info().uss) / MB


def _range(title: str, values: Sequence[float], unit: str) -> Sequence[str]:
    digits = 1 if unit == "s" else 0
    parts = (median(values), min(values), max(values))
    return (title, *(f"{value:.{digits}f} {unit}" for value in parts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.footprint")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (5)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the table there")
    run(main, parser.parse_args())

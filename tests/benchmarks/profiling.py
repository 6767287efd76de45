"""Profiles: py-spy's recordings of a process, and their summaries."""

import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.contenders import BenchmarkFailed
from tests.support.waiting import wait_until

# py-spy stops the process for each sample, and a worker has many threads.
SAMPLES_PER_S = 100
# Only threads that hold the interpreter's lock: a thread that waits in C looks busy from outside.
OPTIONS = ("--gil", "--rate", str(SAMPLES_PER_S), "--format", "raw")
END_S = 30.0
SHOWN = 25
FRAME = re.compile(r"(?P<function>.*) \((?P<file>[^:)]*)(?::\d+)?\)$")


def find_profiler() -> str:
    """Path of py-spy.

    Raises:
        BenchmarkFailed: If it is not installed.
    """
    beside = str(Path(sys.executable).parent)
    if path := shutil.which("py-spy", path=beside) or shutil.which("py-spy"):
        return path
    raise BenchmarkFailed("--profile needs py-spy, which is not installed: pip install py-spy")


def record(profiler: str, pid: int, file: Path, work: Callable[[], None]) -> None:
    """Record a process while ``work`` runs.

    Args:
        profiler: Path of py-spy.
        pid: The process.
        file: Gets one line per stack, with the samples that found it.
        work: Function to run meanwhile.

    Raises:
        BenchmarkFailed: If nothing was recorded.
    """
    file.unlink(missing_ok=True)
    log = file.with_suffix(".log")
    command = [profiler, "record", *OPTIONS, "--pid", str(pid), "--output", str(file)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_until(
                lambda: "Sampling process" in log.read_text() or process.poll() is not None,
                what="py-spy to start",
            )
            work()
            process.send_signal(signal.SIGINT)
            process.wait(END_S)
        finally:
            process.kill()
    if not file.exists():
        raise BenchmarkFailed(f"py-spy has recorded nothing: {log.read_text().strip()}")


def summary(file: Path) -> str:
    """Sum the samples of a recording by package, by function, and by AgentChord's function."""
    packages: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    ours: Counter[str] = Counter()
    total = 0
    for line in file.read_text(encoding="utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_file_and_function(frame) for frame in stack.split(";")]
        total += int(count)
        packages[frames[-1].split("/")[0]] += int(count)
        functions[frames[-1]] += int(count)
        for frame in {frame for frame in frames if frame.startswith(("app/", "workers/"))}:
            ours[frame] += int(count)
    return "\n".join(
        [
            f"{file.name}: {total} samples",
            *_shares("by package, itself", packages, total),
            *_shares("by function, itself", functions, total),
            *_shares("by function of ours, with all that it calls", ours, total),
        ]
    )


def _shares(title: str, counts: Counter[str], total: int) -> list[str]:
    lines = [f"  {count / total:6.1%}  {name}" for name, count in counts.most_common(SHOWN)]
    return [f" {title}:", *lines]


def _file_and_function(frame: str) -> str:
    match = FRAME.match(frame)
    return f"{match['file']} {match['function']}" if match else frame

"""Who is measured: a process that waits, warm, for the name of a workload and runs it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

import psutil

from tests.benchmarks.workloads import WORKLOADS, Workload
from tests.stack import ROOT, Stack

END_S = 20.0


class BenchmarkFailed(Exception):
    """A figure would be worth nothing: something did not run, or not to the end."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a contender says of one workload.

    Attributes:
        wall_s: Seconds until the last agent was known to have ended.
        run_ids: Runs it made, if what it made has ids.
    """

    wall_s: float
    run_ids: list[str] = field(default_factory=list)


class Contender:
    """A contender's own process, seen from the benchmark.

    Args:
        name: What the table calls it.
        module: Module of this package that calls ``serve``.
        stack: Where its requests go.
    """

    def __init__(self, name: str, module: str, stack: Stack) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.benchmarks.{module}"],
            cwd=stack.folder,
            env={**os.environ, **stack.environment, "PYTHONPATH": _search_path()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.process = psutil.Process(self._process.pid)

    def __enter__(self) -> Self:
        """Wait until it is ready."""
        self._read()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=END_S)
        self._process.kill()

    def run(self, workload: Workload) -> Answer:
        """Have it run a workload.

        Raises:
            BenchmarkFailed: If it fails; what it said is on standard error.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{workload.name}\n")
        self._process.stdin.flush()
        return Answer(**self._read())

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkFailed(f"the process of {self.name!r} has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve(run: Callable[[Workload], Answer]) -> None:
    """Be a contender: run what standard input names, one line each, until it is closed."""
    # Whatever prints to standard output must not get between the answers.
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        answers.write("{}\n")
        for line in sys.stdin:
            answers.write(json.dumps(asdict(run(WORKLOADS[line.strip()]))) + "\n")


def _search_path() -> str:
    inherited = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(part for part in (inherited, str(ROOT)) if part)

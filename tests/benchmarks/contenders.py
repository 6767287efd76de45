"""A contender: a warm process that waits for a workload and runs it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from tests.benchmarks.processes import Roles
from tests.benchmarks.protocol import Answer, workload_line
from tests.benchmarks.workloads import Workload
from tests.support.stack import Stack, search_path

END_S = 20.0
#: The role of the contender's own process.
CLIENT = "client"


class BenchmarkFailed(Exception):
    """A figure would be wrong, because a part of the work was not done."""


class Contender:
    """A contender's own process, seen from the benchmark.

    Args:
        name: Its name in the tables.
        module: Module of this package that calls ``serve``.
        stack: Stack that gets its requests.
        python: Interpreter of its environment; None takes this one's.
        variables: Environment variables of its own.
    """

    def __init__(
        self,
        name: str,
        module: str,
        stack: Stack,
        *,
        python: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.roles: Roles = {}
        self._process = subprocess.Popen(
            [python or sys.executable, "-m", f"tests.benchmarks.{module}"],
            cwd=stack.folder,
            env={
                **os.environ,
                **stack.environment,
                "PYTHONPATH": search_path(),
                **(variables or {}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        """Wait until it and the processes that it starts are ready; they become its ``roles``."""
        try:
            started = self._read()
        except BaseException:
            self._process.kill()
            raise
        self.roles = {
            CLIENT: [psutil.Process(self._process.pid)],
            **{role: [psutil.Process(pid) for pid in pids] for role, pids in started.items()},
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it; it ends what it has started."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=END_S)
        self._process.kill()
        for process in (process for group in self.roles.values() for process in group):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def run(self, workload: Workload) -> Answer:
        """Have it run a workload.

        Raises:
            BenchmarkFailed: If it fails; its output is on standard error.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(workload_line(workload))
        self._process.stdin.flush()
        return Answer(**self._read())

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkFailed(f"the process of {self.name!r} has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

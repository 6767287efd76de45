"""The protocol between the benchmark and a contender: a workload and an answer, as lines.

Peers import this in environments of their own, where nothing of AgentChord is installed.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from tests.benchmarks.workloads import Workload

#: Three times of one run on the machine's monotonic clock: when the run was asked for, when it was
#: accepted (the same time, where this is no step of its own), and when its end was known.
Times = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A contender's answer to one workload.

    Attributes:
        wall_s: Seconds until the last agent was known to have ended.
        accepted_s: Seconds until the last run was accepted, where that is a step of its own.
        run_ids: Ids of its runs, if the benchmark looks them up.
        times_s: Times of each run, in the order of ``run_ids``; empty if not measured.
    """

    wall_s: float
    accepted_s: float = 0.0
    run_ids: list[str] = field(default_factory=list)
    times_s: list[Times] = field(default_factory=list)


def workload_line(workload: Workload) -> str:
    """A workload in the form that a contender reads."""
    return json.dumps(asdict(workload)) + "\n"


def serve(
    run: Callable[[Workload], Answer], *, processes: Mapping[str, Sequence[int]] | None = None
) -> None:
    """Be a contender: run the workloads of standard input, one per line, until it is closed.

    Args:
        run: Runs a workload.
        processes: Ids of the processes that this one has started, by role.
    """
    # Other output to standard output must not mix with the answers.
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        answers.write(json.dumps(processes or {}) + "\n")
        for line in sys.stdin:
            answers.write(json.dumps(asdict(run(Workload(**json.loads(line))))) + "\n")

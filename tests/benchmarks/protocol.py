"""How the benchmark and a contender's process talk: a workload to it, an answer back, in lines.

Peers import this in environments of their own, where nothing of AgentChord is installed.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from tests.benchmarks.workloads import Workload


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a contender says of one workload.

    Attributes:
        wall_s: Seconds until the last agent was known to have ended.
        accepted_s: Seconds until the last run was accepted, where that is a step of its own.
        run_ids: Runs it made, if what it made has ids that the benchmark looks up.
    """

    wall_s: float
    accepted_s: float = 0.0
    run_ids: list[str] = field(default_factory=list)


def workload_line(workload: Workload) -> str:
    """A workload as a contender reads it."""
    return json.dumps(asdict(workload)) + "\n"


def serve(
    run: Callable[[Workload], Answer], *, processes: Mapping[str, Sequence[int]] | None = None
) -> None:
    """Be a contender: run what standard input says, one line each, until it is closed.

    Args:
        run: Runs a workload.
        processes: Ids of the processes that this one has started, by role.
    """
    # Whatever prints to standard output must not get between the answers.
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        answers.write(json.dumps(processes or {}) + "\n")
        for line in sys.stdin:
            answers.write(json.dumps(asdict(run(Workload(**json.loads(line))))) + "\n")

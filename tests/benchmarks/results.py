"""Summaries of measurements: medians, spreads, ratios."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from tests.benchmarks.bench import Sample
from tests.benchmarks.counters import Statements
from tests.benchmarks.entrants import AGENTCHORD
from tests.benchmarks.workloads import Workload

#: The moments of a run by name, in seconds on one clock.
Moments = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over all rounds."""

    median: float
    low: float
    high: float


@dataclass(kw_only=True)
class Results:
    """All results of one execution of the benchmark.

    Attributes:
        machine: Facts of the machine, by name.
        workloads: The workloads.
        rounds: Measured rounds.
        workers: Worker processes.
        idle_mb: Memory by contender, before the first run.
        samples: Every measurement, in order.
        statements: Postgres's statements by workload, counted in a round of their own.
        at_rest: Moments of each run that came alone to an idle stack; empty if not measured.
    """

    machine: dict[str, str]
    workloads: Sequence[Workload]
    rounds: int
    workers: int
    idle_mb: dict[str, float]
    samples: list[Sample] = field(default_factory=list)
    statements: dict[str, Statements] = field(default_factory=dict)
    at_rest: Sequence[Moments] = ()

    def of(self, contender: str, workload: Workload) -> list[Sample]:
        """The measurements of one contender and one workload, by round."""
        return [
            sample
            for sample in self.samples
            if (sample.contender, sample.workload) == (contender, workload.name)
        ]

    def spread(
        self, contender: str, workload: Workload, figure: Callable[[Sample], float]
    ) -> Spread:
        """Median, least and most of a figure."""
        values = [figure(sample) for sample in self.of(contender, workload)]
        return Spread(median=median(values), low=min(values), high=max(values))

    def latencies_s(self, contender: str, workload: Workload) -> list[float]:
        """Seconds of each run of all rounds, from the enqueue until its end was known."""
        return [seconds for one in self.of(contender, workload) for seconds in one.latencies_s]

    @property
    def contenders(self) -> list[str]:
        """Names of the contenders, AgentChord first."""
        return list(self.idle_mb)

    @property
    def others(self) -> list[str]:
        """All but AgentChord."""
        return [name for name in self.contenders if name != AGENTCHORD]

    def ratio(self, workload: Workload, figure: Callable[[Sample], float], *, to: str) -> float:
        """Median over the rounds of AgentChord's figure by another's in the same round."""
        pairs = zip(self.of(AGENTCHORD, workload), self.of(to, workload), strict=True)
        return median(figure(own) / figure(other) for own, other in pairs)

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return {
            "machine": self.machine,
            "rounds": self.rounds,
            "workers": self.workers,
            "idle_mb": self.idle_mb,
            "workloads": [asdict(workload) for workload in self.workloads],
            "samples": [asdict(sample) for sample in self.samples],
            "at_rest": list(self.at_rest),
            "statements": {name: asdict(found) for name, found in self.statements.items()},
        }


def percentile(values: Sequence[float], share: int) -> float:
    """The least of the values that at least ``share`` percent of the values do not exceed."""
    order = sorted(values)
    return order[max(-(-len(order) * share // 100), 1) - 1]


def application_cpu_s(sample: Sample) -> float:
    """CPU of a contender's processes without the servers."""
    return sum(used for role, used in sample.cpu_s.items() if role not in SERVERS)


SERVERS = ("Postgres", "Redis", "simulator")

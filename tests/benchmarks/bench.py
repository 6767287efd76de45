"""One stack, and the measurements on it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.embedded import Services
from app.simulator import run_in_process
from app.storage.schema import upgrade
from tests.benchmarks.counters import Counters, Counts
from tests.benchmarks.entrants import AGENTCHORD, Application, Entrant, open_entrant
from tests.benchmarks.processes import Observation, Roles, wait_for_rest
from tests.benchmarks.protocol import Answer, Times
from tests.benchmarks.verification import verify_requests, verify_runs
from tests.benchmarks.workloads import Workload
from tests.support.embedded_home import server_ids
from tests.support.stack import Stack

# Every limit is set, and none is reached.
CONFIGURATION = """\
rate_limits:
  openai:
    default:
      requests_per_minute: 100_000_000
      requests_per_hour: 1_000_000_000
      requests_per_day: 10_000_000_000
      tokens_per_minute: 10_000_000_000
      concurrent_requests: 100_000
      burst: 1_000_000
engine:
  max_concurrent_workflows: 100
"""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measurement of one contender.

    Attributes:
        contender: Its name.
        workload: Name of the workload.
        wall_s: Seconds from the first enqueue until the last agent was known to have ended.
        accepted_s: Seconds of these until the last run was accepted.
        cpu_s: CPU seconds by role, until all processes were idle again.
        others_share: Share of the machine's cores that other processes used meanwhile.
        peak_mb: Most memory that all of its processes had together.
        counts: Work of Redis and Postgres.
        tokens: Input and output tokens that the simulator served.
        run_ids: Ids of the runs, if they have any.
        times_s: Times of each run, in the order of ``run_ids``; empty if not measured.
    """

    contender: str
    workload: str
    wall_s: float
    accepted_s: float
    cpu_s: dict[str, float]
    others_share: float
    peak_mb: float
    counts: Counts
    tokens: tuple[int, int]
    run_ids: Sequence[str] = ()
    times_s: Sequence[Times] = ()

    @property
    def latencies_s(self) -> list[float]:
        """Seconds of each run from the enqueue until its end was known."""
        return [known_s - called_s for called_s, _, known_s in self.times_s]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A stack that is ready, and the contenders on it.

    Attributes:
        stack: Services, simulator and workers.
        applications: By name of the contender.
        servers: Processes outside the application, by role.
        counters: Counters of Postgres and Redis.
    """

    stack: Stack
    applications: Mapping[str, Application]
    servers: Roles
    counters: Counters

    def run(self, name: str, workload: Workload) -> Answer:
        """Have one contender run one workload, on a reset simulator."""
        self.stack.simulator.reset()
        self.stack.simulator.configure(latency_s=workload.latency_s)
        return self.applications[name].contender.run(workload)

    def measure(self, name: str, workload: Workload) -> Sample:
        """Run one workload, measured and verified.

        Raises:
            BenchmarkFailed: If not all of the work was done, or the ledger is not exact.
        """
        application = self.applications[name]
        roles: Roles = {**application.roles, **self.servers}
        before = self.counters.read()
        with Observation(roles, application.watched) as seen:
            answer = self.run(name, workload)
            wait_for_rest(application.roles)
        counts = self.counters.read().since(before)
        served = self.stack.simulator.ledger()
        if name == AGENTCHORD:
            verify_runs(workload, self.stack, answer.run_ids, served)
        tokens = verify_requests(workload, served)
        return Sample(
            contender=name,
            workload=workload.name,
            wall_s=answer.wall_s,
            accepted_s=answer.accepted_s,
            cpu_s=seen.cpu_s,
            others_share=seen.others_share,
            peak_mb=seen.peak_mb,
            counts=counts,
            tokens=tokens,
            run_ids=answer.run_ids,
            times_s=answer.times_s,
        )


@contextmanager
def open_bench(
    folder: Path, entrants: Sequence[Entrant], *, workers: int, **variables: str
) -> Iterator[Bench]:
    """Start everything, fresh, and end it afterwards.

    Args:
        folder: Folder of all files.
        entrants: The entrants.
        workers: Worker processes of entrants with workers; AgentChord's serve every queue.
        **variables: Environment of AgentChord's processes, beside the usual one.
    """
    folder.mkdir(exist_ok=True)
    with ExitStack() as parts:
        urls = parts.enter_context(Services(folder / "services"))
        upgrade(urls.database_url)
        simulator = parts.enter_context(run_in_process())
        configuration = folder / "benchmark.yaml"
        configuration.write_text(CONFIGURATION, encoding="utf-8")
        stack = Stack(
            urls=urls,
            simulator=simulator,
            folder=folder,
            overrides={"AGENTCHORD_CONFIG": str(configuration), **variables},
        )
        applications = {
            entrant.name: parts.enter_context(open_entrant(entrant, stack, workers=workers))
            for entrant in entrants
        }
        postgres, redis = map(psutil.Process, server_ids(urls))
        counters = Counters(urls, folder / "services" / "log" / "postgres.log")
        parts.callback(counters.close)
        for application in applications.values():
            wait_for_rest(application.roles)
        yield Bench(
            stack=stack,
            applications=applications,
            servers={
                "Postgres": [postgres],
                "Redis": [redis],
                "simulator": [psutil.Process(simulator.process.pid)],
            },
            counters=counters,
        )

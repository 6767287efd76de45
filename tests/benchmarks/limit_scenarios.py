"""Whether limits are kept and used: the whole stack against a simulator that enforces them.

The simulator's arrivals count: the requests that it refused, and the share of its limit that was
used between the first and the last arrival.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from app.domain.agent import PROVIDERS, Agent
from app.domain.workflow import Workflow
from app.embedded import Services
from app.local_stack.stack import SCHEDULER, SCHEDULER_THREADS
from app.simulator import run_in_process
from app.storage.schema import upgrade
from tests.support.stack import Stack
from tests.support.waiting import wait_until

THROTTLED = 429
LATENCY_S = 0.05
THREADS = 32
TIMEOUT_S = 900.0
PER_MINUTE = 60.0

#: Number of an agent -> tokens of its prompt and of its answer.
Sizes = Callable[[int], tuple[int, int]]


def alike(_: int) -> tuple[int, int]:
    """Agents of one size."""
    return 30, 10


def spread_100x(number: int) -> tuple[int, int]:
    """Prompts and answers whose sizes differ by a factor of up to 100, in no order."""
    share = (number * 37 % 100) / 99
    return round(30 * 100**share), round(10 * 100 ** (1 - share))


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """The server's limits, the cluster's limits, and the agents.

    Attributes:
        name: Short name, part of its models' names.
        title: Its meaning.
        provider: ``openai`` or ``anthropic``.
        server: Limits that the simulator enforces.
        believed: Limits in the configuration, where they differ.
        sizes: Sizes of the agents.
        capped: Whether they set max_tokens.
        agents: Number of agents.
    """

    name: str
    title: str
    provider: str = "openai"
    server: Mapping[str, Any]
    believed: Mapping[str, Any] = field(default_factory=dict)
    sizes: Sizes = alike
    capped: bool = True
    agents: int = 300

    def model(self, processes: int) -> str:
        """A model of its own for each measurement: a bucket without earlier use."""
        return f"sim-{self.name}-{processes}"

    def workflow(self, processes: int, *, agents: int | None = None) -> Workflow:
        """A level of this number of agents."""
        count = agents or self.agents
        return Workflow(
            name=f"limits {self.name} {count}",
            agents=[self._agent(number, processes) for number in range(count)],
            max_parallel_agents=count,
        )

    def _agent(self, number: int, processes: int) -> Agent:
        prompt_tokens, output_tokens = self.sizes(number)
        prompt = f"{number:05} [[sim:output_tokens={output_tokens}]] "
        return Agent(
            name=f"agent{number:05}",
            prompt_template=prompt.ljust(4 * prompt_tokens - 16, "x"),
            llm_config={
                "provider": self.provider,
                "model": self.model(processes),
                **({"max_tokens": output_tokens} if self.capped else {}),
            },
        )


SCENARIOS = (
    Scenario(
        name="bucket",
        title="600 requests a minute, burst 10",
        server={"requests_per_minute": 600, "burst": 10},
    ),
    Scenario(
        name="paced",
        title="600 requests a minute, burst 1",
        server={"requests_per_minute": 600, "burst": 1},
    ),
    Scenario(
        name="window",
        title="100 requests in any 60 s",
        server={"requests_per_minute": 100, "enforcement": "window"},
    ),
    Scenario(
        name="tokens",
        title="60,000 tokens a minute, sizes 100x apart",
        server={"tokens_per_minute": 60_000},
        sizes=spread_100x,
    ),
    Scenario(
        name="apart",
        title="60,000 input and 20,000 output tokens a minute, sizes 100x apart",
        provider="anthropic",
        server={"input_tokens_per_minute": 60_000, "output_tokens_per_minute": 20_000},
        sizes=spread_100x,
    ),
    Scenario(
        name="uncapped",
        title="40,000 output tokens a minute, agents without max_tokens",
        provider="anthropic",
        server={"output_tokens_per_minute": 40_000},
        sizes=lambda number: (30, 50 + number * 37 % 450),
        capped=False,
    ),
    Scenario(
        name="twice",
        title="600 requests a minute, configured as 1,200",
        server={"requests_per_minute": 600, "burst": 10},
        believed={"requests_per_minute": 1200, "burst": 20},
    ),
    Scenario(
        name="twice_tokens",
        title="60,000 tokens a minute, configured as 120,000",
        server={"tokens_per_minute": 60_000},
        believed={"tokens_per_minute": 120_000},
        sizes=spread_100x,
    ),
)

#: The bucket of the runs of ``measure_fairness``.
FAIRNESS = Scenario(
    name="fairness",
    title="3 agents behind 3,000",
    server={"requests_per_minute": 600, "burst": 10},
)
SMALL_RUN, LARGE_RUN, FAIRNESS_ROUNDS = 3, 3000, 3


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a scenario.

    Attributes:
        answered: Agents that were answered.
        throttled_s: Times of refusals with status 429, from the first arrival on.
        seconds: From the first arrival to the last that was accepted.
        used: Share of the limit that was used, by the meter that was used most.
        meter: Its name.
    """

    answered: int
    throttled_s: list[float]
    seconds: float
    used: float
    meter: str


def outcome_of(scenario: Scenario, records: Sequence[Mapping[str, Any]]) -> Outcome:
    """Compute a scenario's result from the simulator's ledger."""
    accepted = [record for record in records if record["status"] == 200]
    arrivals = sorted(record["arrived_s"] for record in accepted)
    seconds = arrivals[-1] - arrivals[0]
    used = {}
    for meter, amount in _METERS.items():
        limit = scenario.server.get(meter)
        if limit is not None:
            is_bucket = meter == "requests_per_minute" and "burst" in scenario.server
            burst = scenario.server["burst"] if is_bucket else limit
            total = sum(amount(record) for record in accepted)
            used[meter] = (total - burst) / (limit / PER_MINUTE * seconds)
    meter = max(used, key=lambda name: used[name])
    return Outcome(
        answered=len(accepted),
        throttled_s=[
            record["arrived_s"] - arrivals[0] for record in records if record["status"] == THROTTLED
        ],
        seconds=seconds,
        used=used[meter],
        meter=meter,
    )


_METERS: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "requests_per_minute": lambda _: 1,
    "tokens_per_minute": lambda record: max(record["input_tokens"], record["output_tokens"]),
    "input_tokens_per_minute": lambda record: record["input_tokens"] - record["cached_tokens"],
    "output_tokens_per_minute": lambda record: record["output_tokens"],
}


@contextmanager
def limited_stack(
    folder: Path, scenarios: Sequence[Scenario], counts: Sequence[int]
) -> Iterator[Stack]:
    """A stack without workers whose simulator enforces all scenarios."""
    limits = [
        {"provider": scenario.provider, "model": scenario.model(count), **scenario.server}
        for scenario in scenarios
        for count in counts
    ]
    believed: dict[str, Any] = {}
    for scenario in scenarios:
        models = believed.setdefault(scenario.provider, {"default": {}, "models": {}})["models"]
        for count in counts:
            models[scenario.model(count)] = {**scenario.server, **scenario.believed}
    configuration = folder / "limits.yaml"
    configuration.write_text(
        yaml.safe_dump(
            {
                "rate_limits": believed,
                "costs": {"default_input_cost": 0.001, "default_output_cost": 0.001},
            }
        )
    )
    with ExitStack() as parts:
        urls = parts.enter_context(Services(folder / "services"))
        upgrade(urls.database_url)
        simulator = parts.enter_context(run_in_process("--latency", str(LATENCY_S)))
        simulator.configure(limits=limits)
        stack = Stack(urls, simulator, folder, {"AGENTCHORD_CONFIG": str(configuration)})
        parts.enter_context(stack.worker(SCHEDULER, threads=SCHEDULER_THREADS))
        yield stack


@contextmanager
def workers(stack: Stack, count: int) -> Iterator[None]:
    """Start more worker processes, which serve all providers."""
    with ExitStack() as parts:
        for _ in range(count):
            parts.enter_context(stack.worker(*PROVIDERS, threads=THREADS))
        yield


def measure(stack: Stack, scenario: Scenario, processes: int) -> Outcome:
    """Run a scenario's agents on the running workers; this process is a client of the stack."""
    return measure_together(stack, [scenario], processes)[0]


def measure_together(stack: Stack, scenarios: Sequence[Scenario], processes: int) -> list[Outcome]:
    """Run several scenarios at the same time; each has a bucket of its own."""
    from app import enqueue

    seen = stack.simulator.ledger()
    runs = [enqueue(scenario.workflow(processes), {}) for scenario in scenarios]
    for run in runs:
        run.wait(timeout=TIMEOUT_S)
    records = stack.simulator.ledger(seen[-1]["seq"] if seen else 0)
    return [
        outcome_of(
            scenario,
            [record for record in records if record["model"] == scenario.model(processes)],
        )
        for scenario in scenarios
    ]


def measure_fairness(stack: Stack, processes: int) -> tuple[float, float]:
    """Seconds of a run of 3 agents: alone on an empty bucket, and behind a run of 3,000."""
    from app import enqueue

    def seconds(agents: int) -> float:
        began_s = time.perf_counter()
        enqueue(FAIRNESS.workflow(processes, agents=agents), {}).wait(timeout=TIMEOUT_S)
        return time.perf_counter() - began_s

    def arrived() -> int:
        model = FAIRNESS.model(processes)
        return sum(record["model"] == model for record in stack.simulator.ledger())

    def alone() -> float:
        seconds(20)  # empties the bucket
        return seconds(SMALL_RUN)

    alone_s = median(alone() for _ in range(FAIRNESS_ROUNDS))
    before = arrived()
    large = enqueue(FAIRNESS.workflow(processes, agents=LARGE_RUN), {})
    wait_until(lambda: arrived() > before + 20, timeout_s=60, what="the large run is under way")
    behind_s = median(seconds(SMALL_RUN) for _ in range(FAIRNESS_ROUNDS))
    large.cancel()
    return alone_s, behind_s

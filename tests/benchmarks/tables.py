"""The results as Markdown tables, which are aligned so that a terminal shows them well, too."""

from collections.abc import Callable, Sequence
from statistics import median

from tests.benchmarks.bench import Sample
from tests.benchmarks.entrants import AGENTCHORD
from tests.benchmarks.results import (
    SERVERS,
    Moments,
    Results,
    application_cpu_s,
    percentile,
)
from tests.benchmarks.workloads import Workload

MARK = "benchmark: written by `make bench`"
PEERS_MARK = "peers: written by `make bench-peers`"
#: Rows of the table: a step, and the two moments between which it lies.
STEPS = (
    ("`enqueue` to the provider's first byte", "called", "arrived"),
    ("- `enqueue` to its return", "called", "accepted"),
    ("- `enqueue` to the run's admission", "called", "admitted"),
    ("- the admission to the agent's claim", "admitted", "claimed"),
    ("- the claim to the provider's first byte", "claimed", "arrived"),
    ("the provider's last byte to `wait()`'s return", "answered", "known"),
    ("- the last byte to the agent's record", "answered", "recorded"),
    ("- the agent's record to the run's end", "recorded", "ended"),
    ("- the run's end to `wait()`'s return", "ended", "known"),
)
MS = 1000.0
OWN_ROLES = ("client", "workers", "scheduler")
STORES = ("Postgres", "Redis")
SHARES = (50, 95, 99)
TIMES = (
    f"{AGENTCHORD}'s time divided by each contender's time in the same round; "
    f"below 1, {AGENTCHORD} is quicker:"
)
CPU = (
    f"{AGENTCHORD}'s CPU divided by that of each contender; the CPU of the servers is not counted:"
)


def block(results: Results) -> str:
    """All tables of `make bench`, with the facts of the machine."""
    return "\n\n".join(
        [
            *_compared(results),
            f"{AGENTCHORD}'s CPU in milliseconds per agent, by process:",
            _cpu_by_role(results),
            "Runs of one agent, one after the other, on an idle stack, in milliseconds:",
            at_rest_table(results.at_rest),
            f"{AGENTCHORD}'s commits, statements and Redis commands per agent:",
            _counts(results),
        ]
    )


def peers_block(results: Results) -> str:
    """All tables of `make bench-peers`."""
    return "\n\n".join(_compared(results))


def _compared(results: Results) -> list[str]:
    return [
        _facts(results),
        "Seconds until all is done:",
        _speed(results),
        "Seconds from the enqueue of a run until its end is known (p50 / p95 / p99 of all runs):",
        _latencies(results),
        TIMES,
        _ratios(results, _wall_s),
        CPU,
        _ratios(results, application_cpu_s),
        "CPU in milliseconds per agent, and memory in MB:",
        _cost(results),
    ]


def _facts(results: Results) -> str:
    machine = results.machine
    return (
        f"{machine['date']}, {machine['cores']} cores, {machine['system']}, Python "
        f"{machine['python']}, Postgres {machine['postgres']}, Redis {machine['redis']}, "
        f"{machine['fsync_ms']} ms per fsync; {results.workers} worker processes; median "
        f"(least-most) of {results.rounds} rounds after a warm-up. Something else used "
        f"{median(sample.others_share for sample in results.samples):.0%} of the machine meanwhile."
    )


def _speed(results: Results) -> str:
    headers = ["", "workload", "ideal", *results.contenders]
    rows = [
        [
            workload.name,
            f"{workload.title}, {workload.latency_s * 1000:.0f} ms",
            f"{workload.ideal_s:.1f}",
            *(_wall(results, name, workload) for name in results.contenders),
        ]
        for workload in results.workloads
    ]
    return table(headers, rows)


def _latencies(results: Results) -> str:
    rows = [
        [workload.name, *(_percentiles(results, name, workload) for name in results.contenders)]
        for workload in results.workloads
        if workload.runs > 1
    ]
    return table(["", *results.contenders], rows)


def _percentiles(results: Results, contender: str, workload: Workload) -> str:
    found = results.latencies_s(contender, workload)
    return " / ".join(f"{percentile(found, share):.2f}" for share in SHARES) if found else "-"


def at_rest_table(runs: Sequence[Moments]) -> str:
    """The steps of runs that came alone to an idle stack, in milliseconds."""
    rows = []
    for title, begin, end in STEPS:
        spans = [MS * (moments[end] - moments[begin]) for moments in runs]
        parts = (percentile(spans, 50), percentile(spans, 95), min(spans), max(spans))
        rows.append([title, *(f"{part:.1f}" for part in parts)])
    return table(["", "p50", "p95", "least", "most"], rows)


def _ratios(results: Results, figure: Callable[[Sample], float]) -> str:
    rows = [
        [
            workload.name,
            *(f"{results.ratio(workload, figure, to=name):.2f}" for name in results.others),
        ]
        for workload in results.workloads
    ]
    return table(["", *results.others], rows)


def _cost(results: Results) -> str:
    headers = ["", "", "application", *SERVERS, "idle memory", "peak memory", "added"]
    rows = []
    for workload in results.workloads:
        for name in results.contenders:
            per_agent = _per_agent(results, name, workload)
            idle_mb = results.idle_mb[name]
            peak_mb = results.spread(name, workload, lambda sample: sample.peak_mb).median
            rows.append(
                [
                    workload.name,
                    name,
                    per_agent(application_cpu_s),
                    *(per_agent(_role(role)) for role in SERVERS),
                    f"{idle_mb:.0f}",
                    f"{peak_mb:.0f}",
                    f"{peak_mb - idle_mb:.0f}",
                ]
            )
    return table(headers, rows)


def _cpu_by_role(results: Results) -> str:
    rows = []
    for workload in results.workloads:
        per_agent = _per_agent(results, AGENTCHORD, workload)
        parts = (per_agent(_role(role)) for role in (*OWN_ROLES, *STORES))
        rows.append([workload.name, *parts, per_agent(_own_cpu_s)])
    return table(["", *OWN_ROLES, *STORES, "all of these"], rows)


def _counts(results: Results) -> str:
    headers = ["", "Postgres commits", "of these written", "statements", "Redis round trips"]
    headers += ["Redis commands"]
    rows = []
    for workload in results.workloads:
        statements = results.statements[workload.name]
        own = _median_of(results, workload)
        rows.append(
            [
                workload.name,
                f"{statements.commits / workload.agents:.2f}",
                f"{own(lambda s: s.counts.written_transactions) / workload.agents:.2f}",
                f"{statements.total / workload.agents:.2f}",
                f"{own(lambda s: s.counts.redis_round_trips) / workload.agents:.1f}",
                f"{own(lambda s: s.counts.redis_commands) / workload.agents:.1f}",
            ]
        )
    return table(headers, rows)


def _own_cpu_s(sample: Sample) -> float:
    return sum(sample.cpu_s[role] for role in (*OWN_ROLES, *STORES))


def _wall_s(sample: Sample) -> float:
    return sample.wall_s


def _wall(results: Results, contender: str, workload: Workload) -> str:
    wall = results.spread(contender, workload, _wall_s)
    return f"{wall.median:.2f} ({wall.low:.2f}-{wall.high:.2f})"


def _role(role: str) -> Callable[[Sample], float]:
    return lambda sample: sample.cpu_s[role]


def _per_agent(
    results: Results, contender: str, workload: Workload
) -> Callable[[Callable[[Sample], float]], str]:
    """Write seconds per workload as milliseconds per agent."""

    def shown(figure: Callable[[Sample], float]) -> str:
        seconds = results.spread(contender, workload, figure).median
        return f"{seconds * 1000 / workload.agents:.2f}"

    return shown


def _median_of(
    results: Results, workload: Workload
) -> Callable[[Callable[[Sample], float]], float]:
    return lambda figure: results.spread(AGENTCHORD, workload, figure).median


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned."""
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in (headers, rule, *rows)
    ]
    return "\n".join(f"| {line} |" for line in lines)

"""The results as Markdown, aligned so that a terminal shows them as well."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from tests.benchmarks.bench import AGENTCHORD, PLAIN, Sample
from tests.benchmarks.contenders import BenchmarkFailed
from tests.benchmarks.results import Results, application_cpu_s
from tests.benchmarks.workloads import Workload

MARK = "benchmark: written by `make bench`"
END = "<!-- end of the benchmark -->"


def block(results: Results) -> str:
    """All tables, with the facts of the machine."""
    machine = results.machine
    facts = (
        f"{machine['date']}, {machine['cores']} cores, {machine['system']}, Python "
        f"{machine['python']}, Postgres {machine['postgres']}, Redis {machine['redis']}, "
        f"{machine['fsync_ms']} ms per fsync; {results.workers} worker processes; median "
        f"(least-most) of {results.rounds} rounds after a warm-up. Something else used "
        f"{median(sample.others_share for sample in results.samples):.0%} of the machine meanwhile."
    )
    return "\n".join(
        [
            facts,
            "",
            _speed(results),
            "",
            "CPU in milliseconds per agent:",
            "",
            _cpu(results),
            "",
            "Per agent, and memory in MB:",
            "",
            _counts(results),
        ]
    )


def write_into(file: Path, text: str, *, mark: str = MARK) -> None:
    """Put the tables into a Markdown file, between the comments that are there for them.

    Raises:
        BenchmarkFailed: If the file has no such marks.
    """
    before, begin, rest = file.read_text(encoding="utf-8").partition(f"<!-- {mark} -->")
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise BenchmarkFailed(f"{str(file)!r} has no comment {mark!r} and then {END!r}")
    file.write_text(f"{before}{begin}\n{text}\n{END}{after}", encoding="utf-8")


def _speed(results: Results) -> str:
    headers = ["", "workload", "ideal s", f"{AGENTCHORD} s", f"{PLAIN} s", "ratio", "agents/s"]
    rows = [
        [
            workload.name,
            f"{workload.title}, {workload.latency_s * 1000:.0f} ms",
            f"{workload.ideal_s:.1f}",
            _wall(results, AGENTCHORD, workload),
            _wall(results, PLAIN, workload),
            f"{results.ratio(workload, lambda sample: sample.wall_s):.2f}",
            f"{workload.agents / results.spread(AGENTCHORD, workload, _wall_s).median:.0f}",
        ]
        for workload in results.workloads
    ]
    return table(headers, rows)


def _cpu(results: Results) -> str:
    headers = ["", "client", "workers", "scheduler", f"{AGENTCHORD} in all", PLAIN, "ratio"]
    headers += ["Postgres", "Redis", "simulator"]
    rows = []
    for workload in results.workloads:
        own, plain = (_per_agent(results, name, workload) for name in (AGENTCHORD, PLAIN))
        rows.append(
            [
                workload.name,
                *(own(_role(role)) for role in ("client", "workers", "scheduler")),
                own(application_cpu_s),
                plain(application_cpu_s),
                f"{results.ratio(workload, application_cpu_s):.2f}",
                *(own(_role(role)) for role in ("Postgres", "Redis", "simulator")),
            ]
        )
    return table(headers, rows)


def _counts(results: Results) -> str:
    headers = ["", "Postgres commits", "of these written", "statements", "Redis round trips"]
    headers += ["Redis commands", "idle memory", "peak memory", "added"]
    idle_mb = results.idle_mb[AGENTCHORD]
    rows = []
    for workload in results.workloads:
        statements = results.statements[workload.name]
        own = _median_of(results, workload)
        peak_mb = own(lambda sample: sample.peak_mb)
        rows.append(
            [
                workload.name,
                f"{statements.commits / workload.agents:.2f}",
                f"{own(lambda s: s.counts.written_transactions) / workload.agents:.2f}",
                f"{statements.total / workload.agents:.2f}",
                f"{own(lambda s: s.counts.redis_round_trips) / workload.agents:.1f}",
                f"{own(lambda s: s.counts.redis_commands) / workload.agents:.1f}",
                f"{idle_mb:.0f}",
                f"{peak_mb:.0f}",
                f"{peak_mb - idle_mb:.0f}",
            ]
        )
    return table(headers, rows)


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
    """How a figure in seconds per workload is shown in milliseconds per agent."""

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

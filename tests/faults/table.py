"""The table of the fault suite in docs/reliability.md."""

from collections.abc import Sequence
from statistics import median

from tests.benchmarks.tables import table
from tests.faults.case import Result

HEADERS = (
    "fault",
    "runs",
    "agents",
    "moves again in s, median",
    "max",
    "all ended in s, max",
    "repeated calls",
    "unconfirmed",
)


def faults_table(results: Sequence[Result]) -> str:
    """One line for each fault, over all its cases."""
    by_name: dict[str, list[Result]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(result)
    return table(HEADERS, [_line(name, cases) for name, cases in by_name.items()])


def _line(name: str, cases: Sequence[Result]) -> tuple[str, ...]:
    moved_s = [case.moved_s for case in cases]
    return (
        name,
        str(sum(case.runs for case in cases)),
        f"{sum(case.agents for case in cases):,}",
        f"{median(moved_s):.1f}",
        f"{max(moved_s):.1f}",
        f"{max(case.ended_s for case in cases):.1f}",
        str(sum(case.repeated for case in cases)),
        f"${sum(case.unconfirmed_usd for case in cases):.4f}",
    )

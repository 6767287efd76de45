"""Every statement about single runs finds its rows by an index, for tables of any length."""

import re
from importlib import import_module
from pkgutil import iter_modules
from uuid import UUID

import pytest
from sqlalchemy import TextClause, text

from app import storage
from app.costs.reports import ReportFilter, report
from app.domain.run_filter import RunFilter
from app.monitoring import activity, progress, run_history, whole_run
from app.scheduler import watchdog
from app.storage import run_lists
from app.storage.session import LOOKUP_SETTINGS, create_engine
from workers import run_contexts

pytestmark = pytest.mark.anyio

# Old events of programs are rarely searched, and few. The table of what workers load has a row for
# each worker. The totals of the ledger are few, and only calls in flight have holds. Two statements
# have no plan.
SCANS = {
    *("run_lists.LEDGER_TENANTS", "standing.SPENT_EVER", "standing.COUNT_FROM_START"),
    *("standing.CLOSE_GATE", "standing.LIMIT_WAIT"),
    *("prune.COUNT_RECORDED", "prune.PRUNE_RECORDED"),
    *("worker_loads.PUBLISH", "worker_loads.READ"),
}
# The views about whole runs, as a reader of one run asks them.
QUERIES = {
    f"views.{name} {column}": text(f"SELECT * FROM {name} WHERE {column} = CAST(:run_id AS uuid)")
    for name, column in (
        ("run_tree", "outer_run_id"),
        ("run_tree", "run_id"),
        ("cost_lines_whole", "outer_run_id"),
        ("costs_by_run_whole", "run_id"),
    )
}
LISTS = {
    f"run_lists.LIST_RUNS {' '.join(sorted(names)) or 'all'}": statement
    for names, statement in run_lists.LIST_RUNS.items()
}
LABELS = RunFilter(labels={"team": "claims", "batch": None})
# Reports of the calls of some runs read only the lines of these runs. A report by label reads all
# lines.
REPORTS = {
    f"reports.report of {of} by {' '.join(by) or 'total'}": report(by, only)[0]
    for of, only in {
        "labels": ReportFilter(runs=LABELS),
        "a run": ReportFilter(run_id=UUID(int=0)),
    }.items()
    for by in ((), ("model",), ("agent", "day"), ("run",), ("outer-workflow", "label:team"))
}
WHOLE_RUNS = (activity, progress, run_history, whole_run)
MODULES = [import_module(f"app.storage.{module.name}") for module in iter_modules(storage.__path__)]
LOOKUPS = {**QUERIES, **LISTS, **REPORTS} | {
    f"{module.__name__.rpartition('.')[2]}.{name}": value
    for module in (*MODULES, *WHOLE_RUNS, watchdog, run_contexts)
    for name, value in vars(module).items()
    if isinstance(value, TextClause)
}


def prepared(statement: TextClause) -> str:
    """The statement with $1 in place of :name, as a server that prepares it sees it."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return re.sub(r"(?<![:\w]):(\w+)", number, statement.text)


@pytest.mark.parametrize("name", sorted(LOOKUPS.keys() - SCANS))
async def test_no_table_is_scanned(name: str, database_url: str, anyio_backend: str) -> None:
    engine = create_engine(database_url, session_settings=LOOKUP_SETTINGS)
    async with engine.connect() as connection:
        plan = await connection.exec_driver_sql(
            f"EXPLAIN (GENERIC_PLAN) {prepared(LOOKUPS[name])}".replace("%", "%%")
        )
        lines = [row[0] for row in plan]
    await engine.dispose()

    assert [line for line in lines if "Seq Scan" in line or "Disabled: true" in line] == []

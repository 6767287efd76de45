"""Every statement about single runs finds its rows by an index, for tables of any length."""

import re
from importlib import import_module
from pkgutil import iter_modules

import pytest
from sqlalchemy import TextClause, text

from app import storage
from app.monitoring import activity, progress, run_history, whole_run
from app.scheduler import watchdog
from app.storage.session import LOOKUP_SETTINGS, create_engine
from workers import run_contexts

pytestmark = pytest.mark.anyio

# Old events of programs are rarely searched, and few. The table of what workers load has a row for
# each worker.
SCANS = {
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
WHOLE_RUNS = (activity, progress, run_history, whole_run)
MODULES = [import_module(f"app.storage.{module.name}") for module in iter_modules(storage.__path__)]
LOOKUPS = QUERIES | {
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

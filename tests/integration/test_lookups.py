"""Whatever the storage reads and writes is found by an index, however long the tables are."""

import re

import pytest
from sqlalchemy import TextClause

from app.scheduler import watchdog
from app.storage import (
    admission,
    control,
    event_log,
    families,
    fan_out,
    giving_up,
    history,
    limits,
    new_runs,
    progress,
    prune,
    returns,
    runs,
    standing,
    statements,
    sub_runs,
    tallies,
    turns,
)
from app.storage.session import LOOKUP_SETTINGS, create_engine
from workers import run_contexts

pytestmark = pytest.mark.anyio

# Old events of programs are looked for once in a while, and are few.
SCANS = {"COUNT_RECORDED", "PRUNE_RECORDED"}
LOOKUPS = {
    name: value
    for module in (
        watchdog,
        admission,
        control,
        event_log,
        families,
        fan_out,
        giving_up,
        history,
        limits,
        new_runs,
        progress,
        prune,
        returns,
        runs,
        standing,
        statements,
        sub_runs,
        tallies,
        turns,
        run_contexts,
    )
    for name, value in vars(module).items()
    if isinstance(value, TextClause) and name not in SCANS
}


def prepared(statement: TextClause) -> str:
    """The statement with $1 in place of :name, as a server that prepares it sees it."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return re.sub(r"(?<![:\w]):(\w+)", number, statement.text)


@pytest.mark.parametrize("name", sorted(LOOKUPS))
async def test_no_table_is_scanned(name: str, database_url: str, anyio_backend: str) -> None:
    engine = create_engine(database_url, session_settings=LOOKUP_SETTINGS)
    async with engine.connect() as connection:
        plan = await connection.exec_driver_sql(
            f"EXPLAIN (GENERIC_PLAN) {prepared(LOOKUPS[name])}".replace("%", "%%")
        )
        lines = [row[0] for row in plan]
    await engine.dispose()

    assert [line for line in lines if "Seq Scan" in line or "Disabled: true" in line] == []

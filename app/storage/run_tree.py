"""Finds, reads and locks runs together with the runs of their sub-workflows."""

# ruff: noqa: S608 - every part of these statements is a constant of this file

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

_COLUMNS = """r.id, r.status, r.level, r.level_count, r.allow_partial_completion, r.stop_as,
        r.stop_reason, r.parent_agent_run_id, r.ancestors, r.round"""
LOCK_RUNS_FULL: TextClause = text(f"""
    SELECT {_COLUMNS} FROM runs r
    WHERE r.id = ANY(CAST(:ids AS uuid[])) ORDER BY r.id FOR NO KEY UPDATE
""")
LOCK_DESCENDANTS: TextClause = text(f"""
    SELECT {_COLUMNS} FROM runs r
    WHERE r.ancestors <> '{{}}' AND r.ancestors && CAST(:ids AS uuid[])
    ORDER BY r.id FOR NO KEY UPDATE
""")
RUN_TREE_IDS: TextClause = text("""
    SELECT id FROM runs
    WHERE ancestors <> '{}' AND ancestors @> ARRAY[CAST(:run_id AS uuid)]
""")
# Outer runs come before their inner runs. ``agent`` is the agent run that the inner run will end,
# with its place: ``agent_level``, ``position`` and ``item_index``.
READ_RUN_TREE: TextClause = text("""
    SELECT r.id, r.status, r.level, r.parent_agent_run_id, r.ancestors, w.name AS workflow,
        p.name AS agent, p.level AS agent_level, p.position, p.item_index
    FROM (
        SELECT * FROM runs WHERE id = CAST(:run_id AS uuid)
        UNION ALL
        SELECT * FROM runs
        WHERE ancestors <> '{}' AND ancestors @> ARRAY[CAST(:run_id AS uuid)]
    ) r
    JOIN workflows w ON w.id = r.workflow_id
    LEFT JOIN agent_runs p ON p.id = r.parent_agent_run_id
    ORDER BY cardinality(r.ancestors), r.id
""")


async def lock_run_tree(connection: AsyncConnection, run_ids: Sequence[UUID]) -> list[Row[Any]]:
    """Lock runs and all runs of their sub-workflows, at any depth.

    A sub-workflow starts only under the lock of the run around it. Therefore the tree is complete
    as soon as a search finds no new run.

    Returns:
        The rows in their state after the locking; outer runs come before inner runs.
    """
    rows = {row.id: row for row in await connection.execute(LOCK_RUNS_FULL, {"ids": run_ids})}
    known = -1
    while known < len(rows):
        known = len(rows)
        found = (await connection.execute(LOCK_DESCENDANTS, {"ids": run_ids})).all()
        rows.update((row.id, row) for row in found)
        if not found:
            break
    return sorted(rows.values(), key=lambda row: (len(row.ancestors), row.id))


async def run_tree_ids(connection: AsyncConnection, run_id: UUID) -> list[UUID]:
    """Return the ids of a run and of the runs of its sub-workflows, at any depth."""
    return [run_id, *await connection.scalars(RUN_TREE_IDS, {"run_id": run_id})]


async def read_run_tree(connection: AsyncConnection, run_id: UUID) -> Sequence[Row[Any]]:
    """Read a run and the runs of its sub-workflows, at any depth; outer runs come first."""
    return (await connection.execute(READ_RUN_TREE, {"run_id": run_id})).all()
